"""The hand-written layer norm of bfloat16 arrays is that of the NumPy reference, and so is its gradient."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradient_checks import assert_leaves_agree

from bert_jax.functional.layers import layer_norm
from bert_jax.functional.normalization import normalize
from bert_jax.reference import layers

EPS = 0.1  # large enough to be seen
SAME = 1e-12
OF_BFLOAT16 = 2**-8  # its rounding error


def arrays(dtype, *, bias=True, rows=7):
    random = np.random.default_rng(0)
    x, gradient = (random.normal(1.0, 2.0, (rows, 11)) for _ in range(2))
    params = {"scale": random.normal(size=11), "bias": random.normal(size=11)}
    if not bias:
        del params["bias"]
    return jnp.asarray(x, dtype), jnp.asarray(gradient, dtype), params


def both(x, gradient, params, parameter_dtype):
    """Returns the result and the gradients of the function and of the reference."""
    own = jax.tree.map(partial(jnp.asarray, dtype=parameter_dtype), params)
    y, pull_back = jax.vjp(lambda x, own: normalize(EPS, x, own["scale"], own.get("bias")), x, own)
    dx, of_params = pull_back(gradient)
    x64, gradient64 = (np.asarray(a, np.float64) for a in (x, gradient))
    expected, cache = layers.layer_norm(params, x64, layer_norm_eps=EPS)
    expected_dx, expected_of_params = layers.layer_norm_backward(gradient64, cache)
    return {"y": y, "x": dx, **of_params}, {"y": expected, "x": expected_dx, **expected_of_params}


@pytest.mark.parametrize("bias", [True, False])
def test_result_and_gradient_are_those_of_the_reference(bias):
    with jax.enable_x64(True):
        got, expected = both(*arrays("float64", bias=bias), "float64")
        assert_leaves_agree(got, expected, SAME)


def test_bfloat16_rounds_the_result_only_and_sums_gradients_of_parameters_in_float32():
    got, expected = both(*arrays("bfloat16", rows=301), "float32")
    assert {name: leaf.dtype.name for name, leaf in got.items()} == {
        "y": "bfloat16", "x": "bfloat16", "scale": "float32", "bias": "float32"
    }  # fmt: skip
    for names, tolerance in ((("y", "x"), OF_BFLOAT16), (("scale", "bias"), 1e-5)):
        wide = ({name: np.asarray(tree[name], np.float64) for name in names} for tree in (got, expected))
        assert_leaves_agree(*wide, tolerance)


def test_the_variance_is_accurate_where_bfloat16_has_digits_for_it():
    """A mean of 250 deviations, next to which the values differ in their last bits."""
    x = jnp.asarray(np.random.default_rng(1).normal(250.0, 1.0, (5, 768)), jnp.bfloat16)
    y = np.asarray(normalize(1e-12, x, jnp.ones(768), jnp.zeros(768)), np.float64)
    wide = np.asarray(x, np.float64)
    centered = wide - wide.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(y, centered / wide.std(axis=1, keepdims=True), rtol=2 * OF_BFLOAT16, atol=0.01)


def test_a_layer_norm_takes_it_for_bfloat16_alone():
    x, _, params = arrays("bfloat16")
    programs = {dtype: str(jax.make_jaxpr(partial(layer_norm, params, eps=EPS))(x.astype(dtype)))
                for dtype in ("bfloat16", "float32")}  # fmt: skip
    assert ["custom_vjp" in program for program in programs.values()] == [True, False]


def test_statistics_are_stored():
    """Behind barriers, two of the forward and two of the backward pass: XLA would compute them where they are read."""
    x, gradient, params = arrays("float32")

    def pull_back(x):
        return jax.vjp(lambda x: normalize(EPS, x, params["scale"], params["bias"]), x)[1](gradient)

    program = str(jax.make_jaxpr(pull_back)(x))
    assert program.count("= optimization_barrier") == 2


def test_gradients_have_derivatives_in_both_modes():
    """Hessian-vector products, forward over reverse and reverse over reverse."""
    with jax.enable_x64(True):
        x, direction, params = arrays("float64")

        def gradient(x):
            return jax.grad(lambda x: jnp.sin(normalize(EPS, x, params["scale"], params["bias"])).sum())(x)

        forward = jax.jvp(gradient, (x,), (direction,))[1]
        backward = jax.vjp(gradient, x)[1](direction)[0]
        np.testing.assert_allclose(forward, backward, rtol=1e-9, atol=1e-12)
