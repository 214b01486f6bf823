"""Counts compilations: a function compiled again and again waits for the compiler, and nobody notices.

JAX reports every program that it compiles or loads from its cache on disk. A program that appears while a function is
called belongs to that function: a batch of another shape or dtype needs another program, and so does a state that is
sharded differently.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

_COMPILED = "/jax/core/compile/backend_compile_duration"
_programs = threading.local()  # per thread, because Orbax compiles in the thread that writes a checkpoint


def _programs_compiled() -> int:
    """Returns how many programs JAX has compiled for this thread since this module was imported."""
    return getattr(_programs, "count", 0)


def _listen(event: str, duration_secs: float, **kwargs: Any) -> None:
    if event == _COMPILED:
        _programs.count = _programs_compiled() + 1


jax.monitoring.register_event_duration_secs_listener(_listen)


class CompilationCounter:
    """Calls a jitted function and counts its compilations by the shape of the batch.

    >>> step = CompilationCounter(jax.jit(step))
    >>> state, metrics = step(state, batch)
    >>> step.shapes
    Counter({(32, 128): 1})

    Args:
        function: jitted, (state or params, batch, ...) -> anything; the batch holds `input_ids`.

    Attributes:
        shapes: {shape of `input_ids`: number of compilations}.
        seconds: what the last call took if it compiled, else None.
    """

    def __init__(self, function: Callable) -> None:
        self.function = function
        self.shapes: Counter[tuple[int, ...]] = Counter()
        self.seconds: float | None = None

    def __call__(self, state: Any, batch: Any, *arguments: Any, **options: Any) -> Any:
        before = _programs_compiled()
        start = time.perf_counter()
        result = self.function(state, batch, *arguments, **options)
        compiled = _programs_compiled() > before
        self.seconds = time.perf_counter() - start if compiled else None
        if compiled:
            self.shapes[np.shape(batch["input_ids"])] += 1
        return result

    def warning(self, batch: Any, *, varied_shapes: bool = False) -> str | None:
        """Returns a warning if the last call, with this batch, was a compilation too many, else None.

        Args:
            varied_shapes: one compilation per shape is expected; otherwise one in all.
        """
        if self.seconds is None:
            return None
        count = self.shapes.total()
        same_shape = self.shapes[np.shape(batch["input_ids"])] > 1
        if not same_shape and (count == 1 or varied_shapes):
            return None
        change = "a dtype or a sharding" if same_shape else "the shape of the batch"
        return f"the step was compiled again ({count} compilations so far) in {self.seconds:.1f} s; {change} changed"
