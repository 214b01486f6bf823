"""The parameters in a checkpoint of a run, which Orbax wrote, without the optimizer's state beside them."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import orbax.checkpoint as ocp

from bert_jax.interop.names import nested, walk
from bert_jax.training.runs.checkpoints import newest_step
from bert_jax.training.runs.manifests import check_seal, files
from bert_jax.training.runs.orbax_noise import filter_logs, release

EXPANSION = 100  # bytes of memory for a byte of file; what was trained takes hardly more than one


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
        self.step, self.path = found, self.folder / str(found)
        if not self.path.is_dir():
            raise FileNotFoundError(f"{folder}: no checkpoint of step {found} here")
        check_seal(self.path)
        with self.manager() as manager:
            leaves = dict(walk(manager.item_metadata(self.step)["state"]["params"]))
            self.shapes = {path: tuple(leaf.shape) for path, leaf in leaves.items()}

    @property
    def parts(self) -> set[str]:
        """The parts of the tree that were trained."""
        return {path.split("/")[0] for path in self.shapes}

    def assemble(self, shapes: Mapping[str, tuple[int, ...]], dtype: str) -> dict[str, Any]:
        """Returns the tree of the leaves `shapes`, cast to `dtype`, on one device.

        Raises:
            ValueError: a leaf that lacks or has another shape, or a small file that claims to be a large model.
        """
        for path, shape in shapes.items():
            if path not in self.shapes:
                raise ValueError(f"the checkpoint lacks {path}")
            if self.shapes[path] != shape:
                raise ValueError(f"{path} has shape {self.shapes[path]}, the config asks for {shape}")
        asked, held = 4 * sum(map(math.prod, shapes.values())), sum(path.stat().st_size for path in files(self.path))
        if asked > EXPANSION * held:
            raise ValueError(f"the checkpoint's {held:,} bytes say that they are {asked:,}")
        here = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        leaves = {path: jax.ShapeDtypeStruct(shape, dtype, sharding=here) for path, shape in shapes.items()}
        wanted = {"params": nested(leaves)}
        arguments = ocp.checkpoint_utils.construct_restore_args(wanted)
        state = ocp.args.PyTreeRestore(wanted, restore_args=arguments, partial_restore=True)
        with self.manager() as manager:
            return manager.restore(self.step, args=ocp.args.Composite(state=state))["state"]["params"]

    @contextmanager
    def manager(self) -> Iterator[ocp.CheckpointManager]:
        """Opens the folder to read from it in this process alone; whatever Orbax dies of in there becomes one line."""
        filter_logs()
        handlers = {"state": ocp.PyTreeCheckpointHandler(), "data": ocp.JsonCheckpointHandler()}
        own = jax.process_index()
        alone = ocp.options.MultiprocessingOptions(own, {own}, f"reading in {own}")
        options = ocp.CheckpointManagerOptions(create=False, multiprocessing_options=alone)
        try:
            with ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers) as manager:
                yield manager
                return
        except Exception as error:
            why = f"{error!r:.200}"
            release(error)
        raise ValueError(f"step {self.step} is no checkpoint of a run ({why})")
