"""What a training would take before it runs: memory, arithmetic, time (`--plan` of both programs).

The programs make a `RunSpec` of their settings; `plan_runs` says what it takes on the devices of this machine, or on
those of a `Target`. XLA compiles the run's real step for them. Here matrix products are measured for the speed; for a
target nothing is run, and times are computed from the program by `training.devices.roofline`.
"""

import math
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import jax
import numpy as np

from bert_jax.messages import counted
from bert_jax.models import Bert
from bert_jax.training.devices.accelerators import Accelerator
from bert_jax.training.devices.cost import (
    Memory,
    bytes_per_device,
    expected_efficiency,
    extrapolated_batch,
    largest_batch,
    matrix_flop,
    matrix_speed,
    memory_limit,
    memory_of,
    parallel_devices,
    program_bytes,
)
from bert_jax.training.devices.hlo import Collective, Module
from bert_jax.training.devices.parallel import Layout
from bert_jax.training.devices.processes import Processes
from bert_jax.training.devices.roofline import communication_seconds, kernels, step_seconds
from bert_jax.training.devices.targets import Target
from bert_jax.training.settings import Devices, Run
from bert_jax.training.state import TrainState

# The part of a device's memory that programs get; JAX's default on GPUs is XLA_PYTHON_CLIENT_MEM_FRACTION=0.75.
USABLE = {"gpu": 0.75, "tpu": 1.0}
ABOUT = {
    "gpu": "estimated from the compiled program, not measured",
    "tpu": "at the advertised rates, which no program reaches: no TPU has been measured",
}
PREFIXES = ("", "k", "M", "G", "T", "P")
UNITS = (("years", 365 * 86_400), ("days", 86_400), ("hours", 3_600), ("minutes", 60), ("seconds", 1))


@dataclass(frozen=True)
class RunSpec:
    """A training as shapes, from which its step is compiled.

    Attributes:
        name: of the training in a plan.
        model: with the attention kernel of the training.
        step: model -> the pure (state, batch, axis) -> (state, metrics).
        evaluation: the pure (params, batch, axis) -> metrics or predictions.
        state: shapes of the state.
        batch: number of rows -> a batch of zeros.
        evaluated: number of rows -> a batch of an evaluation.
        rows: of the batch that the settings ask for.
        examples: in these rows; in pretraining a row is an example.
        accumulate: the number of parts in which a batch is computed, in training and in an evaluation.
        unit: the number of rows of any batch is a multiple of it.
        steps: of the training.
    """

    name: str
    model: Bert
    step: Callable[[Bert], Callable]
    evaluation: Callable
    state: TrainState
    batch: Callable[[int], dict[str, np.ndarray]]
    evaluated: Callable[[int], dict[str, np.ndarray]]
    rows: int
    examples: int
    accumulate: int
    unit: int
    steps: int

    @property
    def length(self) -> int:
        """T, the tokens of a row."""
        return self.batch(self.unit)["input_ids"].shape[-1]


def plan_runs(runs: Iterable[RunSpec], layout: Layout, target: Target | None) -> Iterator[str]:
    """Yields the lines of a plan, each as soon as it is known; compiles several steps and runs none.

    Args:
        runs: trainings, one after another, on one layout.
        target: whose devices the layout has; None = those of this machine.
    """
    times = []
    for run in runs:
        lines = _lines_here(run, layout) if target is None else _lines_for_target(run, layout, target.accelerator)
        times.append((yield from lines))
    if len(times) > 1 and None not in times:  # no total without a training that is too large to be compiled
        yield f"  all phases        about {span(sum(times))}"


def _lines_here(run: RunSpec, layout: Layout) -> Generator[str, None, float]:
    """Yields the lines of a training on this machine; returns its seconds."""
    yield header(run, f"{mesh_shape(layout)} {jax.default_backend()} device(s)")
    yield "  compiling         the step for several numbers of rows; a large model takes minutes"
    programs = Programs(run, layout)
    yield from memory_lines(programs, memory_limit(), largest_batch)
    expected = yield from _speed_lines(run, layout)
    seconds = run.steps * run.rows * run.length / expected
    yield f"{_steps(run)}about {span(seconds)} at that rate, without communication between devices"
    return seconds


def _lines_for_target(run: RunSpec, layout: Layout, accelerator: Accelerator) -> Generator[str, None, float | None]:
    """Yields the lines of a training on devices that are not there; returns its seconds, None if it is too large."""
    yield header(run, f"{layout.mesh.size} x {accelerator.name} ({mesh_shape(layout)})")
    yield "  compiling         for that machine, which need not be there; a large model takes many minutes"
    programs = Programs(run, layout)
    start = time.perf_counter()
    programs.needed(run.rows)
    yield (
        f"  compiled          in {span(time.perf_counter() - start)}: attention {run.model.kernel or 'plain'}, "
        f"remat {run.model.remat}, {run.model.unroll} of {run.model.config.num_hidden_layers} layers per iteration"
    )
    yield from memory_lines(
        programs,
        int(accelerator.memory * USABLE[accelerator.platform]),
        partial(extrapolated_batch, rows=run.rows),
        " (by a line through two programs)",
    )
    if not programs.text:
        return None
    of_step = yield from _time_lines(run, Module.parse(programs.text), accelerator, layout.mesh.size)
    yield f"{_steps(run)}about {span(of_step * run.steps)} at that rate"
    return of_step * run.steps


def _steps(run: RunSpec) -> str:
    return f"  {counted(run.steps, 'step')}".ljust(20)


def header(run: RunSpec, where: str) -> str:
    """Returns the first line of a plan; `where` = the devices."""
    config = run.model.config
    count = sum(leaf.size for leaf in jax.tree.leaves(run.state.all_params))
    examples = "" if run.examples == run.rows else f"{counted(run.examples, 'example')} in "
    return (
        f"{run.name}: {counted(config.num_hidden_layers, 'layer')} of {config.hidden_size}, {count:,} parameters, "
        f"{config.dtype}, {examples}{counted(run.rows, 'row')} of {run.length} tokens on {where}"
    )


def mesh_shape(layout: Layout) -> str:
    """Returns the axes of a mesh: `data 4 x fsdp 2 x tensor 1`."""
    return " x ".join(f"{name} {size}" for name, size in layout.mesh.shape.items())


def check_plan(run: Run, devices: Devices, processes: Processes) -> None:
    """Raises ValueError for settings that no plan can have."""
    if run.plan and processes.distributed:
        raise ValueError("`plan` is for the devices of one process: leave out `distributed`")
    if run.device is None:
        return
    if not run.plan:
        raise ValueError("`device` is only used with `plan`: a run trains on the devices of this machine")
    if devices.parallel == "pmap":
        raise ValueError("`device` cannot be combined with `parallel=pmap`, which compiles for this machine only")
    Target.parse(run.device)


class Programs:
    """The programs of a training, compiled for batches of any number of rows when they are asked for.

    Attributes:
        text: of the optimized step for the run's own rows, once it is compiled.
    """

    def __init__(self, run: RunSpec, layout: Layout) -> None:
        self.run = run
        self.layout = layout
        self.text = ""
        self.memory = cache(self._memory)
        self.of_evaluation = cache(self._of_evaluation)

    def _memory(self, rows: int) -> Memory:
        """Returns the bytes of a training step."""
        run = self.run
        step: Any = self.layout.compile_step(run.step(run.model), run.state)
        program = step.lower(run.state, self.layout.shapes(run.batch(rows))).compile()
        if rows == run.rows:
            self.text = program.as_text()
        return memory_of(program, run.state, self.layout)

    def _of_evaluation(self, rows: int) -> int:
        """Returns the bytes while an evaluation runs, during which the optimizer's state stays."""
        run = self.run
        params = run.state.all_params
        step: Any = self.layout.compile_evaluation(run.evaluation, params)
        program = step.lower(params, self.layout.shapes(run.evaluated(rows // run.accumulate))).compile()
        return program_bytes(program) + bytes_per_device(run.state.optimizer_state, self.layout)

    def needed(self, rows: int) -> float:
        """Returns the bytes of a run; infinite if its program is too large to be compiled."""
        try:
            total = self.memory(rows).total
            # Other batches are not compiled twice: without gradients, the same rows need less memory than in training.
            return max(total, self.of_evaluation(rows)) if rows == self.run.rows else total
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return math.inf


def memory_lines(programs: Programs, limit: int, search: Callable[..., int], about: str = "") -> Iterator[str]:
    """Yields lines about the memory of a device.

    Args:
        limit: bytes that a device may use.
        search: (needed, limit, unit) -> the largest batch.
        about: how the largest batch is found.
    """
    run = programs.run
    if programs.needed(run.rows) < math.inf:
        own = programs.memory(run.rows)
        yield (
            f"  memory per device parameters {amount(own.parameters, 'B')}, optimizer {amount(own.optimizer, 'B')}, "
            f"activations and gradients {amount(own.working, 'B')}: {amount(own.total, 'B')} of {amount(limit, 'B')}"
        )
        yield f"  evaluation        {amount(programs.of_evaluation(run.rows), 'B')} per device, optimizer included"
    else:
        yield f"  memory per device more than the available {amount(limit, 'B')}"
    fits = "fits" if programs.needed(run.rows) <= limit else "DOES NOT FIT"
    most = search(programs.needed, limit, run.unit)
    examples = "" if run.examples == run.rows else f", {most * run.examples // run.rows:,} examples"
    yield f"  largest batch     {most:,} rows{examples}{about}; {run.rows:,} {fits}"


def _speed_lines(run: RunSpec, layout: Layout) -> Generator[str, None, float]:
    """Yields lines about arithmetic and speed; returns the expected tokens per second."""
    # The arithmetic of a kernel cannot be counted, so it is counted with plain matrix products.
    plain = run.step(run.model.clone(kernel=None))
    flop = matrix_flop(lambda state, batch: plain(state, batch, axis=None), run.state, run.batch(run.rows))
    tokens = run.rows * run.length
    yield (
        f"  arithmetic        {amount(flop, 'FLOP')} per step, {amount(flop / layout.mesh.size, 'FLOP')} per device, "
        f"{amount(flop / tokens, 'FLOP')} per token"
    )
    speed = matrix_speed(run.model.config.dtype) * parallel_devices()
    expected = speed * expected_efficiency() * tokens / flop
    yield (
        f"  expected          about {expected:,.0f} tokens/s in full rows: "
        f"{expected_efficiency():.0%} of the speed of matrix products here, {amount(speed, 'FLOP/s')}"
    )
    return expected


def _time_lines(run: RunSpec, module: Module, accelerator: Accelerator, devices: int) -> Generator[str, None, float]:
    """Yields lines about messages, arithmetic and time; returns the expected seconds of a step."""
    collectives = module.collectives()
    of_links = communication_seconds(collectives, accelerator)
    if collectives:
        yield f"  communication     {_messages(collectives)} per device and step: {of_links * 1e3:.3g} ms"
    # What a kernel or a recomputation adds is not work of the mathematics: the traced step has neither.
    step = run.step(run.model.clone(kernel=None, remat="none"))
    flop = matrix_flop(lambda state, batch: step(state, batch, axis=None), run.state, run.batch(run.rows))
    of_kernels = step_seconds(kernels(module), accelerator)
    seconds = of_kernels + of_links
    rate = run.rows * run.length / seconds
    bound = "about" if accelerator.platform == "gpu" else "at most"
    yield f"  arithmetic        {amount(flop, 'FLOP')} per step, {amount(flop / devices, 'FLOP')} per device"
    yield (
        f"  step              {of_kernels * 1e3:.3g} ms of kernels, {of_links * 1e3:.3g} ms of messages; "
        f"{ABOUT[accelerator.platform]}"
    )
    yield (
        f"  expected          {bound} {rate:,.0f} tokens/s in full rows, "
        f"{flop / seconds / devices / accelerator.peak:.0%} of the peak of {amount(accelerator.peak, 'FLOP/s')} (MFU)"
    )
    return seconds


def _messages(collectives: tuple[Collective, ...]) -> str:
    """Returns the kinds of messages with their number and bytes: `3 all-reduce, 440 MB sent`."""
    times: Counter[str] = Counter()
    for one in collectives:
        times[one.kind] += one.times
    sent = sum(one.bytes_sent for one in collectives)
    return ", ".join(f"{count} {kind}" for kind, count in sorted(times.items())) + f", {amount(sent, 'B')} sent"


def span(seconds: float) -> str:
    """Returns a time in the largest unit of which there are at least two: `span(150)` is 2.5 minutes."""
    name, size = next((unit for unit in UNITS if seconds >= 2 * unit[1]), UNITS[-1])
    return f"{seconds / size:.3g} {name}"


def amount(value: float, unit: str) -> str:
    """Returns a number in three digits with an SI prefix: `amount(1.5e9, "B")` is 1.5 GB."""
    power = min(max(int(math.log10(value)) // 3, 0), len(PREFIXES) - 1) if value >= 1 else 0
    return f"{value / 1000**power:.3g} {PREFIXES[power]}{unit}"
