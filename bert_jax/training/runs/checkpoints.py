"""Checkpoints of a run, by Orbax: RUN/checkpoints/STEP/ holds the train state and the position in the data.

Orbax saves in the background and renames the folder when it is complete, so a killed run leaves complete checkpoints
only. Damage that happens later is found by the manifest of each checkpoint before anything in it is used. A checkpoint
does not remember devices: the state is restored with the shapes and shardings of the run that restores it.

References: Orbax, https://orbax.readthedocs.io.
"""

import asyncio
import errno
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp

from bert_jax.files import write_file
from bert_jax.messages import first_line
from bert_jax.training.devices.processes import is_first
from bert_jax.training.runs.lock import RunLock
from bert_jax.training.runs.manifests import write_manifest
from bert_jax.training.runs.orbax_noise import filter_orbax_logs, release_frames
from bert_jax.training.runs.saved_steps import newest_step
from bert_jax.training.state import TrainState

SAVED = "saved.json"  # beside CHECKPOINTS, once one is complete: shows that the disk of the checkpoints is not mounted
ITEMS = ("state", "data")


class NotSaved(OSError):
    """A checkpoint could not be written."""


class _WithManifest(ocp.path.atomicity.AtomicRenameTemporaryPath):
    """The folder that Orbax writes a checkpoint to. It gets its manifest before it is renamed."""

    async def finalize(self) -> None:
        if self.get_final().name.isdigit():  # the checkpoint; its items `state` and `data` are finalized before it
            await asyncio.to_thread(write_manifest, Path(self.get()))
        await super().finalize()


class Checkpoints:
    """The checkpoints in a folder; a context manager that waits for the last save.

    Args:
        folder: RUN/checkpoints; made if missing.
        keep: number of newest checkpoints to keep.
        keep_best: number of checkpoints to keep in addition, those with the lowest comparable scores.
        lock: the lock on the run's folder, which is checked before each save; None if there is none.

    Attributes:
        scores: {step: score} of the checkpoints that have one.
        comparable_after: the last step before the evaluation data changed. Scores up to it are not comparable with
            later ones, so the later ones count as better.
        pending: the newest step, if its evaluation comes later: one more checkpoint is kept, in case it is discarded.
    """

    def __init__(self, folder: str | Path, *, keep: int = 3, keep_best: int = 0, lock: RunLock | None = None) -> None:
        self.folder = Path(folder).resolve()
        self.note = Path(folder).parent / SAVED
        self.lock = lock
        self.keep = keep
        self.keep_best = keep_best
        filter_orbax_logs()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=_KeepNewestAndBest(self),
            create=True,
            cleanup_tmp_directories=True,
            temporary_path_class=_WithManifest,
        )
        self.manager = ocp.CheckpointManager(self.folder, options=options, item_names=ITEMS)
        self.scores: dict[int, float] = {}
        self.comparable_after = 0
        self.pending: int | None = None
        steps = self.manager.all_steps()
        for step in sorted(steps):
            # A checkpoint holds the scores of those before it too, because a resumed run may evaluate a state that was
            # saved without a score. An older checkpoint that is damaged has none.
            with suppress(ValueError, KeyError, TypeError, AttributeError, OSError):
                saved = self.read_data(step)["scores"]
                self.scores |= {int(other): float(score) for other, score in saved.items() if int(other) in steps}
        self.is_noted = not is_first() or self.note.exists()
        self._note_saved()

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        # A full disk may be reported first by another file of the run; then the failed save is the better message.
        if error is None or (isinstance(error, OSError) and not isinstance(error, NotSaved)):
            with self._one_line_errors():
                self.manager.close()
        else:
            with suppress(Exception):
                self.manager.close()
        self._note_saved()

    @property
    def latest(self) -> int | None:
        """The newest step that is saved, or None."""
        return self.manager.latest_step()

    @property
    def best(self) -> int | None:
        """The step with the best score, the earlier of two equal ones, or None."""
        return next(iter(self.ranked()), None)

    def ranked(self) -> list[int]:
        """Returns the steps that have a score, best first."""
        return sorted(self.scores, key=lambda step: (step <= self.comparable_after, self.scores[step], step))

    def is_best(self, score: float) -> bool:
        """Returns whether a state with this score should be kept as the best so far."""
        if not self.keep_best:
            return False
        best = self.best
        return best is None or best <= self.comparable_after or score < self.scores[best]

    def save(
        self, state: TrainState, data: dict[str, Any], score: float | None = None, *, pending: bool = False
    ) -> None:
        """Starts to save the state and the data position under the state's step, unless this step is saved already.

        Args:
            pending: the state is evaluated later: `confirm` or `discard` follows.

        Raises:
            NotSaved: this checkpoint, or the one before it, could not be written.
            RunInUse: another process has taken over the lock on the run's folder.
        """
        step = int(state.step)
        if step == self.latest:
            return
        if self.lock is not None:
            self.lock.check()
        if score is not None:
            self.scores[step] = score
        self.pending = step if pending else None
        steps = {*self.manager.all_steps(), step}
        scores = {str(other): score for other, score in self.scores.items() if other in steps}
        arguments = {
            "state": ocp.args.StandardSave(as_arrays(state)),
            "data": ocp.args.JsonSave({"data": data, "scores": scores}),
        }
        with self._one_line_errors():
            self.manager.save(step, args=ocp.args.Composite(**arguments))

    def confirm(self, step: int, score: float | None) -> None:
        """Records that a saved step was evaluated, and deletes the checkpoints that need not be kept any more."""
        if score is not None:
            self.scores[step] = score
        self.pending = None
        self.wait()
        steps = self.manager.all_steps()
        for other in set(steps) - self.steps_to_keep(steps):
            self.manager.delete(other)

    def discard(self, step: int) -> None:
        """Deletes a saved step whose evaluation was not finite."""
        self.pending = None
        self.wait()
        self.manager.delete(step)
        if is_first() and self.latest is None:
            self.note.unlink(missing_ok=True)
            self.is_noted = False

    def steps_to_keep(self, steps: Sequence[int]) -> set[int]:
        """Returns which of the saved steps to keep: the newest and the best ones."""
        newest = sorted(steps)
        best = [step for step in self.ranked() if step in newest][: self.keep_best]
        keep = self.keep + (self.pending is not None)
        return {*newest[-keep:], *best}

    def check(self) -> None:
        """Raises NotSaved if the save in the background has failed."""
        with self._one_line_errors():
            self.manager.check_for_errors()
        if not self.is_noted and self.latest is not None and not self.manager.is_saving_in_progress():
            self._note_saved()

    def wait(self) -> None:
        """Waits for the save in the background; raises NotSaved if it fails."""
        with self._one_line_errors():
            self.manager.wait_until_finished()

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Returns the newest state, with the shardings of `like`, and its data position.

        Raises:
            ValueError: the shapes in the checkpoint are not those of `like`.
        """
        wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), as_arrays(like))
        step = self.latest
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(wanted))
        state = self.manager.restore(step, args=arguments)["state"]
        key = jax.random.wrap_key_data(state.key, impl=jax.random.key_impl(like.key))
        return replace(state, key=key), self.read_data(step)["data"]

    def read_data(self, step: int | None) -> dict[str, Any]:
        """Returns what is saved beside the state: the data position, and the scores by step."""
        return self.manager.restore(step, args=ocp.args.Composite(data=ocp.args.JsonRestore()))["data"]

    def _note_saved(self) -> None:
        """Writes RUN/saved.json once a checkpoint is complete."""
        if not self.is_noted and newest_step(self.folder) is not None:
            with suppress(OSError):  # it is only a precaution; a full disk is reported by what needs the space
                write_file(self.note, json.dumps({"checkpoints": str(self.folder)}) + "\n")
                self.is_noted = True

    @contextmanager
    def _one_line_errors(self) -> Iterator[None]:
        """Turns any exception of a save into NotSaved, with a message of one line."""
        try:
            yield
            return
        except Exception as error:
            cause = _cause(error)
            release_frames(error)
        # Raised outside the except block: the exception above would be kept alive as its context.
        saved = sorted(int(path.name) for path in self.folder.glob("*") if path.name.isdigit())
        left = f"complete checkpoints: step {', '.join(map(str, saved))}" if saved else "there is no earlier checkpoint"
        raise NotSaved(f"{self.folder}: a checkpoint could not be saved: {cause}; {left}")


class _KeepNewestAndBest:
    """Orbax's preservation policy: which checkpoints to keep."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        kept = self.checkpoints.steps_to_keep(steps)
        return [step in kept for step in steps]


def _cause(error: BaseException) -> str:
    """Returns why a write failed: the system's message if the error contains one, else its own first line."""
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
        if os.strerror(code) in str(error):
            return os.strerror(code)
    return first_line(error)


def as_arrays(state: TrainState) -> TrainState:
    """Returns the state with its key as plain integers, because Orbax stores no keys."""
    return replace(state, key=jax.random.key_data(state.key))
