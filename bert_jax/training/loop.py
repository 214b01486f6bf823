"""The training loop: batches in; metrics, evaluations and checkpoints out.

The loop does not wait for the device. While the device computes step n, the host fetches the metrics of step n - 1 and
prepares batch n + 1. Checkpoints are the exception: a state is saved only after its metrics are known to be finite.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
import optax

from bert_jax.training.devices.compilations import CompilationCounter
from bert_jax.training.devices.processes import broadcast_from_first
from bert_jax.training.metric_logger import MetricLogger, Metrics, NotFinite, is_due, require_finite
from bert_jax.training.runs.checkpoints import Checkpoints
from bert_jax.training.runs.interruption import Interrupted, Interruption, StopRequested
from bert_jax.training.runs.reporting import Reporter
from bert_jax.training.state import TrainState

MAX_REWINDS = 3  # to the same checkpoint
ADVICE = "Try a lower learning rate or a longer warm-up"

_norm = jax.jit(optax.tree.norm)


class Batches(Protocol):
    """An iterator of batches that knows its position."""

    def __next__(self) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...

    def state(self) -> dict[str, Any]: ...


@dataclass(frozen=True)
class Cadence:
    """How often metrics are logged, the held-out data is evaluated and a checkpoint is saved, in steps.

    The last step does all three. With 0, only the last step evaluates or saves.
    """

    log: int = 10
    evaluate: int = 0
    checkpoint: int = 0


@dataclass(frozen=True)
class Session:
    """What a run uses from its first step to its last.

    Attributes:
        watch: called with the metrics of each step and evaluation; returns a warning or None.
        interruption: says after each step whether the run has to end; None = never.
    """

    checkpoints: Checkpoints
    reporter: Reporter
    cadence: Cadence = field(default_factory=Cadence)
    watch: Callable[[Mapping[str, Any]], str | None] | None = None
    interruption: Interruption | None = None


def train(
    state: TrainState,
    batches: Batches,
    *,
    step: Callable,
    device_put: Callable,
    evaluate: Callable[[Any], Metrics],
    steps: int,
    session: Session,
    score: Callable[[Metrics], float] | None = None,
    stop: Callable[[Metrics], bool] | None = None,
    rewind: bool = False,
    varied_shapes: bool = False,
) -> TrainState:
    """Trains from the state's step to `steps`, and returns the last state. The last step is always evaluated and saved.

    Args:
        step: compiled (state, batch) -> (state, metrics); `skipped` among the metrics counts the skipped updates.
        device_put: copies a NumPy batch to the devices, without waiting for it.
        evaluate: state -> {"eval_...": metric}. It may raise StopRequested, see `until_requested`.
        score: metrics of an evaluation -> number, lower is better. A state that should be kept as the best is saved.
        stop: metrics of an evaluation -> whether this step is the last.
        rewind: if a metric is not finite, restore the last checkpoint and continue with the next data.
        varied_shapes: batches have several shapes, so one compilation per shape is expected.

    Raises:
        NotFinite: a loss or a gradient is NaN or infinite. No later checkpoint is written.
        Interrupted: a signal asked the run to end; the last step is saved. Its evaluation is left to the resumed run.
        NotSaved: a checkpoint could not be written.
    """
    checkpoints = session.checkpoints
    counted_step = CompilationCounter(step)
    logger = MetricLogger(session.reporter, steps, session.cadence.log, session.watch)
    milestones = Milestones(session, logger, batches, steps, evaluate, score, stop)
    recovery = Recovery(session, MAX_REWINDS if rewind else 0)
    if rewind and checkpoints.latest is None:
        checkpoints.save(state, batches.state())
    try:
        last = milestones.resume(state, int(state.step))
    except NotFinite as error:
        state = recovery.rewind(state, error)
        last = False
    number = int(state.step)
    while not last:
        number += 1
        batch = device_put(next(batches))
        state, metrics = counted_step(state, batch)
        logger.warn(number, counted_step.warning(batch, varied_shapes=varied_shapes))
        try:
            logger.flush()  # step number - 1: the device already computes this one
            logger.pending = number, metrics
            checkpoints.check()
            last = milestones.reach(state, number)
        except NotFinite as error:
            state = recovery.rewind(state, error)
            number = int(state.step)
    if session.interruption is not None and session.interruption.received is not None:
        checkpoints.wait()
        raise Interrupted(session.interruption.received, number)
    return state


@dataclass
class Milestones:
    """Evaluates and saves at the steps where this is due; arguments as those of `train`."""

    session: Session
    logger: MetricLogger
    batches: Batches
    steps: int
    evaluate: Callable[[Any], Metrics]
    score: Callable[[Metrics], float] | None
    stop: Callable[[Metrics], bool] | None

    def resume(self, state: TrainState, step: int) -> bool:
        """Does a pending evaluation of the restored step; returns whether that step is the last.

        An evaluation is pending if it is due and metrics.jsonl does not hold it: the run ended before or during it. If
        metrics.jsonl holds it, the checkpoint still lacks its score, because it was saved before the evaluation.
        """
        checkpoints = self.session.checkpoints
        last = step >= self.steps
        metrics = _recorded_evaluation(self.session.reporter, step) if step else None
        if metrics is None:
            if step == 0 or not is_due(step, self.session.cadence.evaluate, self.steps):
                return last
            try:
                metrics = self._evaluate(state, step)
            except StopRequested:
                return True
            except NotFinite:
                checkpoints.discard(step)
                raise
        checkpoints.confirm(step, None if self.score is None else self.score(metrics))
        return (self.stop is not None and self.stop(metrics)) or last

    def reach(self, state: TrainState, step: int) -> bool:
        """Evaluates and saves what is due at a step; returns whether the step is the last."""
        session = self.session
        interrupted = session.interruption is not None and session.interruption.requested()
        last = interrupted or step == self.steps
        due = is_due(step, session.cadence.evaluate, self.steps)
        evaluating = due and not interrupted
        saving = last or is_due(step, session.cadence.checkpoint, self.steps)
        if not (evaluating or saving):
            return False
        self.logger.flush()
        # The checkpoint comes before the evaluation, which may take longer than the time until a process is killed.
        if saving:
            self._save(state, pending=due)
        if not evaluating:
            return last
        try:
            metrics = self._evaluate(state, step)
        except StopRequested:
            if not saving:
                self._save(state, pending=True)
            return True
        except NotFinite:
            if saving:
                session.checkpoints.discard(step)
            raise
        score = None if self.score is None else self.score(metrics)
        last = last or (self.stop is not None and self.stop(metrics))
        if saving:
            session.checkpoints.confirm(step, score)
        elif last or (score is not None and session.checkpoints.is_best(score)):
            self._save(state, score)
        return last

    def _save(self, state: TrainState, score: float | None = None, *, pending: bool = False) -> None:
        """Saves a state whose parameters are finite; `pending` = its evaluation comes later."""
        with self.logger.clock.paused():
            require_finite(int(state.step), {"norm of the parameters": float(_norm(state.params))})
            self.session.reporter.sync()  # after a loss of power, no checkpoint is newer than metrics.jsonl
            self.session.checkpoints.save(state, self.batches.state(), score, pending=pending)

    def _evaluate(self, state: TrainState, step: int) -> Metrics:
        with self.logger.clock.paused():
            return self.logger.log_evaluation(step, self.evaluate(state))


@dataclass
class Recovery:
    """Restores the last checkpoint after a metric was not finite, at most `max_rewinds` times to each checkpoint."""

    session: Session
    max_rewinds: int
    target: int = -1
    rewinds: int = 0

    def rewind(self, state: TrainState, error: NotFinite) -> TrainState:
        """Returns the last saved state.

        The data position is not restored, so the batches that caused the error are skipped.
        """
        checkpoints = self.session.checkpoints
        if not self.max_rewinds or checkpoints.latest is None:
            raise _stopped(error, checkpoints) from None
        checkpoints.wait()
        restored, _ = checkpoints.restore(state)
        target = int(restored.step)
        self.rewinds = self.rewinds + 1 if target == self.target else 1
        self.target = target
        if self.rewinds > self.max_rewinds:
            raise NotFinite(f"{error}: stopped after {self.max_rewinds} rewinds to step {target}; {ADVICE}") from None
        self.session.reporter.rewind(target)
        self.session.reporter.log(f"{error}: rewound to step {target}, continuing with the next data")
        return restored


def _recorded_evaluation(reporter: Reporter, step: int) -> Metrics | None:
    """Returns the metrics of an evaluation that metrics.jsonl holds, or None; the same in every process."""
    if jax.process_count() == 1:
        return reporter.evaluation(step)
    return json.loads(
        broadcast_from_first("the last evaluation", lambda: json.dumps(reporter.evaluation(step)).encode())
    )


def _stopped(error: NotFinite, checkpoints: Checkpoints) -> NotFinite:
    """Returns an error that also says what the stopped run has saved and what to try."""
    saved = checkpoints.latest
    left = "no checkpoint was saved" if saved is None else f"the last good checkpoint is of step {saved}"
    return NotFinite(f"{error}: stopped; {left}. {ADVICE}")
