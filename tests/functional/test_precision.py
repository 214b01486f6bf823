"""Products of bfloat16 arrays keep their sums in float32; those of other dtypes are plain einsums."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.functional.precision import product

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
