"""The axes of a device mesh, and the two kinds of programs over one.

A program that XLA partitions (`jax.jit`) is written for global arrays. A mapped program (`jax.shard_map`, `jax.pmap`)
is written for one device: its arrays are shards, and row 0 is the first row of the device's shard. Example: of 8 rows
on 4 devices, a mapped program sees 2 rows, and on device 3 the first of them is row 6 of the batch.
"""

import jax
from jax import Array

ROWS = ("data", "fsdp")  # the mesh axes that shard rows
HEADS = "tensor"  # the mesh axis that shards heads


def is_partitioned() -> bool:
    """Returns whether the program being traced is one that XLA partitions over a mesh with the axes `ROWS`."""
    mesh = jax.sharding.get_abstract_mesh()
    return set(ROWS) <= set(mesh.axis_names) and not set(ROWS) & set(mesh.manual_axes)


def first_row(rows: int) -> Array | int:
    """Returns the index in the global batch of row 0 of an array with `rows` rows; 0 unless the program is mapped."""
    mapped = tuple(axis for axis in ROWS if axis in jax.sharding.get_abstract_mesh().manual_axes)
    return jax.lax.axis_index(mapped) * rows if mapped else 0
