"""What a GPU makes of it: kernels checked, sequences and tokens a second, share of the peak, memory, largest batch.

    bash benchmarks/gpu.sh          # under ten minutes; needs jax, flax, optax, orbax and numpy, nothing else

Rows are made up: ids at random, fixed rows full to the end, packed rows of several sequences. FLOP are those of the
mathematics, `real_flop`: products with weights, attention within a sequence, the head on masked tokens, each forward
once and backward twice. What is computed again in the backward pass counts as time, not as work.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from common.pretraining_step import real_flop

from bert_jax.config import BertConfig
from bert_jax.functional.attention_kernels import KERNELS
from bert_jax.models import BertForPreTraining, BertForQuestionAnswering
from bert_jax.training.devices import cost as plan
from bert_jax.training.devices.kernel_choice import AttentionInputs, choose_kernel, mistaken, unfit
from bert_jax.training.objectives import pretraining, question_answering
from bert_jax.training.optimizers import make_optimizer, make_schedule
from bert_jax.training.state import TrainState, run_key
from bert_jax.training.steps import train_step

MASKED = 0.15
# Dense bfloat16 FLOP/s as sold, by NVIDIA's data sheets. Products alone reached 790e12 on an H200 that was measured.
PEAK = {"NVL": 835e12, "H200": 989e12, "H100 PCIe": 756e12, "H100": 989e12, "A100": 312e12}
TASKS = {"pretraining": (BertForPreTraining, pretraining), "answers": (BertForQuestionAnswering, question_answering)}
UNIT = 8  # rows: the largest batch is a multiple of it
SMALL = 1 << 25  # bytes: the device that a trial run makes believe to have; its first program is too large for it


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
    task: str = "pretraining"
    random_bits: str = "hashed"


def batch_of(case: Case, vocab_size: int) -> dict[str, np.ndarray]:
    """Returns rows of random ids; packed ones hold T / 64 sequences, cut at random places."""
    random = np.random.default_rng(0)
    B, T, P = case.rows, case.length, round(MASKED * case.length)
    S = max(1, T // 64) if case.packed else 1
    cuts = np.sort(random.integers(1, T, (B, S - 1)), axis=1)
    number = 1 + (np.arange(T)[None, :, None] >= cuts[:, None, :]).sum(axis=2)
    starts = np.concatenate([np.zeros((B, 1), int), cuts], axis=1)
    batch = {
        "input_ids": random.integers(0, vocab_size, (B, T), np.int32),
        "attention_mask": number.astype(np.int32),
        "token_type_ids": np.zeros((B, T), np.int32),
        "position_ids": (np.arange(T)[None] - np.take_along_axis(starts, number - 1, axis=1)).astype(np.int32),
    }
    if case.task == "answers":
        places = starts.astype(np.int32)
        return batch | {"start_positions": places, "end_positions": places, "weights": np.ones((B, S), np.float32)}
    return batch | {
        "masked_positions": np.sort(random.integers(0, T, (B, P)), axis=1).astype(np.int32),
        "masked_labels": random.integers(0, vocab_size, (B, P), np.int32),
        "masked_weights": np.ones((B, P), np.float32),
        "cls_positions": starts.astype(np.int32),
        "next_sentence_labels": random.integers(0, 2, (B, S), np.int32),
        "next_sentence_weights": np.ones((B, S), np.float32),
    }


def configuration(case: Case, dtype: str) -> tuple[BertConfig, AttentionInputs]:
    """Returns the architecture, and what the kernels are checked with."""
    config = BertConfig.preset(case.preset, dtype=dtype, attention_probs_dropout_prob=case.dropout)
    mask = batch_of(replace(case, rows=4), config.vocab_size)["attention_mask"]
    return config, AttentionInputs(mask, packed=case.packed, devices=1)


def compiled_step(case: Case, config: BertConfig, kernel: str | None):
    """Returns the compiled train step, a function that makes its state, and the batch."""
    kind, objective = TASKS[case.task]
    model = kind(config, remat=case.remat, kernel=kernel)
    schedule = make_schedule("linear", peak=1e-4, warmup_steps=100, decay_steps=10_000)
    optimizer = make_optimizer("bert_adamw", schedule)
    batch = batch_of(case, config.vocab_size)

    @jax.jit
    def create() -> TrainState:
        params = model.init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
        return TrainState.create(params, optimizer, key=run_key(jax.random.key(1), case.random_bits))

    step = jax.jit(
        partial(train_step, objective=objective(model), optimizer=optimizer, schedule=schedule), donate_argnums=0
    )
    return step.lower(jax.eval_shape(create), batch).compile(), create, batch


def verdict(case: Case, dtype: str, *, name: str) -> dict[str, object]:
    """Compares a kernel with plain matrix products, outputs and gradients, as a run does before it begins."""
    config, rows = configuration(case, dtype)
    wrong = unfit(name, config, rows, False) or mistaken(name, config, rows)
    return {
        "kernel": name, "length": case.length, "packed": case.packed, "dtype": dtype, "right": wrong is None,
        "why": wrong or "agrees with plain matrix products",
    }  # fmt: skip


def measure(case: Case, dtype: str, *, steps: int, alone: float) -> dict[str, object]:
    """Runs a case and returns its line; `alone` is the FLOP/s of a matrix product."""
    config, rows = configuration(case, dtype)
    kernel, why = choose_kernel(case.attention, config, rows)
    began = time.perf_counter()
    step, create, batch = compiled_step(case, config, kernel)
    compiling = time.perf_counter() - began
    flop, state, batch = float(real_flop(config, batch)), create(), jax.device_put(batch)
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
    kind = jax.devices()[0].device_kind
    peak = next((value for name, value in PEAK.items() if name in kind), None)
    used = (jax.devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)
    return {
        "model": case.preset, "task": case.task, "length": case.length, "packed": case.packed, "rows": case.rows,
        "remat": case.remat, "attention": kernel or "plain", "why": why, "attention dropout": case.dropout,
        "random bits": case.random_bits,
        "ms a step": round(seconds * 1e3, 2),
        "rows/s": round(case.rows / seconds, 1), "tokens/s": round(case.rows * case.length / seconds),
        "share of peak as sold": round(flop / seconds / peak, 3) if peak else None,
        "share of matrix products alone": round(flop / seconds / alone, 3),
        "GiB of the program": round(plan.program_bytes(step) / 2**30, 2),
        "peak GiB so far": round(used / 2**30, 2), "compile s": round(compiling, 1), "loss": round(loss, 3),
    }  # fmt: skip


def largest_batch(case: Case, dtype: str, *, limit: int, late: Callable[[], bool]) -> dict[str, object]:
    """Says how many rows a device of `limit` bytes takes at once; where it gets late, how many are known to fit."""
    config, rows = configuration(case, dtype)
    kernel, _ = choose_kernel(case.attention, config, rows)
    needs: dict[int, float] = {}

    def needed(count: int) -> float:
        if late():
            return math.inf
        try:
            needs[count] = plan.program_bytes(compiled_step(replace(case, rows=count), config, kernel)[0])
        except jax.errors.JaxRuntimeError:  # some programs that are too large cannot even be compiled
            return math.inf
        return needs[count]

    most = plan.largest_batch(needed, limit, UNIT)
    return {
        "model": case.preset, "length": case.length, "remat": case.remat, "attention": kernel or "plain",
        "most rows": most, "GiB": round(needs.get(most, 0) / 2**30, 2), "of": round(limit / 2**30, 2),
        "time was up": late(),
    }  # fmt: skip


CASES = (  # what is aimed at, on one H200: 1450 rows/s, 180k tokens/s and, of answers, 330 rows/s
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
LIMITS = (Case("large", 512, True, 64), Case("large", 512, True, 64, remat="full"), Case("base", 128, False, 64))
TRIALS = (
    Case("tiny", 64, True, 2, attention="pallas"),
    Case("tiny", 64, False, 2, task="answers", random_bits="rbg"),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=9.0, help="compile nothing further after so many minutes")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--smoke", action="store_true", help="a few small cases, to see that everything runs")
    options = parser.parse_args()
    began, device = time.perf_counter(), jax.devices()[0]

    def late() -> bool:
        return time.perf_counter() - began > 60 * options.minutes

    alone = plan.matrix_speed(options.dtype)
    about = {"device": device.device_kind, "platform": device.platform, "jax": jax.__version__}
    print(json.dumps(about | {"matrix products alone, TFLOP/s": round(alone / 1e12, 2)}), flush=True)
    checked, cases, limits = (TRIALS[:1], TRIALS, TRIALS[1:]) if options.smoke else (CASES[:3], CASES, LIMITS)
    limit = SMALL if options.smoke else plan.memory_limit()
    jobs = [(partial(verdict, name=name), checked) for name in KERNELS]
    jobs.append((partial(measure, steps=options.steps, alone=alone), cases))
    jobs.append((partial(largest_batch, limit=limit, late=late), limits))
    for run, some in jobs:
        for case in some:
            if late():
                print(json.dumps({"left out": str(case)}), flush=True)
                continue
            try:
                print(json.dumps(run(case, options.dtype)), flush=True)
            except Exception as error:  # one case that does not fit must not hide the others
                print(json.dumps({"case": str(case), "failed": str(error).splitlines()[0][:300]}), flush=True)


if __name__ == "__main__":
    main()
