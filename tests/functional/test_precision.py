"""Products of bfloat16 arrays keep their sums in float32; those of other dtypes are plain einsums."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.functional.precision import affine, product

LETTERS = "BNTH,BNSH->BNTS"
OF_A_ROUNDING = 2e-2  # of bfloat16's rounding error: the effect of another order of summation


@pytest.fixture(scope="module")
def factors():
    random = np.random.default_rng(0)
    return tuple(jnp.asarray(random.normal(size=(2, 3, length, 11)), jnp.bfloat16) for length in (7, 5))


def test_a_product_of_bfloat16_is_not_rounded(factors):
    exact = np.einsum(LETTERS, *(np.asarray(x, np.float64) for x in factors))
    got = product(LETTERS, *factors)
    rounded = jnp.einsum(LETTERS, *factors)
    assert got.dtype == jnp.float32
    errors = [np.abs(np.asarray(x, np.float64) - exact).max() for x in (got, rounded)]
    assert errors[0] < OF_A_ROUNDING * errors[1]


def test_the_gradient_equals_that_of_the_rounded_product(factors):
    """So the backward pass multiplies bfloat16 arrays, at their speed."""

    def gradients(function):
        out, pull = jax.vjp(partial(function, LETTERS), *factors)
        return pull(jnp.cos(jnp.arange(out.size)).reshape(out.shape).astype(jnp.bfloat16).astype(out.dtype))

    jax.tree.map(np.testing.assert_array_equal, gradients(product), gradients(jnp.einsum))
    program = str(jax.make_jaxpr(gradients, static_argnums=0)(product))
    assert [program.count(f"preferred_element_type={dtype}") for dtype in ("float32", "bfloat16")] == [1, 2]


def test_other_dtypes_use_plain_einsum(factors):
    wide = [x.astype(jnp.float32) for x in factors]
    programs = [str(jax.make_jaxpr(partial(function, LETTERS))(*wide)) for function in (product, jnp.einsum)]
    assert programs[0] == programs[1]


@pytest.mark.parametrize("wide", [False, True])
def test_gradients_of_weights_leave_their_product_in_float32(wide):
    """Against sums in float64 of the same bfloat16 numbers; the gradient of x stays in bfloat16."""
    random = np.random.default_rng(1)
    x, gradient = (jnp.asarray(random.normal(size=(300, size)), jnp.bfloat16) for size in (11, 7))
    kernel, bias = (jnp.asarray(random.normal(size=shape), jnp.float32) for shape in ((11, 7), (7,)))
    y, pull = jax.vjp(partial(affine, wide=wide), x, kernel, bias)
    assert y.dtype == (jnp.float32 if wide else jnp.bfloat16)
    exact_kernel = np.asarray(kernel.astype(jnp.bfloat16), np.float64)
    exact = np.asarray(x, np.float64) @ exact_kernel + np.asarray(bias, np.float64)
    np.testing.assert_allclose(np.asarray(y, np.float64), exact, atol=1e-5 if wide else 0.1)
    got = pull(gradient.astype(y.dtype))
    assert [leaf.dtype for leaf in got] == [jnp.bfloat16, jnp.float32, jnp.float32]
    wide_x, wide_gradient = (np.asarray(a, np.float64) for a in (x, gradient))
    for one, exact in zip(got[1:], (wide_x.T @ wide_gradient, wide_gradient.sum(axis=0)), strict=True):
        rounded = np.asarray(jnp.asarray(exact, jnp.bfloat16), np.float64)
        assert np.abs(one - exact).max() < OF_A_ROUNDING * np.abs(rounded - exact).max()
    expected = wide_gradient @ exact_kernel.T
    np.testing.assert_allclose(np.asarray(got[0], np.float64), expected, rtol=2**-7, atol=2**-7)


def test_a_float32_layer_has_derivatives_in_forward_mode():
    x, kernel, bias = (jnp.ones(shape) for shape in ((2, 3), (3, 5), (5,)))
    _, tangent = jax.jvp(affine, (x, kernel, bias), (x, kernel, bias))
    np.testing.assert_array_equal(tangent, jnp.full((2, 5), 7.0))


@pytest.mark.parametrize("function", [partial(product, "RI,IO->RO"), lambda x, kernel: affine(x, kernel, None)])
def test_gradients_have_derivatives_in_both_modes(function):
    """Hessian-vector products, forward over reverse and reverse over reverse; all numbers are small integers."""
    x, kernel = (jnp.ones(shape, jnp.bfloat16) for shape in ((2, 3), (3, 5)))

    def gradient(kernel):
        return jax.grad(lambda kernel: jnp.square(function(x, kernel).astype(jnp.float32)).sum())(kernel)

    forward = jax.jvp(gradient, (kernel,), (kernel,))[1]
    backward = jax.vjp(gradient, kernel)[1](kernel)[0]
    # The gradient is 2 x' (x kernel), linear in the kernel: 2 rows of 2 * 3.
    for product_with_hessian in (forward, backward):
        np.testing.assert_array_equal(product_with_hessian, jnp.full((3, 5), 12.0))
