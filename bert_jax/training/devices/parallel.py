"""How a step is spread over devices: two layouts of one pure step, with the same interface.

`MeshLayout` is `jax.jit` over a mesh with the axes `data` (splits the rows of the batch), `fsdp` (splits rows and
parameters over the same devices) and `tensor` (splits heads, the inner layer and the vocabulary). The logical axes of a
parameter decide over which mesh axes it is split (`RULES`); its optimizer state is split the same way.

Where only rows are split, the step is mapped over the devices (`jax.shard_map`) and sums the gradients itself: once, in
float32, after the last micro-batch. XLA would sum them after each micro-batch, in bfloat16 where it can. Where
parameters are split too, XLA inserts the communication: with fsdp a device cannot keep whole gradients until the last
micro-batch, because it has memory for its shard only.

`PmapLayout` is `jax.pmap` over the axis `data`: each device holds the whole state and a slice of the rows, and the step
sums over the devices itself.

A state is the same tree of global arrays in both, so each reads the checkpoints of the other. Devices may belong to
several processes; each process brings its own rows.

References: Xu et al., GSPMD, 2021. Rajbhandari et al., ZeRO, 2020 (fsdp). Shoeybi et al., Megatron-LM, 2019 (tensor).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from bert_jax.functional.mesh_axes import ROWS
from bert_jax.functional.random_bits import skips_rows
from bert_jax.messages import counted
from bert_jax.models import logical_axes
from bert_jax.training.state import TrainState

LAYOUTS = ("mesh", "pmap")
RULES = {  # logical axis: mesh axis
    "vocabulary": "tensor",
    "heads": "tensor",
    "inner": "tensor",
    "hidden": "fsdp",
    "embedding": "fsdp",
}


def make_layout(
    parallel: str = "mesh", *, fsdp: int = 1, tensor: int = 1, devices: Sequence[Any] | None = None
) -> "Layout":
    """Returns the layout `mesh` or `pmap` over `devices`; by default all devices of all processes.

    Raises:
        ValueError: the number of devices is not divisible by fsdp x tensor.
    """
    if parallel not in LAYOUTS:
        raise ValueError(f"`parallel` must be one of {', '.join(LAYOUTS)}; got {parallel!r}")
    if parallel == "mesh":
        return MeshLayout(make_mesh(fsdp=fsdp, tensor=tensor, devices=devices))
    if (fsdp, tensor) != (1, 1):
        raise ValueError(f"`parallel=pmap` splits only rows: `fsdp={fsdp}` x `tensor={tensor}` needs `parallel=mesh`")
    if devices is None:  # in the order in which pmap numbers them
        devices = sorted(jax.devices(), key=lambda device: (device.process_index, device.id))
    return PmapLayout(Mesh(np.array(devices), ("data",), axis_types=(jax.sharding.AxisType.Auto,)))


def platform_of(mesh: Mesh) -> str:
    """Returns `cpu`, `gpu` or `tpu`: what the programs of a mesh are compiled for.

    The devices may be those of a topology (`jax.experimental.topologies`), which this machine does not have. So the
    backend of this process says nothing.
    """
    platform = mesh.devices.flat[0].platform
    return "gpu" if platform in ("cuda", "rocm") else platform


def make_mesh(*, fsdp: int = 1, tensor: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """Returns a mesh of data x fsdp x tensor, with data = number of devices / (fsdp x tensor).

    Raises:
        ValueError: the number of devices is not divisible by fsdp x tensor.
    """
    count = jax.device_count() if devices is None else len(devices)
    if fsdp < 1 or tensor < 1 or count % (fsdp * tensor):
        raise ValueError(f"{counted(count, 'device')} cannot be divided into `fsdp={fsdp}` x `tensor={tensor}`")
    shape = (count // (fsdp * tensor), fsdp, tensor)
    types = (jax.sharding.AxisType.Auto,) * 3
    return jax.make_mesh(shape, ("data", "fsdp", "tensor"), axis_types=types, devices=devices)


@dataclass(frozen=True)
class MeshLayout:
    """`jax.jit` over a mesh of data x fsdp x tensor."""

    mesh: Mesh

    @property
    def batch_sharding(self) -> NamedSharding:
        """The sharding of a batch: its rows are split over data and fsdp."""
        return NamedSharding(self.mesh, P(ROWS))

    @property
    def shards(self) -> int:
        """The number of shards that the rows are split into."""
        return self.mesh.shape["data"] * self.mesh.shape["fsdp"]

    def shardings(self, tree) -> Any:
        """Returns the shardings of parameters or a state, or of their shapes: each device holds a shard."""
        return tree_shardings(tree, self.mesh)

    def create(self, make: Callable[[Array], TrainState], key: Array) -> TrainState:
        """Returns `make(key)`; each device computes only its own shards."""
        return jax.jit(make, out_shardings=self.shardings(jax.eval_shape(make, key)))(key)

    def compile_step(self, step: Callable, state: TrainState) -> Callable:
        """Returns the jitted `(state, batch) -> (state, metrics)`; the state is donated.

        Args:
            step: (state, batch, axis) -> (state, metrics).
            state: the state, or its shapes.
        """
        shardings = self.shardings(state)
        # Mapped devices give the dropout masks of one device only if a key can skip the rows of the devices before.
        is_mapped = 1 < self.mesh.size == self.mesh.shape["data"] and skips_rows(state.key)
        return jax.jit(
            self._map_rows(step) if is_mapped else self._with_mesh(step),
            in_shardings=(shardings, self.batch_sharding),
            out_shardings=(shardings, NamedSharding(self.mesh, P())),
            donate_argnums=0,
        )

    def compile_evaluation(self, step: Callable, params) -> Callable:
        """Returns the jitted `(params, batch) -> metrics` of a step (params, batch, axis) -> metrics."""
        return jax.jit(
            self._with_mesh(step),
            in_shardings=(self.shardings(params), self.batch_sharding),
            out_shardings=NamedSharding(self.mesh, P()),
        )

    def _map_rows(self, step: Callable) -> Callable:
        """Returns the step mapped over the devices, each of which holds the whole state and its own rows."""
        return jax.shard_map(
            partial(step, axis=ROWS), mesh=self.mesh, in_specs=(P(), P(ROWS)), out_specs=P(), check_vma=False
        )

    def _with_mesh(self, step: Callable) -> Callable:
        """Returns the step with the mesh set, because the model's sharding constraints need it."""

        def call(state, batch):
            with jax.sharding.use_abstract_mesh(self.mesh.abstract_mesh):
                return step(state, batch, axis=None)

        return call

    def device_put(self, batch: Mapping[str, np.ndarray]) -> dict[str, Array]:
        """Copies this process's rows of a batch to its devices; the rows of all processes form the global batch."""
        return {
            name: jax.make_array_from_process_local_data(self.batch_sharding, array) for name, array in batch.items()
        }

    def device_put_whole(self, batch: Mapping[str, np.ndarray]) -> dict[str, Array]:
        """Copies a global batch, which every process has, to the devices of all processes."""
        return {name: put_whole(array, self.batch_sharding) for name, array in batch.items()}

    def shapes(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns the shapes of a global batch, as `lower` of a compiled step takes them."""
        return {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self.batch_sharding) for name, x in batch.items()}


@dataclass(frozen=True)
class PmapLayout:
    """`jax.pmap` over the only axis, `data`, of a mesh."""

    mesh: Mesh

    @property
    def batch_sharding(self) -> NamedSharding:
        """The sharding of a batch [devices, rows per device, ...]."""
        return NamedSharding(self.mesh, P("data"))

    @property
    def shards(self) -> int:
        """The number of shards that the rows are split into."""
        return self.mesh.size

    def shardings(self, tree) -> Any:
        """Returns the shardings of parameters or a state, or of their shapes: replicated on every device."""
        return jax.tree.map(lambda _: NamedSharding(self.mesh, P()), tree)

    def create(self, make: Callable[[Array], TrainState], key: Array) -> TrainState:
        """Returns `make(key)`, replicated on every device."""
        return jax.jit(make, out_shardings=NamedSharding(self.mesh, P()))(key)

    def compile_step(self, step: Callable, state: TrainState) -> Callable:
        """Returns the mapped `(state, batch) -> (state, metrics)`; the state is donated.

        Args:
            step: (state, batch, axis) -> (state, metrics), which sums over the axis itself.
        """
        return self._pmap(step, donate_argnums=0)

    def compile_evaluation(self, step: Callable, params) -> Callable:
        """Returns the mapped `(params, batch) -> metrics` of a step (params, batch, axis) -> metrics."""
        return self._pmap(step)

    def _pmap(self, step: Callable, **options: Any) -> Callable:
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
        # The results of pmap are arrays on this process's devices only; they are the same in all processes.
        return lambda *inputs: multihost_utils.host_local_array_to_global_array(call(*inputs), self.mesh, P())

    def device_put(self, batch: Mapping[str, np.ndarray]) -> dict[str, Array]:
        """Copies this process's rows of a batch to its devices; the rows of all processes form the global batch."""
        local = self.mesh.local_mesh.size
        return {
            name: jax.make_array_from_process_local_data(self.batch_sharding, x.reshape(local, -1, *x.shape[1:]))
            for name, x in batch.items()
        }

    def device_put_whole(self, batch: Mapping[str, np.ndarray]) -> dict[str, Array]:
        """Copies a global batch, which every process has, to the devices of all processes."""
        return {
            name: put_whole(x.reshape(self.shards, -1, *x.shape[1:]), self.batch_sharding) for name, x in batch.items()
        }

    def shapes(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.ShapeDtypeStruct]:
        """Returns the shapes of a global batch, as `lower` of a compiled step takes them."""
        return {
            name: jax.ShapeDtypeStruct(
                (self.shards, len(x) // self.shards, *x.shape[1:]), x.dtype, sharding=self.batch_sharding
            )
            for name, x in batch.items()
        }


Layout = MeshLayout | PmapLayout


def put_whole(array: np.ndarray | Array, sharding: NamedSharding) -> Array:
    """Copies an array that every process has whole to the devices of all processes."""
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def tree_shardings(tree, mesh: Mesh) -> Any:
    """Returns a NamedSharding for each leaf of a parameter tree, a `TrainState` or their shapes.

    Example: on 8 devices as data 2 x fsdp 2 x tensor 2, `encoder/feed_forward/up/kernel` of BERT base has the logical
    axes (layers, hidden, inner) and the shape [12, 768, 3072]. RULES give P(None, "fsdp", "tensor"), so each device
    holds [12, 384, 1536], and both devices along `data` hold the same. Its bias (layers, inner) [12, 3072] gets
    P(None, "tensor"): [12, 1536] on each device.

    An axis whose length is not divisible by the mesh axis is not split: a vocabulary of 30,523 with tensor 2 stays
    whole. Neither is an axis of K seeds in front of a parameter's own axes. Leaves that are no parameters, such as the
    step, are replicated.
    """

    def sharding(axes: tuple[str, ...], leaf) -> NamedSharding:
        leading = leaf.ndim - len(axes) if axes else 0  # 1 if the leaf has an axis of K seeds
        spec: list[str | None] = [None] * leading
        for axis, size in zip(axes, leaf.shape[leading:], strict=False):
            name = RULES.get(axis)
            spec.append(name if name and size % mesh.shape[name] == 0 else None)
        return NamedSharding(mesh, P(*spec))

    return jax.tree.map(lambda leaf, axes: sharding(axes, leaf), tree, logical_axes(tree))


def check_batch(rows: int, layout: Layout, accumulate: int = 1) -> None:
    """Raises ValueError unless a batch can be split evenly over the layout's shards and `accumulate` micro-batches."""
    if rows % (layout.shards * accumulate):
        parts = f"{layout.shards} groups of devices x {accumulate} micro-batches"
        raise ValueError(f"a batch of {rows} rows cannot be divided over {parts}")


def micro_batches(batch: Mapping[str, np.ndarray], count: int) -> Iterator[dict[str, np.ndarray]]:
    """Yields a process's rows of a batch in `count` parts, each of which needs the memory of a micro-batch.

    Example: 6 rows in 2 parts are the rows 0, 2, 4 and 1, 3, 5.
    """
    for first in range(count):
        yield {name: array[first::count] for name, array in batch.items()}


def slice_to_read(layout: Layout) -> tuple[int, int]:
    """Returns which slice of each global batch this process reads, as (index, count).

    Processes whose devices hold the same rows, because the `tensor` axis spans them, read the same slice. Example: 4
    row shards, held by the processes 0, 0, 1, 1 give (0, 2) in process 0 and (1, 2) in process 1.

    Raises:
        ValueError: two processes share some, but not all, of their rows.
    """
    shards_of: dict[int, set[int]] = {}  # by process
    for device, (rows,) in layout.batch_sharding.devices_indices_map((layout.shards,)).items():
        shards_of.setdefault(device.process_index, set()).add(rows.start or 0)
    slices = sorted({tuple(sorted(shards)) for shards in shards_of.values()})
    if sum(map(len, slices)) != layout.shards or len(set(map(len, slices))) != 1:
        raise ValueError(
            f"the devices of {jax.process_count()} processes hold partly overlapping rows: choose another `tensor`"
        )
    return slices.index(tuple(sorted(shards_of[jax.process_index()]))), len(slices)
