"""Over which devices a step is spread, and how.

A mesh has the axes `data` (rows of the batch), `fsdp` (rows too, and parameters split among the same devices) and
`tensor` (heads, inner layer, vocabulary). Each parameter's logical axes name the mesh axes it is split over; whatever
the optimizer keeps of a parameter is split the same way. XLA puts in the communication.

References: Xu et al., GSPMD, 2021. Rajbhandari et al., ZeRO, 2020 (fsdp). Shoeybi et al., Megatron-LM, 2019 (tensor).
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from bert_jax.models import logical_axes
from bert_jax.training.state import TrainState

ROWS = P(("data", "fsdp"))
RULES = {"vocabulary": "tensor", "heads": "tensor", "inner": "tensor", "hidden": "fsdp"}


def make_mesh(*, fsdp: int = 1, tensor: int = 1) -> Mesh:
    """Returns a mesh over all devices, `data` taking what `fsdp` and `tensor` leave.

    Raises:
        ValueError: the number of devices is not divisible by fsdp x tensor.
    """
    count = jax.device_count()
    if fsdp < 1 or tensor < 1 or count % (fsdp * tensor):
        raise ValueError(f"{count} devices cannot be divided into fsdp {fsdp} x tensor {tensor}")
    shape = (count // (fsdp * tensor), fsdp, tensor)
    return jax.make_mesh(shape, ("data", "fsdp", "tensor"), axis_types=(jax.sharding.AxisType.Auto,) * 3)


def check_batch(rows: int, mesh: Mesh, accumulate: int = 1) -> None:
    """Raises ValueError where a batch cannot be spread evenly over the mesh in `accumulate` parts."""
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    if rows % (shards * accumulate):
        raise ValueError(f"a batch of {rows} rows cannot be divided over {shards} devices x {accumulate} micro-batches")


def shardings(tree, mesh: Mesh) -> Any:
    """Returns a NamedSharding for each leaf of a parameter tree, a `TrainState` or their shapes.

    An axis whose length the devices do not divide stays whole; what is no parameter is on every device.
    """

    def sharding(axes: tuple[str, ...], leaf) -> NamedSharding:
        names = (RULES.get(axis) for axis in axes)
        fits = (name if name and leaf.shape[i] % mesh.shape[name] == 0 else None for i, name in enumerate(names))
        return NamedSharding(mesh, P(*fits))

    return jax.tree.map(lambda leaf, axes: sharding(axes, leaf), tree, logical_axes(tree))


def born_sharded(create: Callable[[Array], TrainState], key: Array, mesh: Mesh) -> TrainState:
    """Returns `create(key)`, each device making its own share only."""
    return jax.jit(create, out_shardings=shardings(jax.eval_shape(create, key), mesh))(key)


def compile_step(step: Callable, state: TrainState, mesh: Mesh) -> Callable:
    """Returns the jitted `(state, batch) -> (state, figures)`, which takes over the state's memory."""
    where = shardings(state, mesh)
    return jax.jit(
        partial(step, axis=None),
        in_shardings=(where, NamedSharding(mesh, ROWS)),
        out_shardings=(where, NamedSharding(mesh, P())),
        donate_argnums=0,
    )


def compile_evaluation(step: Callable, params, mesh: Mesh) -> Callable:
    """Returns the jitted `(params, batch) -> measures`."""
    return jax.jit(
        partial(step, axis=None),
        in_shardings=(shardings(params, mesh), NamedSharding(mesh, ROWS)),
        out_shardings=NamedSharding(mesh, P()),
    )


def place(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, Array]:
    """Lays this process's rows of a batch on its devices; together the processes' rows are the global batch."""
    rows = NamedSharding(mesh, ROWS)
    return {name: jax.make_array_from_process_local_data(rows, array) for name, array in batch.items()}
