"""Rows of a table by id and tokens by position, with gradients that are the same to the bit in every run.

The gradient of a table sums the gradients of all tokens with one id. A GPU adds them in the order in which its threads
arrive, and a sum of floating-point numbers depends on the order. Here the tokens are sorted by id and summed in a fixed
order. On CPUs XLA adds one after another already. A gradient has derivatives in both modes; the functions themselves
have none in forward mode.

Axes: B batch, T position, P selected positions, D hidden, V ids, M tokens, C tokens of a chunk.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import PartitionSpec as P

from bert_jax.functional.mesh_axes import ROWS, is_partitioned

CHUNK = 128  # tokens


def select(x: Array, positions: Array) -> Array:
    """Returns x [B, T, D] at `positions`, int [B, P], as [B, P, D]."""
    return _select(x.shape[1], x, positions)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _select(length: int, x: Array, positions: Array) -> Array:
    return jnp.take_along_axis(x, positions[..., None], axis=1)


def _select_forward(length: int, x: Array, positions: Array) -> tuple[Array, Array]:
    # Not `_select`, which has no derivative in forward mode: Hessian-vector products need one of this.
    return jnp.take_along_axis(x, positions[..., None], axis=1), positions


def _select_backward(length: int, positions: Array, gradient: Array):
    def added(positions: Array, gradient: Array) -> Array:
        # JAX's own gradient: its scatter knows that rows are independent, so a mesh does not gather them.
        zeros = jnp.zeros((len(gradient), length, gradient.shape[-1]), gradient.dtype)
        _, pull_back = jax.vjp(lambda x: jnp.take_along_axis(x, positions[..., None], axis=1), zeros)
        return pull_back(gradient)[0]

    x_gradient = jax.lax.platform_dependent(positions, gradient, cpu=added, default=partial(_spread, length))
    return x_gradient, np.zeros(positions.shape, jax.dtypes.float0)  # integers have no gradient


def _spread(length: int, positions: Array, gradient: Array) -> Array:
    """Returns zeros [B, T, D] with each row of `gradient` [B, P, D] added at its position, by a matrix product."""
    one_hot = jax.nn.one_hot(positions, length, dtype=gradient.dtype)  # [B, P, T]
    return jnp.einsum("BPT,BPD->BTD", one_hot, gradient, precision=jax.lax.Precision.HIGHEST)


_select.defvjp(_select_forward, _select_backward)


def lookup(table: Array, ids: Array) -> Array:
    """Returns table[ids]: [..., D] for a table [V, D] and integer ids within it."""
    return _lookup(table.shape[0], table, ids)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _lookup(size: int, table: Array, ids: Array) -> Array:
    return table[ids]


def _forward(size: int, table: Array, ids: Array) -> tuple[Array, Array]:
    return table[ids], ids


def _backward(size: int, ids: Array, gradient: Array):
    def added(ids: Array, gradient: Array) -> Array:
        return jnp.zeros((size, gradient.shape[-1]), gradient.dtype).at[ids].add(gradient)

    table_gradient = jax.lax.platform_dependent(ids, gradient, cpu=added, default=partial(_summed, size))
    return table_gradient, np.zeros(ids.shape, jax.dtypes.float0)  # integers have no gradient


def _summed(size: int, ids: Array, gradient: Array) -> Array:
    """Returns the gradient of a table in a fixed order of additions; on a mesh each device sums its own rows first."""

    def local(ids: Array, gradient: Array) -> Array:
        return sum_by_id(ids.reshape(-1), gradient.reshape(-1, gradient.shape[-1]), size)

    if not is_partitioned():
        return local(ids, gradient)
    of_all = jax.shard_map(
        lambda *shards: jax.lax.psum(local(*shards), ROWS), in_specs=P(ROWS), out_specs=P(), check_vma=False
    )
    return of_all(ids, gradient)


_lookup.defvjp(_forward, _backward)


def sum_by_id(ids: Array, rows: Array, size: int) -> Array:
    """Returns for each id the sum of its rows, [V, D], for ids [M] and rows [M, D]; V = `size`.

    The sorted rows are divided into chunks. A product with a matrix of zeros and ones sums within each chunk. An id
    that continues in further chunks has a sum in each, and those sums are added in the same way. With chunks of three:

        ids            2 2 5   5 5 5   5 7 7
        first of a sum *   *   *       * *
        continues              *       *
    """
    M, D = rows.shape
    padding = -M % CHUNK
    ids = jnp.pad(ids, (0, padding), constant_values=size)
    rows = jnp.pad(rows, ((0, padding), (0, 0)))
    order = jnp.argsort(ids)
    ids = ids[order].reshape(-1, CHUNK)  # [M / C, C]
    rows = rows[order].reshape(-1, CHUNK, D)
    product = partial(jnp.einsum, precision=jax.lax.Precision.HIGHEST)

    sums = product("mij,mjd->mid", (ids[:, :, None] == ids[:, None, :]).astype(rows.dtype), rows)  # [M / C, C, D]
    before = jnp.concatenate([jnp.full((1,), -1, ids.dtype), ids.reshape(-1)[:-1]]).reshape(ids.shape)
    table = _set_rows(
        jnp.zeros((size, D), rows.dtype), ids.reshape(-1), sums.reshape(-1, D), (ids != before).reshape(-1)
    )

    continued = ids[:, 0] == before[:, 0]  # [M / C]
    same = continued[:, None] & continued[None, :] & (ids[:, :1] == ids[None, :, 0])
    further = product("mn,nd->md", same.astype(rows.dtype), sums[:, 0])
    is_first = continued & (jnp.argmax(same, axis=1) == jnp.arange(len(same)))
    return table + _set_rows(jnp.zeros_like(table), ids[:, 0], further, is_first)


def _set_rows(table: Array, ids: Array, rows: Array, chosen: Array) -> Array:
    """Returns the table with the chosen rows written at their ids, which are unique among them; outside = dropped."""
    nowhere = len(table) + jnp.arange(len(ids), dtype=ids.dtype)
    return table.at[jnp.where(chosen, ids, nowhere)].set(rows, mode="drop", unique_indices=True)
