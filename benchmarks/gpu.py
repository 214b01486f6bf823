"""Benchmark a GPU: check the kernels, then measure throughput, fraction of the peak, memory and the largest batch.

    bash benchmarks/gpu.sh          # under ten minutes; needs only jax, flax, optax, orbax and numpy

Prints one JSON object per line. Rows are random token ids: fixed rows are one full sequence, packed rows hold several.
FLOP are those of the mathematics, `real_token_flop`: multiplications with weights, attention within a sequence, the
head on masked tokens; forward once, backward twice. Recomputation in the backward pass counts as time, not as work.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common.pretraining_step import MASKED_FRACTION, real_token_flop

from bert_jax.config import BertConfig
from bert_jax.functional.attention_kernels import KERNELS
from bert_jax.models import BertForPreTraining, BertForQuestionAnswering
from bert_jax.training.devices import cost
from bert_jax.training.devices.kernel_choice import AttentionInputs, choose_kernel, failed_test, unsupported
from bert_jax.training.objectives import pretraining, question_answering
from bert_jax.training.optimizers import make_optimizer, make_schedule
from bert_jax.training.state import TrainState, run_key
from bert_jax.training.steps import train_step

# Dense bfloat16 FLOP/s from NVIDIA's data sheets. On an H200, matrix multiplications alone reached 790e12.
PEAK = {"NVL": 835e12, "H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12}
TASKS = {"pretraining": (BertForPreTraining, pretraining), "answers": (BertForQuestionAnswering, question_answering)}
ROWS_UNIT = 8  # the largest batch is a multiple of it
WARMUP_STEPS = 3
ROUNDS = 3
GIBI = 2**30
SMOKE_MEMORY = 1 << 25  # bytes: a limit that even the first program of the smoke test exceeds


@dataclass(frozen=True)
class Case:
    """One line of the output."""

    preset: str
    length: int
    packed: bool
    rows: int
    remat: str = "none"
    attention: str = "auto"
    dropout: float = 0.0  # of the attention weights; the hidden dropout is always 0.1
    task: str = "pretraining"
    random_bits: str = "hashed"


def random_batch(case: Case, vocab_size: int) -> dict[str, np.ndarray]:
    """Returns rows of random token ids; packed rows hold T / 64 sequences, cut at random positions.

    B rows, T tokens per row, P predictions per row, S sequences per row.
    """
    random = np.random.default_rng(0)
    B = case.rows
    T = case.length
    P = round(MASKED_FRACTION * T)
    S = max(1, T // 64) if case.packed else 1
    cuts = np.sort(random.integers(1, T, (B, S - 1)), axis=1)
    sequence_numbers = 1 + (np.arange(T)[None, :, None] >= cuts[:, None, :]).sum(axis=2)  # [B, T]
    starts = np.concatenate([np.zeros((B, 1), int), cuts], axis=1)  # [B, S]
    position_ids = np.arange(T)[None] - np.take_along_axis(starts, sequence_numbers - 1, axis=1)
    batch = {
        "input_ids": random.integers(0, vocab_size, (B, T), np.int32),
        "attention_mask": sequence_numbers.astype(np.int32),
        "token_type_ids": np.zeros((B, T), np.int32),
        "position_ids": position_ids.astype(np.int32),
    }
    if case.task == "answers":
        positions = starts.astype(np.int32)
        weights = np.ones((B, S), np.float32)
        return batch | {"start_positions": positions, "end_positions": positions, "weights": weights}
    return batch | {
        "masked_positions": np.sort(random.integers(0, T, (B, P)), axis=1).astype(np.int32),
        "masked_labels": random.integers(0, vocab_size, (B, P), np.int32),
        "masked_weights": np.ones((B, P), np.float32),
        "cls_positions": starts.astype(np.int32),
        "next_sentence_labels": random.integers(0, 2, (B, S), np.int32),
        "next_sentence_weights": np.ones((B, S), np.float32),
    }


def config_and_inputs(case: Case, dtype: str) -> tuple[BertConfig, AttentionInputs]:
    """Returns the architecture, and the inputs on which the kernels are checked."""
    config = BertConfig.preset(case.preset, dtype=dtype, attention_probs_dropout_prob=case.dropout)
    mask = random_batch(replace(case, rows=4), config.vocab_size)["attention_mask"]
    return config, AttentionInputs(mask, packed=case.packed, devices=1)


def compile_step(case: Case, config: BertConfig, kernel: str | None) -> tuple[Any, Callable[[], TrainState], Any]:
    """Returns the compiled train step, a function that creates its state, and a batch."""
    model_class, objective = TASKS[case.task]
    model = model_class(config, remat=case.remat, kernel=kernel)
    schedule = make_schedule("linear", peak=1e-4, warmup_steps=100, decay_steps=10_000)
    optimizer = make_optimizer("bert_adamw", schedule)
    batch = random_batch(case, config.vocab_size)

    @jax.jit
    def create() -> TrainState:
        params = model.init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
        return TrainState.create(params, optimizer, key=run_key(jax.random.key(1), case.random_bits))

    step = jax.jit(
        partial(train_step, objective=objective(model), optimizer=optimizer, schedule=schedule), donate_argnums=0
    )
    return step.lower(jax.eval_shape(create), batch).compile(), create, batch


def check_kernel(case: Case, dtype: str, *, name: str) -> dict[str, object]:
    """Compares a kernel's outputs and gradients with plain matrix multiplications, as a run does before it starts."""
    config, inputs = config_and_inputs(case, dtype)
    problem = unsupported(name, config, inputs) or failed_test(name, config, inputs)
    return {
        "kernel": name,
        "length": case.length,
        "packed": case.packed,
        "dtype": dtype,
        "correct": problem is None,
        "reason": problem or "agrees with plain matrix multiplications",
    }


def median_step_seconds(step: Any, state: TrainState, batch: Any, steps: int) -> tuple[float, float]:
    """Returns the median over ROUNDS of the seconds per step, and the last loss."""
    for _ in range(WARMUP_STEPS):
        state, metrics = step(state, batch)
    jax.block_until_ready(metrics)
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(steps):
            state, metrics = step(state, batch)
        loss = float(metrics["loss"])  # waits for the last step
        seconds.append((time.perf_counter() - start) / steps)
    return statistics.median(seconds), loss


def measure(case: Case, dtype: str, *, steps: int, matmul_flops: float) -> dict[str, object]:
    """Trains on one batch and returns the measurements.

    Args:
        steps: timed steps per round.
        matmul_flops: FLOP/s of matrix multiplications alone on this device.
    """
    config, inputs = config_and_inputs(case, dtype)
    kernel, reason = choose_kernel(case.attention, config, inputs)
    start = time.perf_counter()
    step, create, batch = compile_step(case, config, kernel)
    compile_seconds = time.perf_counter() - start
    flop = float(real_token_flop(config, batch))
    seconds, loss = median_step_seconds(step, create(), jax.device_put(batch), steps)
    device = jax.devices()[0]
    peak = next((value for name, value in PEAK.items() if name in device.device_kind), None)
    used_bytes = (device.memory_stats() or {}).get("peak_bytes_in_use", 0)
    return {
        "model": case.preset,
        "task": case.task,
        "length": case.length,
        "packed": case.packed,
        "rows": case.rows,
        "remat": case.remat,
        "attention": kernel or "plain",
        "reason": reason,
        "attention dropout": case.dropout,
        "random bits": case.random_bits,
        "ms/step": round(seconds * 1e3, 2),
        "rows/s": round(case.rows / seconds, 1),
        "tokens/s": round(case.rows * case.length / seconds),
        "fraction of peak": round(flop / seconds / peak, 3) if peak else None,
        "fraction of matmul rate": round(flop / seconds / matmul_flops, 3),
        "program GiB": round(cost.program_bytes(step) / GIBI, 2),
        "peak GiB so far": round(used_bytes / GIBI, 2),
        "compile s": round(compile_seconds, 1),
        "loss": round(loss, 3),
    }


def largest_batch(case: Case, dtype: str, *, limit: int, out_of_time: Callable[[], bool]) -> dict[str, object]:
    """Finds the largest number of rows whose program fits in `limit` bytes; out of time, the largest found so far."""
    config, inputs = config_and_inputs(case, dtype)
    kernel, _ = choose_kernel(case.attention, config, inputs)
    program_bytes: dict[int, float] = {}

    def needed(rows: int) -> float:
        if out_of_time():
            return math.inf
        try:
            program_bytes[rows] = cost.program_bytes(compile_step(replace(case, rows=rows), config, kernel)[0])
        except jax.errors.JaxRuntimeError:  # some programs that are too large cannot even be compiled
            return math.inf
        return program_bytes[rows]

    rows = cost.largest_batch(needed, limit, ROWS_UNIT)
    return {
        "model": case.preset,
        "length": case.length,
        "remat": case.remat,
        "attention": kernel or "plain",
        "largest batch": rows,
        "GiB": round(program_bytes.get(rows, 0) / GIBI, 2),
        "limit GiB": round(limit / GIBI, 2),
        "out of time": out_of_time(),
    }


CASES = (  # targets on one H200, in this order: 1450 rows/s, 180k tokens/s, 330 rows/s
    Case("large", 128, False, 256),
    Case("large", 512, True, 64),
    Case("large", 384, False, 64, task="answers"),
    Case("large", 128, False, 256, attention="plain"),
    Case("large", 512, True, 64, attention="plain"),
    Case("large", 384, False, 64, attention="plain", dropout=0.1, task="answers"),
    Case("large", 128, False, 256, attention="plain", dropout=0.1),
    Case("large", 128, False, 256, attention="plain", dropout=0.1, random_bits="rbg"),
    Case("large", 512, True, 64, remat="dots"),
    Case("base", 128, False, 512),
    Case("base", 512, True, 128),
)
LARGEST_BATCH_CASES = (
    Case("large", 512, True, 64),
    Case("large", 512, True, 64, remat="full"),
    Case("base", 128, False, 64),
)
SMOKE_CASES = (
    Case("tiny", 64, True, 2, attention="pallas"),
    Case("tiny", 64, False, 2, task="answers", random_bits="rbg"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0, help="compile nothing more after this time (default: 9)")
    parser.add_argument("--steps", type=int, default=10, help="timed steps per round (default: 10)")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--smoke", action="store_true", help="run a few small cases, to check that everything works")
    options = parser.parse_args()
    start = time.perf_counter()
    device = jax.devices()[0]

    def out_of_time() -> bool:
        return time.perf_counter() - start > 60 * options.minutes

    matmul_flops = cost.matrix_speed(options.dtype)
    versions = {"device": device.device_kind, "platform": device.platform, "jax": jax.__version__}
    print(json.dumps(versions | {"matmul TFLOP/s": round(matmul_flops / 1e12, 2)}), flush=True)
    limit = SMOKE_MEMORY if options.smoke else cost.memory_limit()
    checked, measured, searched = (
        (SMOKE_CASES[:1], SMOKE_CASES, SMOKE_CASES[1:]) if options.smoke else (CASES[:3], CASES, LARGEST_BATCH_CASES)
    )
    jobs: list[tuple[Callable[..., dict[str, object]], tuple[Case, ...]]] = [
        *((partial(check_kernel, name=name), checked) for name in KERNELS),
        (partial(measure, steps=options.steps, matmul_flops=matmul_flops), measured),
        (partial(largest_batch, limit=limit, out_of_time=out_of_time), searched),
    ]
    for run, cases in jobs:
        for case in cases:
            if out_of_time():
                print(json.dumps({"skipped": str(case)}), flush=True)
                continue
            try:
                print(json.dumps(run(case, options.dtype)), flush=True)
            except Exception as error:  # a case that does not fit must not hide the others
                print(json.dumps({"case": str(case), "failed": str(error).splitlines()[0][:300]}), flush=True)


if __name__ == "__main__":
    main()
