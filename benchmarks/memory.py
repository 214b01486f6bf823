"""Memory at its peak: of a pretraining step and of the forward pass, here, as planned and as measured, and in PyTorch.

Each line is a process of its own on the CPU: how far its resident memory rises from before there are weights until
some steps are done, imports left out. A program is compiled before that; what the compiler took for a while stands in
a column by itself. "planned" is XLA's account of the compiled program, known before anything runs, which is what
`train.py --plan` tells.

`remat` says what the backward pass computes again instead of keeping it: nothing, all but matrix products, or whole
layers. That costs time, so the seconds of a step stand beside it; they are one process's, not taken in turns.

    python benchmarks/memory.py --preset base --rows 8 --length 128
"""

import argparse
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from common.pretraining_step import Batch, Ours, as_torch_has, as_torch_reads, theirs
from common.processes import MEBI, Peak, apart, options_of
from common.timing import record
from train_step import full_batch

from bert_jax.config import PRESETS, BertConfig
from bert_jax.data.pretraining.masking import predictions_per_row
from bert_jax.models import Bert
from bert_jax.training.devices.cost import program_bytes

STEPS = 4  # the first does not count for the seconds
Figures = dict[str, float | None]


def our_step(config: BertConfig, batch: Batch, *, remat: str) -> Figures:
    with Peak() as compiling:
        step = Ours(config, batch, remat=remat)
    with Peak() as running:
        seconds = taken(partial(step, batch))
    memory = step.memory
    return {
        "peak": running.bytes, "planned": memory.total, "compiling": compiling.bytes, "seconds": seconds,
        "state": memory.parameters + memory.optimizer,
    }  # fmt: skip


def their_step(config: BertConfig, batch: Batch, *, again: bool) -> Figures:
    from transformers import BertForPreTraining  # noqa: F401 (found when asked for, which is no memory of a step)

    with Peak() as running:
        step = theirs(config, again=again)
        seconds = taken(partial(step, batch))
    return {"peak": running.bytes, "seconds": seconds}


def our_forward(config: BertConfig, batch: Batch) -> Figures:
    model, key = Bert(config), jax.random.key(0)
    names = ("input_ids", "attention_mask", "token_type_ids")

    def create(key: jax.Array) -> Any:
        return model.init(key, jnp.zeros((1, 2), jnp.int32))["params"]

    def forward(params: Any, inputs: dict[str, jax.Array]) -> jax.Array:
        return model.apply({"params": params}, **inputs).last_hidden_state

    inputs, shapes = {name: batch[name] for name in names}, jax.eval_shape(create, key)

    def weights() -> Any:  # to draw them takes more memory than the forward pass
        return jax.tree.map(lambda x: jnp.full(x.shape, 0.01, x.dtype), shapes)

    with Peak() as compiling:
        program = jax.jit(forward).lower(shapes, inputs).compile()
        make = jax.jit(weights).lower().compile()
    with Peak() as running:
        params = make()
        seconds = taken(lambda: program(params, jax.device_put(inputs)).block_until_ready())
    state = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes))
    return {
        "peak": running.bytes, "planned": program_bytes(program), "compiling": compiling.bytes, "seconds": seconds,
        "state": state,
    }  # fmt: skip


def their_forward(config: BertConfig, batch: Batch) -> Figures:
    import torch
    from transformers import BertModel

    names = ("input_ids", "attention_mask", "token_type_ids")
    inputs = {name: torch.from_numpy(array) for name, array in as_torch_reads(batch).items() if name in names}
    with Peak() as running, torch.inference_mode():
        model = BertModel(as_torch_has(config)).eval()
        seconds = taken(lambda: model(**inputs).last_hidden_state)
    return {"peak": running.bytes, "seconds": seconds}


def taken(run: Callable[[], object]) -> float:
    """Runs some times; returns the median seconds after the first."""
    times = []
    for _ in range(STEPS):
        began = time.perf_counter()
        run()
        times.append(time.perf_counter() - began)
    return statistics.median(times[1:])


PYTORCH = "PyTorch"
CASES: dict[str, dict[str, Callable[[BertConfig, Batch], Figures]]] = {
    "a train step": {
        **{f"bert_jax, remat {remat}": partial(our_step, remat=remat) for remat in ("none", "dots", "full")},
        PYTORCH: partial(their_step, again=False),
        f"{PYTORCH}, gradient checkpointing": partial(their_step, again=True),
    },
    "the forward pass": {"bert_jax": our_forward, PYTORCH: their_forward},
}


def measure(task: str, case: str, preset: str, rows: int, length: int) -> Figures:
    config = BertConfig.preset(preset)
    return CASES[task][case](config, full_batch(config, rows, length, predictions_per_row(length, 0.15)))


def table(measured: dict[str, Figures]) -> list[str]:
    """Returns the lines of a table, one for each case."""

    def mebibytes(value: float | None) -> str:
        return "" if value is None else f"{value / MEBI:,.0f}"

    lines = [
        "| | peak, MiB | of PyTorch's | planned, MiB | of it parameters and optimizer | while compiling, MiB | s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, figures in measured.items():
        peak, peers = figures["peak"], measured.get(PYTORCH, {}).get("peak")
        ratio = f"{peak / peers:.2f}" if peak and peers and name != PYTORCH else ""
        planned, state, compiling = (mebibytes(figures.get(key)) for key in ("planned", "state", "compiling"))
        seconds = f"{figures['seconds']:.2f}"
        lines.append(f"| {name} | {mebibytes(peak)} | {ratio} | {planned} | {state} | {compiling} | {seconds} |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="base")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--alone", action="store_true", help="without PyTorch")
    parser.add_argument("--record", action="store_true", help="keep the results in RESULTS.md")
    options = options_of(parser, measure)
    shape = {"preset": options.preset, "rows": options.rows, "length": options.length}
    lines = ["Linux' high-water mark of a process beyond its imports; float32, dropout 0.1."]
    for task, cases in CASES.items():
        chosen = [case for case in cases if not (options.alone and case.startswith(PYTORCH))]
        found = {case: apart(__file__, {"JAX_PLATFORMS": "cpu"}, task=task, case=case, **shape) for case in chosen}
        lines += ["", f"{task[0].upper()}{task[1:]}:", "", *table(found)]
    record(f"Memory: {options.preset}, {options.rows} x {options.length}", "\n".join(lines))


if __name__ == "__main__":
    main()
