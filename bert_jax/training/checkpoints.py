"""Checkpoints of a run, by Orbax: RUN/checkpoints/STEP/ holds the state and the position in the data.

Saving goes on in the background and becomes visible in one rename, so that a killed run leaves whole checkpoints only.
Restoring goes by shapes and shardings of the run that asks: a checkpoint does not remember devices.

References: Orbax, https://orbax.readthedocs.io.
"""

from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import orbax.checkpoint as ocp

from bert_jax.training.state import TrainState

CHECKPOINTS = "checkpoints"  # the folder of a run that holds them
ITEMS = ("state", "data")


class Checkpoints:
    """The checkpoints below one folder; a context manager that waits for the last save.

    Args:
        folder: RUN/checkpoints; made when missing.
        keep: how many of the newest stay on disk.
    """

    def __init__(self, folder: str | Path, *, keep: int = 3) -> None:
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, create=True)
        self.manager = ocp.CheckpointManager(Path(folder).resolve(), options=options, item_names=ITEMS)

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.manager.close()

    @property
    def latest(self) -> int | None:
        """The newest step saved, or None."""
        return self.manager.latest_step()

    def save(self, state: TrainState, data: dict[str, Any]) -> None:
        """Starts saving `state` and the data position under the state's step, unless that step is there already."""
        step = int(state.step)
        if step != self.latest:
            arguments = {"state": ocp.args.StandardSave(as_arrays(state)), "data": ocp.args.JsonSave(data)}
            self.manager.save(step, args=ocp.args.Composite(**arguments))

    def restore(self, like: TrainState) -> tuple[TrainState, dict[str, Any]]:
        """Returns the newest state, laid out on devices as `like` is, and its data position.

        Raises:
            ValueError: the checkpoint holds other shapes than `like`.
        """
        wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), as_arrays(like))
        arguments = {"state": ocp.args.StandardRestore(wanted), "data": ocp.args.JsonRestore()}
        restored = self.manager.restore(self.latest, args=ocp.args.Composite(**arguments))
        state = restored["state"]
        key = jax.random.wrap_key_data(state.key, impl=jax.random.key_impl(like.key))
        return replace(state, key=key), restored["data"]


def newest_step(folder: str | Path) -> int | None:
    """Returns the newest step saved below a folder, by a look at the names alone, or None."""
    steps = (int(path.name) for path in Path(folder).glob("*") if path.name.isdigit())
    return max(steps, default=None)


def as_arrays(state: TrainState) -> TrainState:
    """Returns the state with its key as plain integers, which is what Orbax stores."""
    return replace(state, key=jax.random.key_data(state.key))
