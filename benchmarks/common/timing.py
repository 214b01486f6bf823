"""Timing in alternating rounds, medians, and the machine's own rate of matrix multiplications.

Candidates alternate (A B A B ...), so that a machine that slows down slows all of them. Each is reported as the median
of its rounds.
"""

import statistics
import threading
import time
from collections.abc import Callable, Mapping


def seconds_of(run: Callable[[], object]) -> float:
    """Returns the seconds that one call takes."""
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def interleaved(candidates: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1) -> dict[str, list[float]]:
    """Times each candidate once per round, one after the other; returns the seconds of the rounds after `warmup`."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for round_index in range(rounds + warmup):
        for name, run in candidates.items():
            elapsed = seconds_of(run)
            if round_index >= warmup:
                seconds[name].append(elapsed)
    return seconds


class PausedLoop:
    """A training loop in its own thread, paused except during calls; each call runs it for one turn.

    Args:
        loop: trains; is given `begin` and `end`, to call before and after each turn.
    """

    def __init__(self, loop: Callable[[Callable, Callable], None]) -> None:
        self.resume = threading.Semaphore(0)
        self.turn_done = threading.Semaphore(0)
        self.error: BaseException | None = None
        threading.Thread(target=self._run, args=(loop,), daemon=True).start()

    def _run(self, loop: Callable[[Callable, Callable], None]) -> None:
        try:
            loop(self.resume.acquire, self.turn_done.release)
        except BaseException as error:
            self.error = error
            self.turn_done.release()

    def __call__(self) -> None:
        self.resume.release()
        self.turn_done.acquire()
        if self.error is not None:
            raise self.error


def spread(values: list[float], digits: int = 3) -> str:
    """Formats values as `median (min to max)`, or a single value alone."""
    if len(values) == 1:
        return f"{values[0]:,.{digits}f}"
    median = statistics.median(values)
    return f"{median:,.{digits}f} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"


def matmul_rate(seconds: float = 2.0, *, rows: int = 1024, inner: int = 768, columns: int = 3072) -> float:
    """Returns the GFLOP/s of float32 matrix multiplications alone, of BERT-base's shapes, on this machine."""
    import jax
    import jax.numpy as jnp

    a = jnp.ones((rows, inner))
    b = jnp.ones((inner, columns))
    multiply = jax.jit(jnp.matmul)
    multiply(a, b).block_until_ready()
    times = []
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        times.append(seconds_of(lambda: multiply(a, b).block_until_ready()))
    return 2.0 * rows * inner * columns / statistics.median(times) / 1e9
