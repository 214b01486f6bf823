"""The gradient of a table is the sum over the tokens with each id, in a fixed order."""

import re
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.functional import lookup as lookups
from bert_jax.functional.lookup import lookup, select, sum_by_id
from bert_jax.training.devices.parallel import make_mesh

SAME_IN_FLOAT32 = 1e-5
V, D = 11, 5


def rows_and_sums(ids, seed: int = 0):
    rows = np.random.default_rng(seed).standard_normal((*np.shape(ids), D)).astype(np.float32)
    sums = np.zeros((V, D))
    np.add.at(sums, np.ravel(ids), rows.reshape(-1, D))
    return jnp.asarray(rows), sums


@pytest.mark.parametrize("ids", [
    [2, 2, 5, 5, 5, 5, 5, 7, 7],  # an id that continues in two chunks
    [0] * 14 + [10],  # an id of several whole chunks, and padding after it
    [5, 2, 7, 5, 5, 2, 5, 7, 5, 0],
    [4],
])  # fmt: skip
def test_rows_are_summed_by_id(ids, monkeypatch):
    monkeypatch.setattr(lookups, "CHUNK", 3)
    rows, sums = rows_and_sums(ids)
    np.testing.assert_allclose(sum_by_id(jnp.array(ids), rows, V), sums, atol=SAME_IN_FLOAT32)


def test_long_rows_of_random_ids_are_summed_by_id():
    ids = np.random.default_rng(1).geometric(0.3, 1013).clip(max=V) - 1
    rows, sums = rows_and_sums(ids)
    np.testing.assert_allclose(sum_by_id(jnp.asarray(ids), rows, V), sums, atol=10 * SAME_IN_FLOAT32)


def test_the_gradient_is_that_of_indexing():
    ids = np.random.default_rng(2).integers(0, V, (3, 7))
    weights, sums = rows_and_sums(ids)
    table = jnp.ones((V, D))
    gradient = jax.grad(lambda table: (lookup(table, jnp.asarray(ids)) * weights).sum())(table)
    np.testing.assert_array_equal(gradient, jax.grad(lambda table: (table[ids] * weights).sum())(table))
    np.testing.assert_allclose(gradient, sums, atol=SAME_IN_FLOAT32)


def test_accelerators_scatter_unique_rows_only():
    """A scatter of rows that repeat adds them on a GPU in the order in which its threads arrive."""
    ids = jnp.array([[1, 1, 2], [0, 2, 2]])

    def loss(table, x):
        return lookup(table, ids).sum() + select(x, ids).sum()

    traced = jax.jit(jax.grad(loss, argnums=(0, 1))).trace(jnp.ones((V, D)), jnp.ones((2, 7, D)))
    scatters = {}
    for platform in ("cuda", "cpu"):
        program = traced.lower(lowering_platforms=(platform,)).as_text()
        scatters[platform] = [
            unique == "true" for unique in re.findall(r"scatter.*?unique_indices = (\w+)", program, re.S)
        ]
    assert scatters["cuda"]
    assert all(scatters["cuda"])
    assert not all(scatters["cpu"])


def test_selected_positions_may_repeat():
    """The gradient on CPUs and the one on other devices are both the sum over the places of each position."""
    positions = jnp.array([[0, 2, 2, 2], [6, 1, 0, 6]])
    x, weights = (jax.random.normal(jax.random.key(seed), (2, size, D)) for seed, size in ((0, 7), (1, 4)))
    gradient = jax.grad(lambda x: (select(x, positions) * weights).sum())(x)
    np.testing.assert_array_equal(select(x, positions), jnp.stack([x[0][positions[0]], x[1][positions[1]]]))
    expected = np.zeros((2, 7, D))
    for row in range(2):
        np.add.at(expected[row], positions[row], weights[row])
    np.testing.assert_allclose(gradient, expected, atol=SAME_IN_FLOAT32)
    np.testing.assert_allclose(lookups._spread(7, positions, weights), expected, atol=SAME_IN_FLOAT32)


@pytest.mark.parametrize(
    "take", [lookup, lambda table, ids: select(table[None], ids[None])[0]], ids=["lookup", "select"]
)
def test_gradients_have_derivatives_in_both_modes(take):
    """Hessian-vector products, forward over reverse as in `jax.hessian`, and reverse over reverse."""
    ids = jnp.array([2, 0, 2])
    table, direction = jax.random.normal(jax.random.key(0), (2, V, D))

    def product(take):
        gradient = jax.grad(lambda table: jnp.sin(take(table, ids)).sum())
        forward = jax.jvp(gradient, (table,), (direction,))[1]
        reverse = jax.grad(lambda table: jnp.vdot(gradient(table), direction))(table)
        return forward, reverse

    np.testing.assert_array_equal(product(take), product(lambda table, ids: table[ids]))


def test_devices_of_a_mesh_sum_their_own_rows(monkeypatch):
    monkeypatch.setattr(lookups, "CHUNK", 4)
    ids = np.random.default_rng(3).integers(0, V, (8, 7))
    rows, sums = rows_and_sums(ids)
    mesh = make_mesh(fsdp=2, tensor=2)

    def on_mesh(ids, rows):
        with jax.sharding.use_abstract_mesh(mesh.abstract_mesh):
            return partial(lookups._summed, V)(ids, rows)

    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec(("data", "fsdp")))
    summed = jax.jit(on_mesh, in_shardings=sharding)(ids, rows)
    np.testing.assert_allclose(summed, sums, atol=SAME_IN_FLOAT32)
