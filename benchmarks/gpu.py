"""Benchmark a GPU: check the attention kernels, then measure training, inference and the largest batch.

    bash benchmarks/gpu.sh          # under eight minutes; needs only jax, flax, optax, orbax and numpy

Prints one JSON object per line. All programs are compiled first, several at a time, and then timed one after another;
the search for the largest batch compiles beside them. A line on standard error says when a program is compiled.
FLOP are those of the mathematics, `real_token_flop`: multiplications with weights, attention within a sequence, the
head on masked tokens; forward once, backward twice. Recomputation in the backward pass counts as time, not as work.
"""

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from common import gpu_cases
from common.gpu_cases import Case, random_batch
from common.pretraining_step import real_token_flop

from bert_jax.config import BertConfig
from bert_jax.functional.attention_kernels import KERNELS
from bert_jax.models import Bert, BertForPreTraining, BertForQuestionAnswering
from bert_jax.training.devices import cost
from bert_jax.training.devices.accelerators import ACCELERATORS
from bert_jax.training.devices.kernel_choice import AttentionInputs, choose_kernel, failed_test, unsupported
from bert_jax.training.devices.parallel import make_layout
from bert_jax.training.objectives import pretraining, question_answering
from bert_jax.training.optimizers import make_optimizer, make_schedule
from bert_jax.training.state import TrainState, run_key
from bert_jax.training.steps import train_step

# Dense bfloat16 FLOP/s; on an H100, matrix multiplications alone reached 717e12. These two chips have less than the
# others of their name (NVIDIA's data sheets), which are those of `accelerators`.
PEAK = {"NVL": 835e12, "H100 PCIe": 756e12} | {one.name: one.peak for one in ACCELERATORS.values() if one.chip}
TASKS = {"pretraining": (BertForPreTraining, pretraining), "answers": (BertForQuestionAnswering, question_answering)}
COMPILED_TOGETHER = 12
ROWS_UNIT = 8  # the largest batch is a multiple of it
WARMUP_STEPS = 3
ROUNDS = 3
GIBI = 2**30
SEARCH_SHARE = 0.6  # of the minutes; then the search for the largest batch compiles no more
SMOKE_MEMORY = 1 << 25  # bytes: a limit that even the first program of the smoke test exceeds


@dataclass(frozen=True)
class Program:
    """A case with its compiled function.

    Attributes:
        compiled: (state, batch) -> (state, metrics); for inference (params, batch) -> last hidden states.
        create: returns the state, or the parameters, that it takes.
    """

    case: Case
    config: BertConfig
    kernel: str | None
    reason: str
    batch: dict[str, np.ndarray]
    compiled: Any
    create: Callable[[], Any]
    compile_seconds: float


def config_and_inputs(case: Case, dtype: str) -> tuple[BertConfig, AttentionInputs]:
    """Returns the architecture, and the inputs on which the kernels are checked."""
    config = BertConfig.preset(case.preset, dtype=dtype, attention_probs_dropout_prob=case.dropout)
    mask = random_batch(replace(case, rows=4), config.vocab_size)["attention_mask"]
    return config, AttentionInputs(mask, packed=case.packed, random_bits=case.random_bits)


def lower(case: Case, dtype: str, chosen: tuple[str | None, str] | None = None) -> Callable[[], Program]:
    """Traces a case and returns the function that compiles it; `chosen` = its kernel and the reason, if known."""
    config, inputs = config_and_inputs(case, dtype)
    kernel, reason = chosen or choose_kernel(case.attention, config, inputs, platform=jax.devices()[0].platform)
    unroll = config.num_hidden_layers if case.unrolled else 1
    model_class, objective = TASKS.get(case.task, (Bert, None))
    model = model_class(config, remat=case.remat, kernel=kernel, unroll=unroll)
    batch = random_batch(case, config.vocab_size)
    layout = make_layout(devices=jax.devices()[:1])
    schedule = make_schedule("linear", peak=1e-4, warmup_steps=100, decay_steps=10_000)
    optimizer = make_optimizer("bert_adamw", schedule)

    def create(key: jax.Array) -> Any:
        params = model.init(key, jnp.zeros((1, 2), jnp.int32))["params"]
        if objective is None:
            return params
        return TrainState.create(params, optimizer, key=run_key(jax.random.key(1), case.random_bits))

    shapes = jax.eval_shape(create, jax.random.key(0))
    if objective is None:
        forward = jax.jit(lambda params, batch: model.apply({"params": params}, **batch).last_hidden_state)
        lowered = forward.lower(shapes, batch)
    else:
        step = partial(
            train_step, objective=objective(model), optimizer=optimizer, schedule=schedule, accumulate=case.accumulate
        )
        lowered = layout.compile_step(step, shapes).lower(shapes, layout.shapes(batch))

    def compile_() -> Program:
        start = time.perf_counter()
        compiled = lowered.compile()
        seconds = time.perf_counter() - start
        new = partial(layout.create, create, jax.random.key(0))
        return Program(case, config, kernel, reason, batch, compiled, new, seconds)

    return compile_


def compile_case(case: Case, dtype: str) -> Program:
    """Compiles a case and says so."""
    program = lower(case, dtype)()
    print(f"compiled in {program.compile_seconds:.0f} s: {case}", file=sys.stderr, flush=True)
    return program


def check_kernel(case: Case, dtype: str, *, name: str) -> dict[str, object]:
    """Compares a kernel's outputs and gradients with plain matrix multiplications, as a run does before it starts."""
    config, inputs = config_and_inputs(case, dtype)
    problem = unsupported(name, config, inputs, platform=jax.devices()[0].platform)
    problem = problem or failed_test(name, config, inputs, platform=jax.devices()[0].platform)
    return {
        "kernel": name,
        "length": case.length,
        "packed": case.packed,
        "dropout": case.dropout,
        "dtype": dtype,
        "correct": problem is None,
        "reason": problem or "agrees with plain matrix multiplications",
    }


def measure(future: Future[Program], *, steps: int, matmul_flops: float, seconds_left: float) -> dict[str, object]:
    """Runs a program on one batch and returns the measurements.

    Args:
        steps: timed steps per round.
        matmul_flops: FLOP/s of matrix multiplications alone on this device.
    """
    program = future.result(timeout=seconds_left)
    case = program.case
    if case.task == "inference":
        params = program.create()
        batch = jax.device_put(program.batch)
        flop = real_token_flop(program.config, program.batch) / 3
        seconds = median_seconds(lambda: program.compiled(params, batch), steps)
        results = {}
    else:
        flop = real_token_flop(program.config, program.batch)
        results = first_steps(program)
        seconds = median_step_seconds(program, steps)
    device = jax.devices()[0]
    peak = next((value for name, value in PEAK.items() if name in device.device_kind), None)
    return {
        "model": case.preset,
        "task": case.task,
        "length": case.length,
        "packed": case.packed,
        "rows": case.rows,
        "accumulate": case.accumulate,
        "layers": "unrolled" if case.unrolled else "scanned",
        "remat": case.remat,
        "attention": program.kernel or "plain",
        "reason": program.reason,
        "attention dropout": case.dropout,
        "random bits": case.random_bits,
        "ms/step": round(seconds * 1e3, 2),
        "rows/s": round(case.rows / seconds, 1),
        "tokens/s": round(case.rows * case.length / seconds),
        "fraction of peak": round(float(flop) / seconds / peak, 3) if peak else None,
        "fraction of matmul rate": round(float(flop) / seconds / matmul_flops, 3),
        "program GiB": round(cost.program_bytes(program.compiled) / GIBI, 2),
        "compile s": round(program.compile_seconds, 1),
    } | results


def first_steps(program: Program) -> dict[str, object]:
    """Runs the first steps twice; returns the losses, and whether both runs gave the same parameters to the bit."""
    batch = jax.device_put(program.batch)
    runs = []
    for _ in range(2):
        state = program.create()
        losses = []
        for _ in range(WARMUP_STEPS):
            state, metrics = program.compiled(state, batch)
            losses.append(round(float(metrics["loss"]), 5))
        runs.append(jax.device_get(state.params))
    same = jax.tree.map(np.array_equal, *runs)
    return {"losses": losses, "repeats to the bit": all(jax.tree.leaves(same))}


def median_step_seconds(program: Program, steps: int) -> float:
    """Returns the median over ROUNDS of the seconds per step."""
    state = program.create()
    batch = jax.device_put(program.batch)

    def step() -> Any:
        nonlocal state
        state, metrics = program.compiled(state, batch)
        return metrics

    return median_seconds(step, steps)


def median_seconds(function: Callable[[], Any], calls: int) -> float:
    """Returns the median over ROUNDS of the seconds per call."""
    for _ in range(WARMUP_STEPS):
        jax.block_until_ready(function())
    seconds = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        for _ in range(calls):
            result = function()
        jax.block_until_ready(result)
        seconds.append((time.perf_counter() - start) / calls)
    return statistics.median(seconds)


def largest_batch(case: Case, dtype: str, *, limit: int, out_of_time: Callable[[], bool]) -> dict[str, object]:
    """Finds the largest number of rows whose program fits in `limit` bytes; out of time, the largest found so far."""
    chosen = choose_kernel(case.attention, *config_and_inputs(case, dtype), platform=jax.devices()[0].platform)
    program_bytes: dict[int, float] = {}

    def needed(rows: int) -> float:
        if out_of_time():
            return math.inf
        try:
            program_bytes[rows] = cost.program_bytes(lower(replace(case, rows=rows), dtype, chosen)().compiled)
        except jax.errors.JaxRuntimeError:  # some programs that are too large cannot even be compiled
            return math.inf
        return program_bytes[rows]

    rows = cost.largest_batch(needed, limit, ROWS_UNIT)
    return {
        "model": case.preset,
        "length": case.length,
        "remat": case.remat,
        "attention": chosen[0] or "plain",
        "largest batch": rows,
        "GiB": round(program_bytes.get(rows, 0) / GIBI, 2),
        "limit GiB": round(limit / GIBI, 2),
        "out of time": out_of_time(),
    }


def report(case: Any, run: Callable[[], dict[str, object]]) -> None:
    """Prints the results of a case, or why there are none: it must not hide the others."""
    try:
        result = run()
    except Exception as error:
        result = {"case": str(case), "failed": (str(error).splitlines() or [type(error).__name__])[0][:300]}
    print(json.dumps(result), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--minutes", type=float, default=5.5, help="compile nothing more after this time (default: 5.5)"
    )
    parser.add_argument("--steps", type=int, default=10, help="timed steps per round (default: 10)")
    parser.add_argument("--dtype", default="bfloat16")
    parser.add_argument("--smoke", action="store_true", help="run a few small cases, to check that everything works")
    options = parser.parse_args()
    start = time.perf_counter()

    def seconds_left(share: float = 1.0) -> float:
        return max(0.0, start + share * 60 * options.minutes - time.perf_counter())

    checked: Iterable[Case] = (gpu_cases.CASES[0], gpu_cases.CASES[8], gpu_cases.CASES[10])
    timed = (*gpu_cases.CASES, *gpu_cases.INFERENCE_CASES)
    searched = gpu_cases.LARGEST_BATCH_CASES
    if options.smoke:
        checked = gpu_cases.SMOKE_CASES[:1]
        timed = (*gpu_cases.SMOKE_CASES, *gpu_cases.SMOKE_INFERENCE_CASES)
        searched = gpu_cases.SMOKE_CASES[1:]
    device = jax.devices()[0]
    matmul_flops = cost.matrix_speed(options.dtype)
    versions = {"device": device.device_kind, "platform": device.platform, "jax": jax.__version__}
    print(json.dumps(versions | {"matmul TFLOP/s": round(matmul_flops / 1e12, 2)}), flush=True)
    for name in KERNELS:
        for case in checked:
            report(case, partial(check_kernel, case, options.dtype, name=name))
    limit = SMOKE_MEMORY if options.smoke else cost.memory_limit()
    search = partial(largest_batch, limit=limit, out_of_time=lambda: not seconds_left(SEARCH_SHARE))
    with ThreadPoolExecutor(COMPILED_TOGETHER + len(searched)) as pool:
        searches = [(case, pool.submit(search, case, options.dtype)) for case in searched]
        futures = {case: pool.submit(compile_case, case, options.dtype) for case in timed}
        # A compilation tunes its kernels on the device, so that nothing is timed before all are done.
        wait([*futures.values(), *(future for _, future in searches)], timeout=seconds_left())
        for case, future in futures.items():
            left = seconds_left()
            run = partial(measure, future, steps=options.steps, matmul_flops=matmul_flops, seconds_left=left)
            report(case, run)
        pool.shutdown(wait=False, cancel_futures=True)
    for case, future in searches:
        report(case, partial(future.result, timeout=seconds_left()))


if __name__ == "__main__":
    main()
