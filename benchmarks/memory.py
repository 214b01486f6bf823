"""Measure peak memory of a pretraining step and of the forward pass: planned, measured, and in PyTorch.

Each row of the table is a separate process on the CPU: how far its resident memory rises from before the weights
exist until several steps are done, imports excluded. Programs are compiled before that; the compiler's memory has its
own column. "Planned" is what XLA computes for the compiled program before anything runs, as in `train.py --plan`.

`remat` selects what the backward pass recomputes: nothing, everything but matrix multiplications, or whole layers.
Recomputation takes time, so seconds per step are given too; they come from one process and do not alternate.

    python benchmarks/memory.py --preset base --rows 8 --length 128
"""

import statistics
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from common.pretraining_step import Batch, JaxStep, full_batch, torch_batch, torch_config, torch_step
from common.processes import MEBI, ResidentPeak, parse_options, run_in_new_process
from common.results import make_parser, record
from common.timing import seconds_of

from bert_jax.config import BertConfig
from bert_jax.models import Bert
from bert_jax.training.devices.cost import program_bytes

STEPS = 4  # the first is left out of the seconds
INPUTS = ("input_ids", "attention_mask", "token_type_ids")
Measurement = dict[str, float | None]  # bytes and seconds; what is missing was not measured


def jax_train_step(config: BertConfig, batch: Batch, *, remat: str) -> Measurement:
    with ResidentPeak() as compiling:
        step = JaxStep(config, batch, remat=remat)
    with ResidentPeak() as running:
        seconds = median_seconds(partial(step, batch))
    return {
        "peak": running.bytes,
        "planned": step.memory.total,
        "state": step.memory.parameters + step.memory.optimizer,
        "compiling": compiling.bytes,
        "seconds": seconds,
    }


def torch_train_step(config: BertConfig, batch: Batch, *, gradient_checkpointing: bool) -> Measurement:
    from transformers import BertForPreTraining  # noqa: F401 (lazily imported: now, so that it does not count)

    with ResidentPeak() as running:
        step = torch_step(config, gradient_checkpointing=gradient_checkpointing)
        seconds = median_seconds(partial(step, batch))
    return {"peak": running.bytes, "seconds": seconds}


def jax_forward(config: BertConfig, batch: Batch) -> Measurement:
    model = Bert(config)
    inputs = {name: batch[name] for name in INPUTS}
    shapes = jax.eval_shape(lambda key: model.init(key, jnp.zeros((1, 2), jnp.int32))["params"], jax.random.key(0))

    def forward(params: Any, inputs: dict[str, jax.Array]) -> jax.Array:
        return model.apply({"params": params}, **inputs).last_hidden_state

    def constant_params() -> Any:  # random ones would take more memory than the forward pass
        return jax.tree.map(lambda x: jnp.full(x.shape, 0.01, x.dtype), shapes)

    with ResidentPeak() as compiling:
        program = jax.jit(forward).lower(shapes, inputs).compile()
        create = jax.jit(constant_params).lower().compile()
    with ResidentPeak() as running:
        params = create()
        seconds = median_seconds(lambda: program(params, jax.device_put(inputs)).block_until_ready())
    return {
        "peak": running.bytes,
        "planned": program_bytes(program),
        "state": sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(shapes)),
        "compiling": compiling.bytes,
        "seconds": seconds,
    }


def torch_forward(config: BertConfig, batch: Batch) -> Measurement:
    import torch
    from transformers import BertModel

    inputs = {name: torch.from_numpy(array) for name, array in torch_batch(batch).items() if name in INPUTS}
    with ResidentPeak() as running, torch.inference_mode():
        model = BertModel(torch_config(config)).eval()
        seconds = median_seconds(lambda: model(**inputs).last_hidden_state)
    return {"peak": running.bytes, "seconds": seconds}


def median_seconds(run: Callable[[], object]) -> float:
    """Calls `run` several times; returns the median seconds after the first call."""
    return statistics.median([seconds_of(run) for _ in range(STEPS)][1:])


PYTORCH = "PyTorch"
CASES: dict[str, dict[str, Callable[[BertConfig, Batch], Measurement]]] = {
    "train step": {
        **{f"bert_jax, remat {remat}": partial(jax_train_step, remat=remat) for remat in ("none", "dots", "full")},
        PYTORCH: partial(torch_train_step, gradient_checkpointing=False),
        f"{PYTORCH}, gradient checkpointing": partial(torch_train_step, gradient_checkpointing=True),
    },
    "forward pass": {"bert_jax": jax_forward, PYTORCH: torch_forward},
}


def measure(task: str, case: str, preset: str, rows: int, length: int) -> Measurement:
    """Runs one case in this process."""
    config = BertConfig.preset(preset)
    return CASES[task][case](config, full_batch(config, rows, length))


def format_table(measurements: dict[str, Measurement]) -> list[str]:
    """Returns the lines of a Markdown table, one row per case."""

    def mebibytes(value: float | None) -> str:
        return "" if value is None else f"{value / MEBI:,.0f}"

    lines = [
        "| | peak, MiB | of PyTorch's | planned, MiB | parameters, optimizer | while compiling, MiB | s |",
        "|---|---|---|---|---|---|---|",
    ]
    torch_peak = measurements.get(PYTORCH, {}).get("peak")
    for name, measurement in measurements.items():
        peak = measurement["peak"]
        ratio = f"{peak / torch_peak:.2f}" if peak and torch_peak and name != PYTORCH else ""
        planned, state, compiling = (mebibytes(measurement.get(key)) for key in ("planned", "state", "compiling"))
        seconds = f"{measurement['seconds']:.2f}"
        lines.append(f"| {name} | {mebibytes(peak)} | {ratio} | {planned} | {state} | {compiling} | {seconds} |")
    return lines


def main() -> None:
    parser = make_parser(__doc__, preset="base", rows=8, length=128)
    parser.add_argument("--alone", action="store_true", help="leave PyTorch out")
    options = parse_options(parser, measure)
    shape = {"preset": options.preset, "rows": options.rows, "length": options.length}
    lines = ["Peak resident memory of a process, beyond its imports, on Linux; float32, dropout 0.1."]
    for task, cases in CASES.items():
        chosen = [case for case in cases if not (options.alone and case.startswith(PYTORCH))]
        environment = {"JAX_PLATFORMS": "cpu"}
        measurements = {
            case: run_in_new_process(__file__, environment, task=task, case=case, **shape) for case in chosen
        }
        lines += ["", f"{task.capitalize()}:", "", *format_table(measurements)]
    record(f"Memory: {options.preset}, {options.rows} x {options.length}", "\n".join(lines))


if __name__ == "__main__":
    main()
