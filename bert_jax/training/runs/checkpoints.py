"""Checkpoints of a run, by Orbax: RUN/checkpoints/STEP/ holds the state and the position in the data.

Saving goes on in the background and becomes visible in one rename, so that a killed run leaves whole checkpoints only.
One that is damaged later is found by its manifest before anything of it is used. Restoring goes by shapes and shardings
of the run that asks: a checkpoint does not remember devices.

References: Orbax, https://orbax.readthedocs.io.
"""

import asyncio
import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from bert_jax.training.runs.manifests import Damaged, check_seal, seal
from bert_jax.training.runs.orbax_noise import filter_logs, release
from bert_jax.training.state import TrainState

CHECKPOINTS = "checkpoints"  # the folder of a run that holds them
DAMAGED = "damaged"  # and the one beside it for those that are not as they were written
ITEMS = ("state", "data")


class NotSaved(OSError):
    """A checkpoint could not be written."""


class Sealed(ocp.path.atomicity.AtomicRenameTemporaryPath):
    """The folder that a checkpoint is written to; it gets its manifest before it gets its name."""

    async def finalize(self) -> None:
        if self.get_final().name.isdigit():  # not for the parts of a checkpoint, which are finished one by one before
            await asyncio.to_thread(seal, Path(self.get()))
        await super().finalize()


class Checkpoints:
    """The checkpoints below one folder; a context manager that waits for the last save.

    Args:
        folder: RUN/checkpoints; made when missing.
        keep: how many of the newest stay on disk.
        keep_best: how many of the best stay besides, of those that were saved with a score.
        highest: the best score is the highest, not the lowest.

    Attributes:
        scores: {step: score} of the checkpoints that have one.
    """

    def __init__(self, folder: str | Path, *, keep: int = 3, keep_best: int = 0, highest: bool = False) -> None:
        self.folder, self.keep, self.keep_best, self.highest = Path(folder).resolve(), keep, keep_best, highest
        filter_logs()
        options = ocp.CheckpointManagerOptions(
            preservation_policy=Preserved(self),
            create=True,
            cleanup_tmp_directories=True,
            temporary_path_class=Sealed,
        )
        self.manager = ocp.CheckpointManager(self.folder, options=options, item_names=ITEMS)
        self.scores: dict[int, float] = {}
        steps = self.manager.all_steps()
        for step in sorted(steps):
            with suppress(ValueError, KeyError, TypeError, AttributeError, OSError):  # an older, damaged one has none
                kept = self.read_data(step)["scores"]  # of those before it too: a score may come after its checkpoint
                self.scores |= {int(one): float(score) for one, score in kept.items() if int(one) in steps}

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None or (isinstance(error, OSError) and not isinstance(error, NotSaved)):
            with self.telling():  # what fills the disk for another file of the run fails a save that is under way
                self.manager.close()
        else:
            with suppress(Exception):  # the error under way is the one to tell
                self.manager.close()

    @property
    def latest(self) -> int | None:
        """The newest step saved, or None."""
        return self.manager.latest_step()

    @property
    def best(self) -> int | None:
        """The step of the best score, the earlier of two that are equal, or None."""
        return next(iter(self.ranked()), None)

    def ranked(self) -> list[int]:
        """Returns the steps that have a score, from the best on."""
        return sorted(self.scores, key=lambda step: (-self.scores[step] if self.highest else self.scores[step], step))

    def is_best(self, score: float) -> bool:
        """Says whether a state of this score is to be kept as the best so far."""
        best = self.best
        if not self.keep_best or best is None:
            return self.keep_best > 0
        return score > self.scores[best] if self.highest else score < self.scores[best]

    def save(self, state: TrainState, data: dict[str, Any], score: float | None = None) -> None:
        """Starts saving `state` and the data position under the state's step, unless that step is there already.

        Raises:
            NotSaved: this checkpoint, or the one before it, could not be written.
        """
        step = int(state.step)
        if step == self.latest:
            return
        if score is not None:
            self.scores[step] = score
        there = {*self.manager.all_steps(), step}
        kept = {"data": data, "scores": {str(one): score for one, score in self.scores.items() if one in there}}
        arguments = {"state": ocp.args.StandardSave(as_arrays(state)), "data": ocp.args.JsonSave(kept)}
        with self.telling():
            self.manager.save(step, args=ocp.args.Composite(**arguments))

    def check(self) -> None:
        """Raises NotSaved where the save that goes on in the background has failed."""
        with self.telling():
            self.manager.check_for_errors()

    def wait(self) -> None:
        """Waits for the save that goes on in the background; raises NotSaved where it fails."""
        with self.telling():
            self.manager.wait_until_finished()

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Returns the newest state, laid out on devices as `like` is, and its data position.

        Raises:
            ValueError: the checkpoint holds other shapes than `like`.
        """
        wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), as_arrays(like))
        step = self.latest
        arguments = ocp.args.Composite(state=ocp.args.StandardRestore(wanted))
        state = self.manager.restore(step, args=arguments)["state"]
        key = jax.random.wrap_key_data(state.key, impl=jax.random.key_impl(like.key))
        return replace(state, key=key), self.read_data(step)["data"]

    def read_data(self, step: int | None) -> dict[str, Any]:
        """Returns what was saved beside the state: the data position, and the scores by step."""
        return self.manager.restore(step, args=ocp.args.Composite(data=ocp.args.JsonRestore()))["data"]

    @contextmanager
    def telling(self) -> Iterator[None]:
        """Turns whatever a save dies of into one line."""
        try:
            yield
            return
        except Exception as error:
            why = reason(error)
            release(error)
        whole = sorted(int(path.name) for path in self.folder.glob("*") if path.name.isdigit())
        left = f"those of step {', '.join(map(str, whole))} are whole" if whole else "there is none before it"
        raise NotSaved(f"{self.folder}: a checkpoint could not be saved: {why}; {left}")


class Preserved:
    """Orbax's question which checkpoints stay: the newest, and the best."""

    def __init__(self, checkpoints: Checkpoints) -> None:
        self.checkpoints = checkpoints

    def should_preserve(self, checkpoints: Sequence[Any], *, context: Any) -> list[bool]:
        steps = [checkpoint.step for checkpoint in checkpoints]
        best = [step for step in self.checkpoints.ranked() if step in steps][: self.checkpoints.keep_best]
        stay = {*steps[-self.checkpoints.keep :], *best}
        return [step in stay for step in steps]


def newest_step(folder: str | Path) -> int | None:
    """Returns the newest step saved below a folder, by a look at the names alone, or None."""
    steps = (int(path.name) for path in Path(folder).glob("*") if path.name.isdigit())
    return max(steps, default=None)


def newest_whole_step(folder: str | Path, tell: Callable[[str], None] = print) -> int | None:
    """Returns the newest step that is as it was written, or None; newer ones are moved to RUN/damaged/ and told of.

    Of several processes the first looks, and all are given its answer.
    """
    folder, step = Path(folder), None
    if jax.process_index() == 0:
        while (step := newest_step(folder)) is not None:
            try:
                check_seal(folder / str(step))
                break
            except Damaged as error:
                tell(f"{error}; moved to {set_aside(folder / str(step))}")
    if jax.process_count() == 1:
        return step
    agreed = int(multihost_utils.broadcast_one_to_all(np.int32(-1 if step is None else step)))
    return None if agreed < 0 else agreed


def set_aside(checkpoint: Path) -> Path:
    """Moves RUN/checkpoints/STEP to RUN/damaged/STEP, or STEP-2, -3, ... where that is taken, and returns the place."""
    folder = checkpoint.parents[1] / DAMAGED
    folder.mkdir(exist_ok=True)
    taken, place = 1, folder / checkpoint.name
    while place.exists():
        taken += 1
        place = folder / f"{checkpoint.name}-{taken}"
    return checkpoint.rename(place)


def reason(error: BaseException) -> str:
    """Returns why a write failed: the system's word for it where there is one, else the first line of the message."""
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
        if os.strerror(code) in str(error):
            return os.strerror(code)
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def as_arrays(state: TrainState) -> TrainState:
    """Returns the state with its key as plain integers, which is what Orbax stores."""
    return replace(state, key=jax.random.key_data(state.key))
