"""`train.py --plan`: what a run would take, on these devices, before anything runs."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

import jax
import numpy as np

from bert_jax.models import Bert
from bert_jax.training.devices.cost import (
    Memory,
    expected_efficiency,
    largest_batch,
    matrix_flop,
    matrix_speed,
    memory_limit,
    memory_of,
    parallel_devices,
)
from bert_jax.training.devices.parallel import Layout
from bert_jax.training.state import TrainState


@dataclass(frozen=True)
class RunSpec:
    """A run as it is planned.

    Attributes:
        step: (model) -> the pure (state, batch, axis) -> (state, figures).
        state: its shapes.
        batch: rows -> a batch, of which the shapes count.
        rows: of the batch that is asked for.
        steps: of the whole run.
        unit: what the rows of any batch are a multiple of.
    """

    model: Bert
    step: Callable[[Bert], Callable]
    state: TrainState
    batch: Callable[[int], dict[str, np.ndarray]]
    rows: int
    unit: int
    steps: int

    @property
    def length(self) -> int:
        """T, the tokens of a row."""
        return self.batch(1)["input_ids"].shape[1]


def report(run: RunSpec, layout: Layout) -> Iterator[str]:
    """Yields the lines of a plan, each as soon as it is known."""
    config = run.model.config
    count = sum(leaf.size for leaf in jax.tree.leaves(run.state.all_params))
    shape = " x ".join(f"{name} {size}" for name, size in layout.mesh.shape.items())
    yield (
        f"plan: {config.num_hidden_layers} layers of {config.hidden_size}, {count / 1e6:.1f} million parameters, "
        f"{config.dtype}, {run.rows:,} rows of {run.length} tokens on {shape} {jax.default_backend()} device(s)"
    )
    yield from memory_lines(run, layout)
    yield from speed_lines(run, layout)


def memory_lines(run: RunSpec, layout: Layout) -> Iterator[str]:
    @cache
    def memory(rows: int) -> Memory:
        step: Any = layout.compile_step(run.step(run.model), run.state)
        return memory_of(step.lower(run.state, layout.shapes(run.batch(rows))).compile(), run.state, layout)

    def needed(rows: int) -> float:
        try:
            return memory(rows).total
        except jax.errors.JaxRuntimeError as error:
            if "RESOURCE_EXHAUSTED" not in str(error):
                raise
            return math.inf

    limit, rows = memory_limit(), run.rows
    if needed(rows) < math.inf:
        own = memory(rows)
        yield (
            f"  memory a device   parameters {amount(own.parameters, 'B')}, optimizer {amount(own.optimizer, 'B')}, "
            f"activations and gradients {amount(own.working, 'B')}: {amount(own.total, 'B')} of {amount(limit, 'B')}"
        )
    else:
        yield f"  memory a device   more than the {amount(limit, 'B')} there are"
    fits = "fits" if needed(rows) <= limit else "DOES NOT FIT"
    yield f"  largest batch     {largest_batch(needed, limit, run.unit):,} rows; {rows:,} {fits}"


def speed_lines(run: RunSpec, layout: Layout) -> Iterator[str]:
    # What a kernel does inside cannot be counted, so plain products stand for it.
    plain = run.step(run.model.clone(kernel=None))
    flop = matrix_flop(lambda state, batch: plain(state, batch, None), run.state, run.batch(run.rows))
    tokens = run.rows * run.length
    yield (
        f"  arithmetic        {amount(flop, 'FLOP')} a step, {amount(flop / layout.mesh.size, 'FLOP')} a device, "
        f"{amount(flop / tokens, 'FLOP')} a token"
    )
    speed = matrix_speed(run.model.config.dtype) * parallel_devices()
    expected = speed * expected_efficiency() * tokens / flop
    yield (
        f"  expected          about {expected:,.0f} tokens/s in full rows: "
        f"{expected_efficiency():.0%} of what matrix products alone reach here, {amount(speed, 'FLOP/s')}"
    )
    yield (
        f"  {run.steps:,} steps".ljust(20)
        + f"about {span(run.steps * tokens / expected)} at that rate, messages between devices left out"
    )


def span(seconds: float) -> str:
    """Says a time in the unit that fits."""
    units = (("years", 365 * 86_400), ("days", 86_400), ("hours", 3_600), ("minutes", 60), ("seconds", 1))
    name, size = next((unit for unit in units if seconds >= 2 * unit[1]), units[-1])
    return f"{seconds / size:.3g} {name}"


def amount(value: float, unit: str) -> str:
    """Says a number in three digits, with the prefix that fits."""
    power = min(max(int(math.log10(value)) // 3, 0), 5) if value >= 1 else 0
    return f"{value / 1000**power:.3g} {' kMGTP'[power].strip()}{unit}"
