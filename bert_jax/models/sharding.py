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

from bert_jax.functional.fused_attention import ROWS


def replicate(tree) -> Any:
    """Returns the arrays replicated on every device of the current mesh; unchanged without a mesh."""
    return jax.lax.with_sharding_constraint(tree, P()) if _has_mesh() else tree


def shard_rows(x: Array) -> Array:
    """Returns x [B, ...] with B sharded over the current mesh; unchanged without a mesh."""
    return jax.lax.with_sharding_constraint(x, P(ROWS)) if _has_mesh() else x


def _has_mesh() -> bool:
    return set(ROWS) <= set(jax.sharding.get_abstract_mesh().axis_names)
