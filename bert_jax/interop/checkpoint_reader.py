"""Reads the parameters from a run's Orbax checkpoint, without the optimizer's state."""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from bert_jax.interop.assembly import require_finite
from bert_jax.interop.names import flatten, unflatten
from bert_jax.training.runs.manifests import check_manifest, checkpoint_files
from bert_jax.training.runs.orbax_noise import filter_orbax_logs, release_frames
from bert_jax.training.runs.saved_steps import newest_step, saved_steps

ATTEMPTS = 10  # to read the newest checkpoint of a run that is saving
MAX_EXPANSION = 100  # bytes of memory per byte of file; trained parameters hardly compress, zeros do


class CheckpointReader:
    """A checkpoint of a run; `assemble` reads its parameters.

    Args:
        folder: RUN/checkpoints.
        step: the checkpoint's step; default: the newest.

    Raises:
        FileNotFoundError: there is no checkpoint, or none of this step.
        ValueError: it is damaged, or not a checkpoint of a run.
    """

    def __init__(self, folder: str | Path, step: int | None = None) -> None:
        self.folder = Path(folder).resolve()
        found = newest_step(folder) if step is None else step
        if found is None:
            raise FileNotFoundError(f"{folder}: there is no checkpoint yet")
        self.step = found
        self.path = self.folder / str(found)
        if not self.path.is_dir():
            steps = ", ".join(map(str, saved_steps(folder))) or "none"
            raise FileNotFoundError(f"{folder}: there is no checkpoint of step {found}; those saved: {steps}")
        check_manifest(self.path)
        with self._manager() as manager:
            leaves = flatten(manager.item_metadata(self.step)["state"]["params"])
            self.shapes = {path: tuple(leaf.shape) for path, leaf in leaves}

    @property
    def parts(self) -> set[str]:
        """The parts of the model that were trained."""
        return {path.split("/")[0] for path in self.shapes}

    def assemble(self, shapes: Mapping[str, tuple[int, ...]], dtype: str) -> dict[str, Any]:
        """Returns the tree of the leaves in `shapes`, cast to `dtype`, on one device.

        Raises:
            ValueError: a leaf that is missing or has another shape, or a small file that claims to be a large model.
        """
        for path, shape in shapes.items():
            if path not in self.shapes:
                raise ValueError(f"missing from the checkpoint: {path}")
            if self.shapes[path] != shape:
                raise ValueError(f"{path} has shape {self.shapes[path]}, the config requires {shape}")
        required = 4 * sum(map(math.prod, shapes.values()))
        stored = sum(path.stat().st_size for path in checkpoint_files(self.path))
        if required > MAX_EXPANSION * stored:
            raise ValueError(f"the checkpoint's {stored:,} bytes claim to be {required:,}")
        sharding = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
        leaves = {path: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding) for path, shape in shapes.items()}
        target = {"params": unflatten(leaves)}
        restore_args = ocp.checkpoint_utils.construct_restore_args(target)
        state = ocp.args.PyTreeRestore(target, restore_args=restore_args, partial_restore=True)
        with self._manager() as manager:
            params = manager.restore(self.step, args=ocp.args.Composite(state=state))["state"]["params"]
        for path, leaf in flatten(params):
            require_finite(path, np.asarray(leaf))
        return params

    @contextmanager
    def _manager(self) -> Iterator[ocp.CheckpointManager]:
        """Opens the folder for reading in this process only; any error of Orbax becomes one line."""
        filter_orbax_logs()
        handlers = {"state": ocp.PyTreeCheckpointHandler(), "data": ocp.JsonCheckpointHandler()}
        process = jax.process_index()
        # Without this, Orbax would wait for the run's other processes, which are not reading.
        this_process = ocp.options.MultiprocessingOptions(process, {process}, f"reading in {process}")
        options = ocp.CheckpointManagerOptions(create=False, multiprocessing_options=this_process)
        try:
            with ocp.CheckpointManager(self.folder, options=options, item_handlers=handlers) as manager:
                yield manager
                return
        except Exception as error:
            reason = f"{error!r:.200}"
            release_frames(error)
        raise ValueError(f"step {self.step} is not a checkpoint of a run ({reason})")


def read_newest(folder: Path, read: Callable[[CheckpointReader], Any]) -> Any:
    """Returns what `read` returns for the newest checkpoint of a run, which may go on meanwhile.

    The run deletes old checkpoints. One that cannot be read although there is a newer one was deleted while it was
    read, so the newer one is read instead.
    """
    for _ in range(ATTEMPTS):
        step = newest_step(folder)
        try:
            return read(CheckpointReader(folder, step))
        except (OSError, ValueError):
            if newest_step(folder) == step:
                raise
    return read(CheckpointReader(folder))
