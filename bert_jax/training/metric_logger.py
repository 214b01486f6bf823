"""The metrics of training steps: fetched from the device one step late, checked, and logged.

Several seeds can be trained together by a step that is mapped over them; each metric is then an array [K].
"""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from bert_jax.training.runs.reporting import Reporter

Metric = float | np.ndarray  # a number, or one for each of K seeds: [K]
Metrics = Mapping[str, Metric]

MAX_SKIPPED = 100  # consecutive steps


class NotFinite(RuntimeError):
    """A loss or a gradient became NaN or infinite; the message names the step."""


class Clock:
    """Measures tokens per second, without the time of evaluations and checkpoints."""

    def __init__(self) -> None:
        self.tokens = 0.0
        self.start = time.perf_counter()

    def tokens_per_second(self) -> float:
        """Returns the rate since the last call."""
        now = time.perf_counter()
        rate = self.tokens / max(now - self.start, 1e-9)
        self.tokens = 0.0
        self.start = now
        return round(rate, 1)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Does not count the time that the block takes."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.start += time.perf_counter() - start


@dataclass
class MetricLogger:
    """Fetches the metrics of each step one step late, checks them, and logs them at the cadence.

    Attributes:
        steps: the last step, which is logged too.
        every: steps between two logged ones.
        watch: see `Session`.
        pending: (step, metrics) that were not fetched yet, or None.
        consecutive_skips: number of updates skipped in a row; [K] with K seeds.
    """

    reporter: Reporter
    steps: int
    every: int
    watch: Callable[[Mapping[str, Any]], str | None] | None = None
    clock: Clock = field(default_factory=Clock)
    pending: tuple[int, dict[str, Any]] | None = None
    consecutive_skips: int | np.ndarray = 0

    def flush(self) -> None:
        """Fetches the pending metrics, checks that they are finite, and logs them if the cadence says so."""
        if self.pending is None:
            return
        step, metrics = self.pending
        self.pending = None
        metrics = {name: _to_host(value) for name, value in jax.device_get(metrics).items()}
        checked = {"loss": metrics["loss"], "gradient norm": metrics["gradient_norm"]}
        if "skipped" in metrics:
            self._count_skips(step, checked)
        else:
            require_finite(step, checked)
        self.clock.tokens += float(np.sum(metrics.pop("tokens")))
        self.reporter.advance()
        row = {"step": step, "loss": metrics["loss"], **metrics}
        self._watch(row)
        if is_due(step, self.every, self.steps):
            self.reporter.write(row | {"tokens_per_second": self.clock.tokens_per_second()})

    def log_evaluation(self, step: int, metrics: Metrics) -> Metrics:
        """Checks and logs the metrics of an evaluation, and returns them on the host."""
        metrics = {name: _to_host(value) for name, value in metrics.items()}
        if "eval_loss" in metrics:
            require_finite(step, {"held-out loss": metrics["eval_loss"]})
        self.reporter.write({"step": step, **metrics})
        self._watch({"step": step, **metrics})
        return metrics

    def warn(self, step: int, warning: str | None) -> None:
        """Prints a warning, if there is one."""
        if warning is not None:
            self.reporter.log(f"step {step}: warning: {warning}")

    def _watch(self, row: Mapping[str, Any]) -> None:
        if self.watch is not None:
            self.warn(row["step"], self.watch(row))

    def _count_skips(self, step: int, metrics: Metrics) -> None:
        """Logs a skipped update; raises NotFinite after MAX_SKIPPED consecutive skips in every seed."""
        skipped = ~np.all([np.isfinite(value) for value in metrics.values()], axis=0)
        self.consecutive_skips = np.where(skipped, self.consecutive_skips + 1, 0)
        if skipped.any():
            self.reporter.log(f"step {step}: {_listed(metrics)}: its update was skipped")
        if np.min(self.consecutive_skips) >= MAX_SKIPPED:
            raise NotFinite(f"step {step}: {MAX_SKIPPED} consecutive updates were skipped")


def is_due(step: int, every: int, last: int) -> bool:
    """Returns whether something that happens every `every` steps (0: never), and at the last, happens at `step`."""
    return step == last or (every > 0 and step % every == 0)


def require_finite(step: int, metrics: Metrics) -> None:
    """Raises NotFinite unless all metrics are finite."""
    if not all(np.isfinite(value).all() for value in metrics.values()):
        raise NotFinite(f"step {step}: {_listed(metrics)}")


def _to_host(value: Any) -> Metric:
    return float(value) if np.ndim(value) == 0 else np.asarray(value)


def _listed(metrics: Metrics) -> str:
    return ", ".join(f"{name} {value}" for name, value in metrics.items())
