"""Sharding constraints inside the model, for programs that run on a mesh of devices.

Parameters are sharded by their logical axes, and XLA's partitioner propagates shardings from them to the computation.
At one point it needs a hint. A word embedding sharded along D gives activations sharded along D, and without a hint
that sharding propagates through all layers: every device computes all rows. So the embedding tables are replicated
before the lookup and its result is sharded by rows; the layers follow.

References: Xu et al., GSPMD, 2021, section 3 (propagation). Rajbhandari et al., ZeRO, 2020, section 5 (parameters are
gathered where they are used).
"""

from typing import Any

import jax
from jax import Array
from jax.sharding import PartitionSpec as P

from bert_jax.functional.mesh_axes import ROWS, is_partitioned


def replicate(tree) -> Any:
    """Returns the arrays replicated on every device of the current mesh; unchanged in other programs."""
    return jax.lax.with_sharding_constraint(tree, P()) if is_partitioned() else tree


def shard_rows(x: Array) -> Array:
    """Returns x [B, ...] with B sharded over the current mesh; unchanged in other programs."""
    return jax.lax.with_sharding_constraint(x, P(ROWS)) if is_partitioned() else x
