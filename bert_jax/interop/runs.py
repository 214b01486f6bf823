"""The parameters in a checkpoint of a run, which Orbax wrote, without the optimizer's state beside them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from bert_jax.interop.names import nested, walk
from bert_jax.training.checkpoints import newest_step
from bert_jax.training.manifests import check_seal


class RunCheckpoint:
    """A checkpoint of a run, by default the newest; its parameters are read by `assemble`.

    Args:
        folder: RUN/checkpoints.
        step: which.

    Raises:
        FileNotFoundError: there is no checkpoint, or not this one.
        ValueError: it is damaged, or something else.
    """

    def __init__(self, folder: str | Path, step: int | None = None) -> None:
        self.folder = Path(folder).resolve()
        found = newest_step(folder) if step is None else step
        if found is None:
            raise FileNotFoundError(f"{folder}: no checkpoint here yet")
        if not (self.folder / str(found)).is_dir():
            raise FileNotFoundError(f"{folder}: no checkpoint of step {found} here")
        self.step = found
        check_seal(self.folder / str(found))
        with self.manager() as manager:
            try:
                leaves = dict(walk(manager.item_metadata(self.step)["state"]["params"]))
            except (KeyError, TypeError, ValueError, OSError) as error:
                raise ValueError(f"step {self.step} is no checkpoint of a run ({error!r:.200})") from None
        self.shapes = {path: tuple(leaf.shape) for path, leaf in leaves.items()}

    @property
    def parts(self) -> set[str]:
        """The parts of the tree that were trained."""
        return {path.split("/")[0] for path in self.shapes}

    def assemble(self, shapes: Mapping[str, tuple[int, ...]], dtype: str) -> dict[str, Any]:
        """Returns the tree of the leaves `shapes`, cast to `dtype`, on one device.

        Raises:
            ValueError: a leaf that lacks, or has another shape.
        """
        for path, shape in shapes.items():
            if path not in self.shapes:
                raise ValueError(f"the checkpoint lacks {path}")
            if self.shapes[path] != shape:
                raise ValueError(f"{path} has shape {self.shapes[path]}, the config asks for {shape}")
        here = jax.sharding.SingleDeviceSharding(jax.devices()[0])
        leaves = {path: jax.ShapeDtypeStruct(shape, dtype, sharding=here) for path, shape in shapes.items()}
        wanted = {"params": nested(leaves)}
        arguments = ocp.checkpoint_utils.construct_restore_args(wanted)
        state = ocp.args.PyTreeRestore(wanted, restore_args=arguments, partial_restore=True)
        with self.manager() as manager:
            return manager.restore(self.step, args=ocp.args.Composite(state=state))["state"]["params"]

    def manager(self) -> ocp.CheckpointManager:
        """Opens the folder to read from it."""
        handlers = {"state": ocp.PyTreeCheckpointHandler(), "data": ocp.JsonCheckpointHandler()}
        options = ocp.CheckpointManagerOptions(create=False)
        return ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers)
