"""What the model itself says of how its arrays lie on a mesh of devices, where one is set.

Parameters are split by their logical axes, and XLA spreads the computation accordingly. In one place it needs to be
told: a word embedding whose hidden axis is split gives vectors split the same way, and left to itself XLA goes on like
that through all layers, every device computing all rows. So the tables are replicated before they are read, and what is
read from them is split by rows; the layers follow.

References: Xu et al., GSPMD, 2021, section 3 (how annotations spread). Rajbhandari et al., ZeRO, 2020, section 5
(parameters are gathered where they are used).
"""

from typing import Any

import jax
from jax import Array
from jax.sharding import PartitionSpec as P

ROWS = ("data", "fsdp")  # the axes of a mesh over which rows are split


def replicate(tree) -> Any:
    """Returns the arrays whole on every device of the mesh that is set; as they are where none is."""
    return jax.lax.with_sharding_constraint(tree, P()) if mesh_is_set() else tree


def shard_rows(x: Array) -> Array:
    """Returns x [B, ...], each device of the mesh that is set holding some rows; as it is where none is."""
    return jax.lax.with_sharding_constraint(x, P(ROWS)) if mesh_is_set() else x


def mesh_is_set() -> bool:
    return set(ROWS) <= set(jax.sharding.get_abstract_mesh().axis_names)
