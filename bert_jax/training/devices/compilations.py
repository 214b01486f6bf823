"""How often the step is compiled: once, or a run waits for the compiler again and again and nobody notices.

JAX tells of every program that it makes, compiled or found in its cache on disk. Those made while the step is called
are the step: a batch of another shape, a state of another dtype or one that lies elsewhere asks for another.
"""

import threading
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

PROGRAM_MADE = "/jax/core/compile/backend_compile_duration"

made = threading.local()  # by thread, because checkpoints are written beside training


def count(event: str, duration_secs: float, **kwargs: Any) -> None:
    if event == PROGRAM_MADE:
        made.programs = programs_made() + 1


def programs_made() -> int:
    """Returns how many programs JAX has made for this thread since this module was imported."""
    return getattr(made, "programs", 0)


jax.monitoring.register_event_duration_secs_listener(count)


class Compilations:
    """Calls a step, and warns where it is compiled again.

    Args:
        step: the compiled (state, batch) -> (state, figures).
        say: takes a warning of one line.
        varied: whether batches come in several shapes, a program each; then only one shape's second is warned of.

    Attributes:
        count: how often the step was compiled.
    """

    def __init__(self, step: Callable, say: Callable[[str], None], *, varied: bool = False) -> None:
        self.step, self.say, self.varied = step, say, varied
        self.count = 0
        self.shapes: set[tuple[tuple[int, ...], ...]] = set()  # that it was compiled for

    def __call__(self, number: int, state: Any, batch: Any) -> tuple[Any, Any]:
        """Takes step `number`."""
        before, began = programs_made(), time.perf_counter()
        after = self.step(state, batch)
        if programs_made() > before:
            self.compiled(number, batch, time.perf_counter() - began)
        return after

    def compiled(self, number: int, batch: Any, seconds: float) -> None:
        shapes = tuple(map(np.shape, jax.tree.leaves(batch)))
        known = shapes in self.shapes
        self.shapes.add(shapes)
        self.count += 1
        if known or (self.count > 1 and not self.varied):
            changed = "a dtype, or where arrays lie" if known else "the shapes of the batch"
            self.say(
                f"step {number}: warning: the step was compiled again, {self.count} times by now; this took "
                f"{seconds:.1f} s. What changed: {changed}"
            )
