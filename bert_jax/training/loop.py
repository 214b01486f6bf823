"""The loop: batches in, figures and checkpoints out.

The device is never waited for: the figures of a step are fetched when the next one has been dispatched. A checkpoint
is the one exception, because nothing is saved before its step is known to be finite.

Several seeds may be trained at once, by a step that is mapped over them: figures are arrays [K] then.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np
import optax

from bert_jax.training.checkpoints import Checkpoints
from bert_jax.training.reporting import Reporter
from bert_jax.training.state import TrainState

norm = jax.jit(optax.tree.norm)

Figure = float | np.ndarray  # of a step or an evaluation: a number, or [K], one for each of K seeds trained together


class NotFinite(RuntimeError):
    """A loss or gradient became NaN or infinite; the message says at which step."""


class Batches(Protocol):
    """An iterator of batches that knows its position."""

    def __next__(self) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...

    def state(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Cadence:
    """How often, in steps: figures are recorded, the held-out set is evaluated, a checkpoint is saved.

    All three are done at the end too; 0 for one of the last two means only then.
    """

    log: int = 10
    evaluate: int = 0
    checkpoint: int = 0


def train(
    state: TrainState,
    batches: Batches,
    *,
    step: Callable,
    place: Callable,
    evaluate: Callable[[Any], Mapping[str, Figure]],
    steps: int,
    cadence: Cadence,
    checkpoints: Checkpoints,
    reporter: Reporter,
    stop: Callable[[Mapping[str, Figure]], bool] | None = None,
) -> TrainState:
    """Trains from the state's step to `steps`; evaluates and saves at the end, whatever the cadence.

    Args:
        step: the compiled (state, batch) -> (state, figures).
        place: lays a batch of NumPy arrays on the devices.
        evaluate: all parameters -> row of `eval_` figures.
        stop: asked with every row of an evaluation; where it says True, that step is saved and is the last.

    Raises:
        NotFinite: a loss or a gradient is NaN or infinite; later checkpoints are not written.
    """
    clock = Clock()
    pending: tuple[int, dict[str, Any]] | None = None

    def settle() -> None:
        """Fetches the figures of the step before, checks them, and records them where the cadence says so."""
        nonlocal pending
        if pending is None:
            return
        done, figures = pending[0], {name: plain(value) for name, value in jax.device_get(pending[1]).items()}
        pending = None
        require_finite(done, {"loss": figures["loss"], "gradient norm": figures["gradient_norm"]}, checkpoints.latest)
        clock.count(float(np.sum(figures.pop("tokens"))))
        reporter.advance()
        if done % cadence.log == 0 or done == steps:
            row = {"step": done, "loss": figures["loss"], **figures}
            reporter.write(row | {"tokens_per_second": clock.tokens_per_second()})

    for number in range(int(state.step) + 1, steps + 1):
        state, figures = step(state, place(next(batches)))
        settle()
        pending = (number, figures)
        if due(number, cadence.evaluate, steps) or due(number, cadence.checkpoint, steps):
            settle()
            last = number == steps
            with clock.stopped():
                # Evaluation first: a run killed between the two does it again, and a bad model is not saved.
                if due(number, cadence.evaluate, steps):
                    row = {name: plain(value) for name, value in evaluate(state.all_params).items()}
                    if "eval_loss" in row:
                        require_finite(number, {"held-out loss": row["eval_loss"]}, checkpoints.latest)
                    reporter.write({"step": number, **row})
                    last = last or (stop is not None and stop(row))
                if last or due(number, cadence.checkpoint, steps):
                    size = float(norm(state.params))
                    require_finite(number, {"norm of the parameters": size}, checkpoints.latest)
                    checkpoints.save(state, batches.state())
            if last:
                break
    return state


def due(step: int, every: int, last: int) -> bool:
    """Says whether something done every so many steps, and at the last, is done at `step`."""
    return step == last or (every > 0 and step % every == 0)


def plain(value: Any) -> Figure:
    """Returns a figure as a float, or as an array where it is one for each seed."""
    return float(value) if np.ndim(value) == 0 else np.asarray(value)


def require_finite(step: int, figures: Mapping[str, Figure], saved: int | None) -> None:
    """Raises NotFinite, with what is left of the run, unless all figures are finite."""
    if all(np.isfinite(value).all() for value in figures.values()):
        return
    found = ", ".join(f"{name} {value}" for name, value in figures.items())
    left = "no checkpoint had been saved" if saved is None else f"the last good checkpoint is of step {saved}"
    raise NotFinite(f"step {step}: {found}: stopped; {left}. Try a lower learning rate, or a longer warm-up")


class Clock:
    """Real tokens a second since it was last asked, the time of evaluations and saves left out."""

    def __init__(self) -> None:
        self.tokens, self.since = 0.0, time.perf_counter()

    def count(self, tokens: float) -> None:
        self.tokens += tokens

    def tokens_per_second(self) -> float:
        now = time.perf_counter()
        rate = self.tokens / max(now - self.since, 1e-9)
        self.tokens, self.since = 0.0, now
        return round(rate, 1)

    def stopped(self) -> "Clock":
        return self

    def __enter__(self) -> None:
        self.paused = time.perf_counter()

    def __exit__(self, *error: object) -> None:
        self.since += time.perf_counter() - self.paused
