"""Properties of the basic functions that the comparison with the NumPy reference does not cover."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.functional import attention, dropout, layer_norm, make_attention_mask
from bert_jax.functional.layers import gelu
from bert_jax.reference import layers as reference
from bert_jax.training.state import GENERATORS, run_key

FRACTION_TOLERANCE = 1e-3  # more than six standard deviations of four million draws


@pytest.mark.parametrize("generator", GENERATORS)
def test_dropout_drops_the_given_fraction_and_keeps_the_mean(generator):
    x = jnp.ones((4001, 1003))
    y = np.asarray(dropout(x, rate=0.1, key=run_key(jax.random.key(0), generator)))
    assert abs((y == 0).mean() - 0.1) < FRACTION_TOLERANCE
    assert abs(y.mean() - 1.0) < FRACTION_TOLERANCE / 0.9
    np.testing.assert_allclose(y[y > 0], 1 / 0.9, rtol=1e-4)


def test_attention_drops_the_given_fraction_of_weights():
    """Queries and keys are 0 and values 1, so a position's output is the sum of the weights that were kept."""
    B, T, D, N = 8, 512, 2, 2
    zero = {"kernel": jnp.zeros((D, D)), "bias": jnp.zeros(D)}
    identity = {"kernel": jnp.eye(D), "bias": jnp.zeros(D)}
    params = {"query": zero, "key": zero, "value": identity, "output": identity}
    key = run_key(jax.random.key(1))
    mask = make_attention_mask(jnp.ones((B, T), jnp.int32))
    kept, _ = attention(params, jnp.ones((B, T, D)), mask, num_heads=N, dropout_rate=0.1, key=key)
    assert abs(kept.mean() - 1.0) < FRACTION_TOLERANCE / 0.9
    dropped = T * (1 - 0.9 * np.asarray(kept))
    assert dropped.std() == pytest.approx(np.sqrt(T * 0.09), rel=0.05)  # as for independent weights


def test_dropout_without_key_or_rate_is_the_identity():
    x = jnp.arange(7.0)
    assert dropout(x, rate=0.1, key=None) is x
    assert dropout(x, rate=0.0, key=jax.random.key(0)) is x


def test_layer_norm_statistics_are_float32_for_bfloat16():
    """A large common offset would hide the differences in bfloat16 arithmetic."""
    x = (jnp.arange(16.0)[None, :] + 256.0).astype(jnp.bfloat16)
    y = layer_norm({"scale": jnp.ones(16), "bias": jnp.zeros(16)}, x, eps=1e-12)
    assert y.dtype == jnp.bfloat16
    exact = np.asarray(x, np.float32)
    exact = (exact - exact.mean()) / exact.std()
    np.testing.assert_allclose(y.astype(jnp.float32), exact, atol=0.01)


def test_gelu_is_computed_in_float32_for_bfloat16():
    """One rounding of the result is left; a computation in bfloat16 has several."""
    x = jnp.linspace(-3.0, 3.0, 401).astype(jnp.bfloat16)
    exact = reference.gelu(np.asarray(x, np.float64))
    np.testing.assert_allclose(np.asarray(gelu(x), np.float64), exact, rtol=2**-8, atol=1e-6)


def test_the_attention_mask_separates_sequences_and_excludes_padding():
    mask = make_attention_mask(jnp.array([[1, 1, 2, 0]]))
    wanted = [[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_array_equal(mask[0, 0], np.array(wanted, bool))


def test_a_fully_masked_row_stays_finite():
    D = 12
    identity = {"kernel": jnp.eye(D), "bias": jnp.zeros(D)}
    params = dict.fromkeys(("query", "key", "value", "output"), identity)
    x = jax.random.normal(jax.random.key(0), (1, 5, D))
    mask = make_attention_mask(jnp.zeros((1, 5), jnp.int32))

    def total(x):
        return attention(params, x, mask, num_heads=3, dropout_rate=0.0, key=None)[0].sum()

    value, gradient = jax.value_and_grad(total)(x)
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()
