"""Over which devices a step is spread, and how: two layouts of one pure step, with one interface.

`MeshLayout` is `jax.jit` over a mesh with the axes `data` (rows of the batch), `fsdp` (rows too, and parameters split
among the same devices) and `tensor` (heads, inner layer, vocabulary). Each parameter's logical axes name the mesh axes
it is split over; whatever the optimizer keeps of a parameter is split the same way. XLA puts in the communication.

`PmapLayout` is `jax.pmap` over the axis `data`: every device holds the whole state and some of the rows, and the step
itself adds up the devices.

To a caller they are the same: a state is the same tree of global arrays under both, so that a checkpoint of one is
read by the other. Devices may belong to several processes, each of which brings its own rows.

References: Xu et al., GSPMD, 2021. Rajbhandari et al., ZeRO, 2020 (fsdp). Shoeybi et al., Megatron-LM, 2019 (tensor).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from bert_jax.models import logical_axes
from bert_jax.models.sharding import ROWS
from bert_jax.training.state import TrainState

LAYOUTS = ("mesh", "pmap")
RULES = {"vocabulary": "tensor", "heads": "tensor", "inner": "tensor", "hidden": "fsdp"}


def make_layout(
    name: str = "mesh", *, fsdp: int = 1, tensor: int = 1, devices: Sequence[Any] | None = None
) -> "Layout":
    """Returns the layout `mesh` or `pmap` over `devices`; default: all there are, those of other processes too.

    Raises:
        ValueError: the devices cannot be divided so.
    """
    if name not in LAYOUTS:
        raise ValueError(f"parallel must be one of {', '.join(LAYOUTS)}; got {name!r}")
    if name == "mesh":
        return MeshLayout(make_mesh(fsdp=fsdp, tensor=tensor, devices=devices))
    if (fsdp, tensor) != (1, 1):
        raise ValueError(f"pmap splits nothing but rows: fsdp {fsdp} x tensor {tensor} asks for parallel mesh")
    # pmap counts the devices process by process.
    devices = (
        sorted(jax.devices(), key=lambda device: (device.process_index, device.id)) if devices is None else devices
    )
    return PmapLayout(Mesh(np.array(devices), ("data",), axis_types=(jax.sharding.AxisType.Auto,)))


def make_mesh(*, fsdp: int = 1, tensor: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """Returns a mesh over the devices, `data` taking what `fsdp` and `tensor` leave.

    Raises:
        ValueError: the number of devices is not divisible by fsdp x tensor.
    """
    count = jax.device_count() if devices is None else len(devices)
    if fsdp < 1 or tensor < 1 or count % (fsdp * tensor):
        raise ValueError(f"{count} devices cannot be divided into fsdp {fsdp} x tensor {tensor}")
    shape = (count // (fsdp * tensor), fsdp, tensor)
    types = (jax.sharding.AxisType.Auto,) * 3
    return jax.make_mesh(shape, ("data", "fsdp", "tensor"), axis_types=types, devices=devices)


@dataclass(frozen=True)
class MeshLayout:
    """`jax.jit` over a mesh of data x fsdp x tensor."""

    mesh: Mesh

    @property
    def rows(self) -> NamedSharding:
        """How the rows of a batch lie."""
        return NamedSharding(self.mesh, P(ROWS))

    @property
    def shards(self) -> int:
        """The number of parts that the rows are divided into."""
        return self.mesh.shape["data"] * self.mesh.shape["fsdp"]

    @property
    def devices_in_a_program(self) -> int:
        """How many devices one compiled program runs on."""
        return self.mesh.size

    def shardings(self, tree) -> Any:
        """Returns how parameters, or a state, or their shapes, lie: each device has its share."""
        return tree_shardings(tree, self.mesh)

    def create(self, make: Callable[[Array], TrainState], key: Array) -> TrainState:
        """Returns `make(key)`, each device making its own share only."""
        return jax.jit(make, out_shardings=self.shardings(jax.eval_shape(make, key)))(key)

    def compile_step(self, step: Callable, state: TrainState) -> Callable:
        """Returns the jitted `(state, batch) -> (state, figures)`, which takes over the state's memory.

        Args:
            step: (state, batch, axis) -> (state, figures).
            state: the state, or its shapes.
        """
        shardings = self.shardings(state)
        return jax.jit(
            self.within(step),
            in_shardings=(shardings, self.rows),
            out_shardings=(shardings, NamedSharding(self.mesh, P())),
            donate_argnums=0,
        )

    def compile_evaluation(self, step: Callable, params) -> Callable:
        """Returns the jitted `(params, batch) -> measures` of a step (params, batch, axis) -> measures."""
        return jax.jit(
            self.within(step),
            in_shardings=(self.shardings(params), self.rows),
            out_shardings=NamedSharding(self.mesh, P()),
        )

    def within(self, step: Callable) -> Callable:
        """Returns the step with the mesh set for the model to see."""

        def call(state, batch):
            with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
                return step(state, batch, axis=None)

        return call

    def device_put(self, batch: Mapping[str, np.ndarray]) -> dict[str, Array]:
        """Lays this process's rows of a batch on its devices; together the processes' rows are the global batch."""
        return {name: jax.make_array_from_process_local_data(self.rows, array) for name, array in batch.items()}

    def shapes(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns the shapes of a global batch as a compiled step takes them."""
        return {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self.rows) for name, x in batch.items()}


@dataclass(frozen=True)
class PmapLayout:
    """`jax.pmap` over the axis `data` of a mesh that has no other."""

    mesh: Mesh

    @property
    def rows(self) -> NamedSharding:
        """How the rows of a batch lie, after those of one device have an axis to themselves."""
        return NamedSharding(self.mesh, P("data"))

    @property
    def shards(self) -> int:
        """The number of parts that the rows are divided into."""
        return self.mesh.size

    @property
    def devices_in_a_program(self) -> int:
        """How many devices one compiled program runs on: every device has one of its own."""
        return 1

    def shardings(self, tree) -> Any:
        """Returns how parameters, or a state, or their shapes, lie: whole on every device."""
        return jax.tree.map(lambda _: NamedSharding(self.mesh, P()), tree)

    def create(self, make: Callable[[Array], TrainState], key: Array) -> TrainState:
        """Returns `make(key)`, whole on every device."""
        return jax.jit(make, out_shardings=NamedSharding(self.mesh, P()))(key)

    def compile_step(self, step: Callable, state: TrainState) -> Callable:
        """Returns the mapped `(state, batch) -> (state, figures)`, which takes over the state's memory.

        Args:
            step: (state, batch, axis) -> (state, figures), which adds up the devices of the axis itself.
        """
        return self.mapped(step, donate_argnums=0)

    def compile_evaluation(self, step: Callable, params) -> Callable:
        """Returns the mapped `(params, batch) -> measures` of a step (params, batch, axis) -> measures."""
        return self.mapped(step)

    def mapped(self, step: Callable, **options: Any) -> Callable:
        call = jax.pmap(
            partial(step, axis="data"),
            axis_name="data",
            in_axes=(None, 0),
            out_axes=None,
            axis_size=self.mesh.size,
            devices=list(self.mesh.devices.flat),
            **options,
        )
        if jax.process_count() == 1:
            return call
        # What comes out of pmap lies on this process's devices alone, as far as the arrays know.
        return lambda *inputs: multihost_utils.host_local_array_to_global_array(call(*inputs), self.mesh, P())

    def device_put(self, batch: Mapping[str, np.ndarray]) -> dict[str, Array]:
        """Lays this process's rows of a batch on its devices; together the processes' rows are the global batch."""
        local = self.mesh.local_mesh.size
        return {
            name: jax.make_array_from_process_local_data(self.rows, x.reshape(local, -1, *x.shape[1:]))
            for name, x in batch.items()
        }

    def shapes(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns the shapes of a global batch as a compiled step takes them."""
        return {
            name: jax.ShapeDtypeStruct((self.shards, len(x) // self.shards, *x.shape[1:]), x.dtype, sharding=self.rows)
            for name, x in batch.items()
        }


Layout = MeshLayout | PmapLayout


def tree_shardings(tree, mesh: Mesh) -> Any:
    """Returns a NamedSharding for each leaf of a parameter tree, a `TrainState` or their shapes.

    An axis whose length the devices do not divide stays whole, and so does one of seeds in front of a parameter's own;
    what is no parameter is on every device.
    """

    def sharding(axes: tuple[str, ...], leaf) -> NamedSharding:
        names = (RULES.get(axis) for axis in axes)
        seeds = leaf.ndim - len(axes) if axes else 0
        sizes = zip(names, leaf.shape[seeds:], strict=False)
        fits = (name if name and size % mesh.shape[name] == 0 else None for name, size in sizes)
        return NamedSharding(mesh, P(*[None] * seeds, *fits))

    return jax.tree.map(lambda leaf, axes: sharding(axes, leaf), tree, logical_axes(tree))


def check_batch(rows: int, layout: Layout, accumulate: int = 1) -> None:
    """Raises ValueError where a batch cannot be spread evenly over the layout in `accumulate` parts."""
    if rows % (layout.shards * accumulate):
        parts = f"{layout.shards} groups of devices x {accumulate} micro-batches"
        raise ValueError(f"a batch of {rows} rows cannot be divided over {parts}")


def slice_to_read(layout: Layout) -> tuple[int, int]:
    """Returns which slice of every global batch this process brings, as (index, count).

    Processes whose devices hold the same rows (a `tensor` axis that reaches over several) bring the same slice.

    Raises:
        ValueError: processes share some of their rows and not others.
    """
    held: dict[int, set[int]] = {}
    indices = layout.rows.devices_indices_map((layout.shards,))
    for device, (part,) in indices.items():
        held.setdefault(device.process_index, set()).add(part.start or 0)
    slices = sorted({tuple(sorted(parts)) for parts in held.values()})
    if sum(map(len, slices)) != layout.shards or len(set(map(len, slices))) != 1:
        raise ValueError(
            f"the devices of {jax.process_count()} processes hold rows that overlap in part: choose another --tensor"
        )
    return slices.index(tuple(sorted(held[jax.process_index()]))), len(slices)
