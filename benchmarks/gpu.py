"""What a GPU makes of it: kernels checked, sequences and tokens a second, share of the peak, memory, largest batch.

    bash benchmarks/gpu.sh          # under ten minutes; needs jax, flax, optax, orbax and numpy, nothing else

Rows are made up: ids at random, fixed rows full to the end, packed rows of several sequences. FLOP a token are those
of the mathematics (6 for each weight of the encoder, 12 L D T for attention, the head on the masked share), so that
what is computed again in the backward pass counts as time, not as work.
"""

import argparse
import json
import time
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import PRESETS, BertConfig
from bert_jax.models import BertForPreTraining
from bert_jax.training.kernels import Rows, choose_kernel
from bert_jax.training.objectives import pretraining
from bert_jax.training.optimizers import make_optimizer, make_schedule
from bert_jax.training.state import TrainState, run_key
from bert_jax.training.steps import train_step

MASKED = 0.15
PEAK = {"H200": 790e12, "H100": 790e12, "A100": 312e12}  # bfloat16 FLOP/s; the first two as measured, not as sold


@dataclass(frozen=True)
class Case:
    """One line of the table."""

    preset: str
    length: int
    packed: bool
    rows: int
    remat: str = "none"
    attention: str = "auto"
    dropout: float = 0.0  # of attention weights; the rest of the model drops 0.1 always


def batch_of(case: Case, vocab_size: int) -> dict[str, np.ndarray]:
    """Returns rows of random ids; packed ones hold sequences of 64 tokens to a whole row."""
    random = np.random.default_rng(0)
    B, T, P = case.rows, case.length, round(MASKED * case.length)
    S = max(1, T // 64) if case.packed else 1
    cuts = np.sort(random.integers(1, T, (B, S - 1)), axis=1)
    number = 1 + (np.arange(T)[None, :, None] >= cuts[:, None, :]).sum(axis=2)
    starts = np.concatenate([np.zeros((B, 1), int), cuts], axis=1)
    return {
        "input_ids": random.integers(0, vocab_size, (B, T), np.int32),
        "attention_mask": number.astype(np.int32),
        "token_type_ids": np.zeros((B, T), np.int32),
        "position_ids": (np.arange(T)[None] - np.take_along_axis(starts, number - 1, axis=1)).astype(np.int32),
        "masked_positions": np.sort(random.integers(0, T, (B, P)), axis=1).astype(np.int32),
        "masked_labels": random.integers(0, vocab_size, (B, P), np.int32),
        "masked_weights": np.ones((B, P), np.float32),
        "cls_positions": starts.astype(np.int32),
        "next_sentence_labels": random.integers(0, 2, (B, S), np.int32),
        "next_sentence_weights": np.ones((B, S), np.float32),
    }


def flop_per_token(config: BertConfig, length: int) -> float:
    """Returns the FLOP of forward and backward a token."""
    D, F, L, V = config.hidden_size, config.intermediate_size, config.num_hidden_layers, config.vocab_size
    return 6.0 * L * (4 * D * D + 2 * D * F) + 12.0 * L * D * length + MASKED * 6.0 * (V * D + D * D)


def configuration(case: Case, dtype: str) -> BertConfig:
    return BertConfig.preset(case.preset, dtype=dtype, attention_probs_dropout_prob=case.dropout)


def compiled_step(case: Case, config: BertConfig, kernel: str | None):
    """Returns the compiled train step, a function that makes its state, and the batch."""
    model = BertForPreTraining(config, remat=case.remat, kernel=kernel)
    schedule = make_schedule("linear", peak=1e-4, warmup_steps=100, decay_steps=10_000)
    optimizer = make_optimizer("bert_adamw", schedule)
    batch = batch_of(case, config.vocab_size)

    @jax.jit
    def create() -> TrainState:
        params = model.init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
        return TrainState.create(params, optimizer, key=run_key(jax.random.key(1), "rbg"))

    step = jax.jit(
        partial(train_step, objective=pretraining(model), optimizer=optimizer, schedule=schedule), donate_argnums=0
    )
    return step.lower(jax.eval_shape(create), batch).compile(), create, batch


def measure(case: Case, dtype: str, steps: int) -> dict[str, object]:
    """Runs a case and returns its line."""
    config = configuration(case, dtype)
    mask = batch_of(replace(case, rows=4), config.vocab_size)["attention_mask"]
    kernel, why = choose_kernel(case.attention, config, Rows(mask, packed=case.packed, devices=1))
    began = time.perf_counter()
    step, create, batch = compiled_step(case, config, kernel)
    compiling = time.perf_counter() - began
    state, batch = create(), jax.device_put(batch)
    for _ in range(3):
        state, figures = step(state, batch)
    jax.block_until_ready(figures)
    times = []
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(steps):
            state, figures = step(state, batch)
        loss = float(figures["loss"])
        times.append((time.perf_counter() - began) / steps)
    seconds = sorted(times)[1]
    tokens = case.rows * case.length / seconds
    kind = jax.devices()[0].device_kind
    peak = next((value for name, value in PEAK.items() if name in kind), None)
    used = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    return {
        "model": case.preset, "length": case.length, "packed": case.packed, "rows": case.rows, "remat": case.remat,
        "attention": kernel or "plain", "why": why, "attention dropout": case.dropout,
        "ms a step": round(seconds * 1e3, 2),
        "sequences/s": round(case.rows / seconds, 1), "tokens/s": round(tokens),
        "share of peak": round(tokens * flop_per_token(config, case.length) / peak, 3) if peak else None,
        "peak GiB so far": round(used / 2**30, 1), "compile s": round(compiling, 1), "loss": round(loss, 3),
    }  # fmt: skip


def largest_batch(case: Case, dtype: str) -> dict[str, object]:
    """Doubles the rows until the compiled program asks for more than the device has."""
    config = configuration(case, dtype)
    limit = (jax.devices()[0].memory_stats() or {}).get("bytes_limit", 0)
    if not limit:
        return {"model": case.preset, "length": case.length, "rows": "this device does not tell its memory"}
    kernel, _ = choose_kernel(
        case.attention, config, Rows(batch_of(replace(case, rows=4), 9)["attention_mask"], case.packed, 1)
    )
    fits, needs, rows = 0, 0, case.rows
    while rows <= 1 << 14:
        memory = compiled_step(replace(case, rows=rows), config, kernel)[0].memory_analysis()
        bytes_needed = memory.argument_size_in_bytes + memory.temp_size_in_bytes + memory.output_size_in_bytes
        bytes_needed -= memory.alias_size_in_bytes
        if bytes_needed > limit:
            break
        fits, needs, rows = rows, bytes_needed, rows * 2
    return {
        "model": case.preset, "length": case.length, "remat": case.remat, "attention": kernel or "plain",
        "most rows (a power of two)": fits, "GiB": round(needs / 2**30, 1), "of": round(limit / 2**30, 1),
    }  # fmt: skip


CASES = (
    Case("large", 128, False, 256),
    Case("large", 128, False, 256, attention="plain"),
    Case("large", 128, False, 256, attention="plain", dropout=0.1),
    Case("large", 512, True, 64),
    Case("large", 512, True, 64, attention="plain"),
    Case("large", 512, True, 64, remat="dots"),
    Case("base", 128, False, 512),
    Case("base", 512, True, 128),
)
LIMITS = (Case("large", 512, True, 64), Case("large", 512, True, 128, remat="full"), Case("base", 128, False, 512))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0, help="start no further case after so many minutes")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--smoke", action="store_true", help="one small case, to see that everything runs")
    options = parser.parse_args()
    began = time.perf_counter()
    device = jax.devices()[0]
    print(json.dumps({"device": device.device_kind, "platform": device.platform, "jax": jax.__version__}), flush=True)
    cases = (Case("tiny", 64, True, 4, attention="plain"),) if options.smoke else CASES
    limits = (Case("tiny", 64, True, 4),) if options.smoke else LIMITS
    for run, some in ((partial(measure, steps=options.steps), cases), (largest_batch, limits)):
        for case in some:
            if time.perf_counter() - began > 60 * options.minutes:
                print(json.dumps({"left out": str(case)}), flush=True)
                continue
            assert case.preset in PRESETS
            try:
                print(json.dumps(run(case, options.dtype)), flush=True)
            except Exception as error:  # one case that does not fit must not hide the others
                print(json.dumps({"case": str(case), "failed": str(error).splitlines()[0][:300]}), flush=True)


if __name__ == "__main__":
    main()
