"""ModernBERT's layer: rotary positions are relative, local attention ends at its window, kinds of layers alternate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_bert as small

from bert_jax import functional as F
from bert_jax.functional.modern import neighborhood, rotate, rotations

CONFIG = small.config(model_type="modernbert", local_attention=4, global_attn_every_n_layers=3)
TOLERANCE = 1e-6
T = 11


def positions(start=0):
    return jnp.arange(start, start + T, dtype=jnp.int32)[None, :]


def test_products_of_rotated_vectors_depend_on_the_distance_of_their_positions():
    q, k = (jnp.asarray(np.broadcast_to(small.normal(1, 1, small.D), (1, T, small.D)), jnp.float32) for _ in range(2))
    k = k * 0.5 + 1.0

    def products(start):
        rotation = rotations(positions(start), small.H, 7.0, "float32")
        heads = (np.asarray(rotate(x, rotation)).reshape(T, small.N, small.H) for x in (q, k))
        return np.einsum("TNH,SNH->NTS", *heads)

    here = products(0)
    np.testing.assert_allclose(products(100), here, atol=1e-4)
    np.testing.assert_allclose(here[:, 1:, 1:], here[:, :-1, :-1], atol=1e-5)
    assert np.abs(here[:, 0, 1] - here[:, 0, 0]).min() > 0.01


def test_the_first_position_is_not_rotated_and_lengths_stay():
    x = jnp.asarray(small.normal(1, T, small.D), jnp.float32)
    rotated = rotate(x, rotations(positions(), small.H, 10_000.0, "float32"))
    np.testing.assert_allclose(rotated[:, 0], x[:, 0], atol=TOLERANCE)
    np.testing.assert_allclose(jnp.linalg.norm(rotated, axis=-1), jnp.linalg.norm(x, axis=-1), rtol=1e-5)


def test_local_layers_see_their_window_in_their_own_sequence():
    numbers = jnp.array([[1] * 6 + [2] * 4 + [0]])
    local, everything = neighborhood(F.make_attention_mask(numbers), positions(), CONFIG).masks[:, 0, 0]
    place = np.arange(T)
    near = np.abs(place[:, None] - place) <= 2
    np.testing.assert_array_equal(everything, F.make_attention_mask(numbers)[0, 0])
    np.testing.assert_array_equal(local, np.asarray(everything) & near)


@pytest.mark.parametrize(("index", "is_global"), [(0, True), (1, False), (2, False), (3, True)])
def test_which_layers_are_global(index, is_global):
    """A far token changes a token's output in global layers only."""
    shapes = small.layer_shapes()
    shapes["feed_forward"]["gate"] = small.dense_shapes(small.D, small.F)
    params = small.draw(shapes)
    x = jnp.asarray(small.normal(1, T, small.D), jnp.float32)
    around = neighborhood(jnp.ones((1, 1, T, T), bool), positions(), CONFIG)

    def output(x):
        return F.modern_layer(params, x, around, index, config=CONFIG, key=None)[0]

    before = output(x)
    after = output(x.at[0, 8].multiply(-1.0))
    assert (np.abs(before - after)[0, :6].max() > 1e-3) == is_global
    assert np.abs(before - after)[0, 6].max() > 1e-3


def test_the_mean_over_packed_sequences_is_that_of_separate_ones():
    x = jnp.asarray(small.normal(1, T, small.D), jnp.float32)
    mask = jnp.array([[1] * 6 + [2] * 4 + [0]])
    means = F.mean_pool(x, mask, jnp.array([[0, 6, 0]]))
    for slot, part in enumerate((slice(0, 6), slice(6, 10), slice(0, 6))):
        np.testing.assert_allclose(means[:, slot], x[:, part].mean(axis=1), atol=TOLERANCE)
    np.testing.assert_allclose(F.mean_pool(x, mask, None), x[:, :6].mean(axis=1), atol=TOLERANCE)
    padded_left = jnp.array([[0] * 3 + [1] * 8])
    np.testing.assert_allclose(F.mean_pool(x, padded_left, None), x[:, 3:].mean(axis=1), atol=TOLERANCE)
    assert np.isfinite(F.mean_pool(x, jnp.zeros_like(mask), None)).all()
    assert jax.eval_shape(F.mean_pool, x.astype(jnp.bfloat16), mask, None).dtype == jnp.bfloat16
