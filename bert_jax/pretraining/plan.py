"""What a run would take on these devices, before it runs: memory, arithmetic, time (`train.py --plan`)."""

import math
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import jax
import numpy as np

from bert_jax.messages import counted
from bert_jax.models import Bert
from bert_jax.pretraining.checks import check
from bert_jax.pretraining.model import Computation, model_config
from bert_jax.pretraining.phases import Phase
from bert_jax.pretraining.prepared import require_corpus, tokenizer_source
from bert_jax.pretraining.program import make_layout
from bert_jax.pretraining.settings import Settings
from bert_jax.pretraining.source import count_new_words
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training.devices.cost import (
    Memory,
    bytes_per_device,
    expected_efficiency,
    largest_batch,
    matrix_flop,
    matrix_speed,
    memory_limit,
    memory_of,
    parallel_devices,
    program_bytes,
)
from bert_jax.training.devices.parallel import Layout, platform_of
from bert_jax.training.state import TrainState

PREFIXES = ("", "k", "M", "G", "T", "P")
UNITS = (("years", 365 * 86_400), ("days", 86_400), ("hours", 3_600), ("minutes", 60), ("seconds", 1))


@dataclass(frozen=True)
class RunSpec:
    """A phase of a run as shapes, from which its step is compiled.

    Attributes:
        step: model -> the pure (state, batch, axis) -> (state, metrics).
        evaluation: the pure (params, batch, axis) -> metrics.
        state: shapes of the state.
        batch: number of rows -> a batch of zeros.
        rows: of the batch that the settings ask for.
        accumulate: the number of parts in which a batch is computed, in training and in an evaluation.
        unit: the number of rows of any batch is a multiple of it.
        steps: of the phase of the run.
    """

    model: Bert
    step: Callable[[Bert], Callable]
    evaluation: Callable
    state: TrainState
    batch: Callable[[int], dict[str, np.ndarray]]
    rows: int
    accumulate: int
    unit: int
    steps: int

    @classmethod
    def of(cls, settings: Settings, phase: Phase, layout: Layout, *, test_kernel: bool = True) -> "RunSpec":
        """Makes the shapes of a phase. Its text is not read: the vocabulary has the size that the settings ask for.

        Args:
            layout: of this machine's devices or of a `Target`'s.
            test_kernel: whether to test the attention kernel on this machine; False with a `Target`.
        """
        settings = settings.of_phase(phase)
        tokenizer = tokenizer_source(settings)
        if tokenizer is None:
            rows = settings.model.vocab_size + count_new_words(settings)
            config = replace(settings.model, vocab_size=rows)
        else:
            config = model_config(settings, Tokenizer.load(tokenizer))
        mask = np.ones((1, settings.batches.max_length), np.int32)
        computation = Computation.make(
            settings, config, mask, platform=platform_of(layout.mesh), test_kernel=test_kernel
        )
        return cls(
            computation.model,
            step=computation.step,
            evaluation=computation.evaluation_step(),
            state=jax.eval_shape(computation.state, jax.random.key(0)),
            batch=settings.batches.blank,
            rows=settings.training.batch_size,
            accumulate=settings.devices.accumulate,
            unit=layout.shards * settings.devices.accumulate,
            steps=phase.steps,
        )

    @property
    def length(self) -> int:
        """T, the tokens of a row."""
        return self.batch(1)["input_ids"].shape[1]


def plan(settings: Settings) -> Iterator[str]:
    """Yields the lines of a plan, each as soon as it is known; compiles several steps and runs none.

    Raises:
        ValueError: settings that cannot be trained.
        OSError: no such corpus. A dataset on the hub is not looked up.
    """
    check(settings)
    require_corpus(settings)
    layout = make_layout(settings)
    seconds = 0.0
    for phase in settings.phases:
        run = RunSpec.of(settings, phase, layout)
        yield header(run, phase, f"{mesh_shape(layout)} {jax.default_backend()} device(s)")
        yield "  compiling         the step for several numbers of rows; a large model takes minutes"
        programs = Programs(run, layout)
        yield from memory_lines(programs, memory_limit(), largest_batch)
        expected = yield from _speed_lines(run, layout)
        time = run.steps * run.rows * run.length / expected
        yield _time_line(counted(run.steps, "step"), time)
        seconds += time
    if len(settings.phases) > 1:
        yield _time_line("all phases", seconds)


def header(run: RunSpec, phase: Phase, where: str) -> str:
    """Returns the first line of a phase's plan; `where` = the devices."""
    config = run.model.config
    count = sum(leaf.size for leaf in jax.tree.leaves(run.state.all_params))
    name = "plan" if phase.num_phases == 1 else f"phase {phase.number} of {phase.num_phases}"
    return (
        f"{name}: {counted(config.num_hidden_layers, 'layer')} of {config.hidden_size}, {count:,} parameters, "
        f"{config.dtype}, {counted(run.rows, 'row')} of {run.length} tokens on {where}"
    )


def mesh_shape(layout: Layout) -> str:
    """Returns the axes of a mesh: `data 4 x fsdp 2 x tensor 1`."""
    return " x ".join(f"{name} {size}" for name, size in layout.mesh.shape.items())


def _time_line(what: str, seconds: float) -> str:
    return f"  {what}".ljust(20) + f"about {span(seconds)} at that rate, without communication between devices"


class Programs:
    """The programs of a phase, compiled for batches of any number of rows when they are asked for.

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
        step: Any = self.layout.compile_evaluation(run.evaluation, run.state.params)
        program = step.lower(run.state.params, self.layout.shapes(run.batch(rows // run.accumulate))).compile()
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
    yield f"  largest batch     {search(programs.needed, limit, run.unit):,} rows{about}; {run.rows:,} {fits}"


def _speed_lines(run: RunSpec, layout: Layout) -> Generator[str, None, float]:
    """Yields lines about arithmetic and speed; returns the expected tokens per second."""
    # The arithmetic of a kernel cannot be counted, so it is counted with plain matrix products.
    plain = run.step(run.model.clone(kernel=None))
    flop = matrix_flop(lambda state, batch: plain(state, batch, None), run.state, run.batch(run.rows))
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


def span(seconds: float) -> str:
    """Returns a time in the largest unit of which there are at least two: `span(150)` is 2.5 minutes."""
    name, size = next((unit for unit in UNITS if seconds >= 2 * unit[1]), UNITS[-1])
    return f"{seconds / size:.3g} {name}"


def amount(value: float, unit: str) -> str:
    """Returns a number in three digits with an SI prefix: `amount(1.5e9, "B")` is 1.5 GB."""
    power = min(max(int(math.log10(value)) // 3, 0), len(PREFIXES) - 1) if value >= 1 else 0
    return f"{value / 1000**power:.3g} {PREFIXES[power]}{unit}"
