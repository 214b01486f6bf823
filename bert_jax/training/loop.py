"""The loop: batches in, figures and checkpoints out.

The device is never waited for: the figures of a step are fetched when the next one has been dispatched, and the batch
after that is laid on the device while the step before it is computed. A checkpoint is the one exception, because
nothing is saved before its step is known to be finite.

Several seeds may be trained at once, by a step that is mapped over them: figures are arrays [K] then.
"""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import jax
import numpy as np
import optax

from bert_jax.training.devices.compilations import CompilationCounter
from bert_jax.training.runs.checkpoints import Checkpoints
from bert_jax.training.runs.interruption import Interrupted, Interruption
from bert_jax.training.runs.reporting import Reporter
from bert_jax.training.state import TrainState

norm = jax.jit(optax.tree.norm)

Figure = float | np.ndarray  # of a step or an evaluation: a number, or [K], one for each of K seeds trained together
Row = Mapping[str, Figure]
Watcher = Callable[[Mapping[str, Any]], str | None]
SKIPPED_IN_A_ROW = 100  # steps after which skipping helps no more
REWINDS = 3  # to one checkpoint, after which rewinding helps no more
OWED = "owes_evaluation"  # beside the position in the data, where a run told to end left out the one that was due
REMEDY = "Try a lower learning rate, or a longer warm-up"


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
    device_put: Callable,
    evaluate: Callable[[Any], Row],
    steps: int,
    cadence: Cadence,
    checkpoints: Checkpoints,
    reporter: Reporter,
    stop: Callable[[Row], bool] | None = None,
    score: Callable[[Row], float] | None = None,
    rewind: bool = False,
    owed: bool = False,
    watch: Watcher | None = None,
    interruption: Interruption | None = None,
    varied: bool = False,
) -> TrainState:
    """Trains from the state's step to `steps`; evaluates and saves at the end, whatever the cadence.

    Args:
        step: the compiled (state, batch) -> (state, figures). Where it skips what is not finite, it counts that as
            `skipped`.
        device_put: lays a batch of NumPy arrays on the devices; returns before it is there.
        evaluate: state -> row of `eval_` figures.
        stop: asked with every row of an evaluation; where it says True, that step is saved and is the last.
        score: of a row of an evaluation, for the checkpoint; one that is to be kept as the best is saved at once.
        rewind: where a figure is not finite, go back to the last checkpoint, and on with the data after that step's.
        owed: whether the state was saved without an evaluation that was due at its step (`OWED`): it is done first.
        watch: asked with the figures of every step and evaluation; returns a warning, or None.
        interruption: asked after every step; where it says so, that step is saved and is the last. An evaluation
            that is due is left out, which may take longer than there is time: it is owed.
        varied: whether batches come in several shapes. The step is compiled once for each; once more is warned of.

    Raises:
        NotFinite: a loss or a gradient is NaN or infinite; later checkpoints are not written.
        Interrupted: the run was asked to end, and has saved.
        NotSaved: a checkpoint could not be written.
    """
    account = Account(steps, cadence.log, reporter, watch)
    counted_step = CompilationCounter(step)
    rewinds = Rewinds(checkpoints, reporter) if rewind else None
    if rewind and checkpoints.latest is None:
        checkpoints.save(state, batches.state())
    number = int(state.step)

    def assess() -> tuple[float | None, bool]:
        """Evaluates; returns the score, and whether training is to stop."""
        row = account.evaluation(number, evaluate(state))
        return None if score is None else score(row), stop is not None and stop(row)

    def round_off() -> bool:
        """Evaluates and saves what is due at this step; says whether it is the last."""
        told = interruption is not None and interruption.requested(number)
        last = told or number == steps
        evaluating, saving, worth = due(number, cadence.evaluate, steps), due(number, cadence.checkpoint, steps), None
        if not (last or evaluating or saving):
            return False
        account.settle()
        with account.clock.stopped():
            # Evaluation first: a run killed between the two does it again, and a bad model is not saved.
            if evaluating and not told:
                worth, enough = assess()
                last = last or enough
            if last or saving or (worth is not None and checkpoints.is_best(worth)):
                require_finite(number, {"norm of the parameters": float(norm(state.params))})
                reporter.sync()  # whatever happens to the machine, no checkpoint is newer than its figures
                checkpoints.save(state, batches.state() | ({OWED: True} if told and evaluating else {}), worth)
        return last

    last = number >= steps
    if owed:
        reporter.owe(number)  # a run that did it, and was killed before its next checkpoint, has left it there
        try:
            with account.clock.stopped():
                worth, enough = assess()
        except NotFinite as error:
            raise NotFinite(f"{error}: stopped; {left_of(checkpoints)}") from None
        last = last or enough
        if worth is not None:
            checkpoints.scores[number] = worth
    while not last:
        number += 1
        batch = device_put(next(batches))
        state, figures = counted_step(state, batch)
        warning = counted_step.warning(batch, varied_shapes=varied)
        if warning is not None:
            reporter.say(f"step {number}: warning: {warning}")
        try:
            account.settle()
            account.pending = number, figures
            checkpoints.check()
            last = round_off()
        except NotFinite as error:
            if rewinds is None:
                raise NotFinite(f"{error}: stopped; {left_of(checkpoints)}") from None
            state = rewinds.back(state, error)
            number = int(state.step)
    if interruption is not None and interruption.received is not None:
        checkpoints.wait()
        raise Interrupted(interruption.received, number)
    return state


class Account:
    """The figures of steps and evaluations: fetched a step late, checked, recorded.

    Attributes:
        pending: a step whose figures have not been fetched yet, or None.
    """

    def __init__(self, steps: int, every: int, reporter: Reporter, watch: Watcher | None) -> None:
        self.steps, self.every, self.reporter, self.watch = steps, every, reporter, watch
        self.clock = Clock()
        self.pending: tuple[int, dict[str, Any]] | None = None
        self.streak = np.zeros((), int)  # of skipped steps; [K] for K seeds

    def settle(self) -> None:
        """Fetches the figures of the step before, checks them, and records them where the cadence says so."""
        if self.pending is None:
            return
        (done, figures), self.pending = self.pending, None
        figures = {name: plain(value) for name, value in jax.device_get(figures).items()}
        told = {"loss": figures["loss"], "gradient norm": figures["gradient_norm"]}
        if "skipped" in figures:
            self.count_skipped(done, told)
        else:
            require_finite(done, told)
        self.clock.count(float(np.sum(figures.pop("tokens"))))
        self.reporter.advance()
        row = {"step": done, "loss": figures["loss"], **figures}
        self.warn(row)
        if done % self.every == 0 or done == self.steps:
            self.reporter.write(row | {"tokens_per_second": self.clock.tokens_per_second()})

    def evaluation(self, step: int, figures: Row) -> Row:
        """Checks and records an evaluation, and returns its row."""
        row = {name: plain(value) for name, value in figures.items()}
        if "eval_loss" in row:
            require_finite(step, {"held-out loss": row["eval_loss"]})
        self.reporter.write({"step": step, **row})
        self.warn({"step": step, **row})
        return row

    def count_skipped(self, step: int, figures: Row) -> None:
        """Tells of an update that was not made, and raises NotFinite where none is made any more, of any seed."""
        skipped = ~np.all([np.isfinite(value) for value in figures.values()], axis=0)
        self.streak = np.where(skipped, self.streak + 1, 0)
        if skipped.any():
            self.reporter.say(f"step {step}: {listed(figures)}: its update was skipped")
        if self.streak.min() >= SKIPPED_IN_A_ROW:
            raise NotFinite(f"step {step}: {SKIPPED_IN_A_ROW} updates in a row were skipped")

    def warn(self, row: Mapping[str, Any]) -> None:
        warning = self.watch(row) if self.watch is not None else None
        if warning is not None:
            self.reporter.say(warning)


class Rewinds:
    """Goes back to the last checkpoint, a few times to each."""

    def __init__(self, checkpoints: Checkpoints, reporter: Reporter) -> None:
        self.checkpoints, self.reporter = checkpoints, reporter
        self.target, self.times = -1, 0

    def back(self, state: TrainState, error: NotFinite) -> TrainState:
        """Returns the last state that was saved. The batches go on where they are, past those that did harm."""
        self.checkpoints.wait()
        restored, _ = self.checkpoints.restore(state)
        target = int(restored.step)
        self.target, self.times = target, self.times + 1 if target == self.target else 1
        if self.times > REWINDS:
            raise NotFinite(f"{error}: went back to step {target} {REWINDS} times: stopped; {REMEDY}") from None
        self.reporter.rewind(target)
        self.reporter.say(f"{error}: back to step {target}, and on with the data that comes next")
        return restored


def due(step: int, every: int, last: int) -> bool:
    """Says whether something done every so many steps, and at the last, is done at `step`."""
    return step == last or (every > 0 and step % every == 0)


def plain(value: Any) -> Figure:
    """Returns a figure as a float, or as an array where it is one for each seed."""
    return float(value) if np.ndim(value) == 0 else np.asarray(value)


def require_finite(step: int, figures: Row) -> None:
    """Raises NotFinite unless all figures are finite."""
    if not all(np.isfinite(value).all() for value in figures.values()):
        raise NotFinite(f"step {step}: {listed(figures)}")


def listed(figures: Row) -> str:
    return ", ".join(f"{name} {value}" for name, value in figures.items())


def left_of(checkpoints: Checkpoints) -> str:
    """Says what a stopped run has kept, and what to try."""
    saved = checkpoints.latest
    left = "no checkpoint had been saved" if saved is None else f"the last good checkpoint is of step {saved}"
    return f"{left}. {REMEDY}"


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
