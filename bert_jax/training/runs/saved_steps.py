"""The steps that a run has saved, by the names of their folders: RUN/checkpoints/STEP/. Damaged ones are moved away."""

import errno
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

from bert_jax.training.runs.manifests import Damaged, check_manifest

# Beside CHECKPOINTS, or in it if it is on another disk: checkpoints that were changed after they were written.
DAMAGED = "damaged"


def saved_steps(folder: str | Path) -> list[int]:
    """Returns the steps saved in a folder, by the names of its checkpoints alone, in ascending order."""
    return sorted(int(path.name) for path in Path(folder).glob("*") if path.name.isdigit())


def newest_step(folder: str | Path) -> int | None:
    """Returns the newest step saved in a folder, by the names of its checkpoints alone, or None."""
    return max(saved_steps(folder), default=None)


def newest_whole_step(folder: str | Path, log: Callable[[str], None] = print) -> int | None:
    """Returns the newest step whose files are as they were written, or None; moves newer, damaged ones to RUN/damaged/.

    Of several processes the first one looks, and all get its result.

    Args:
        log: called with a line for each damaged checkpoint.
    """
    folder = Path(folder)
    step = None
    if jax.process_index() == 0:
        while (step := newest_step(folder)) is not None:
            try:
                check_manifest(folder / str(step))
                break
            except Damaged as error:
                log(f"{error}; moved to {_move_to_damaged(folder / str(step))}")
    if jax.process_count() == 1:
        return step
    agreed = int(multihost_utils.broadcast_one_to_all(np.int32(-1 if step is None else step)))
    return None if agreed < 0 else agreed


def _move_to_damaged(checkpoint: Path) -> Path:
    """Moves RUN/checkpoints/STEP to RUN/damaged/, if that is on the same disk, or to RUN/checkpoints/damaged/.

    Returns:
        The new path.
    """
    beside = checkpoint.parents[1] / DAMAGED
    try:
        return _move_to(beside, checkpoint)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
    with suppress(OSError):  # not empty
        beside.rmdir()
    return _move_to(checkpoint.parent / DAMAGED, checkpoint)


def _move_to(folder: Path, checkpoint: Path) -> Path:
    """Moves a checkpoint to a folder, as STEP, or STEP-2, STEP-3, ... if that exists; returns the new path."""
    folder.mkdir(exist_ok=True)
    target = folder / checkpoint.name
    number = 1
    while target.exists():
        number += 1
        target = folder / f"{checkpoint.name}-{number}"
    return checkpoint.rename(target)
