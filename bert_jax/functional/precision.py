"""Products of bfloat16 arrays with float32 results, for scores that a softmax or a loss reads.

Matrix units multiply bfloat16 and add in float32. A plain `einsum` rounds that sum to bfloat16; here it is kept:

    a = jnp.full((1, 300), 1.01, jnp.bfloat16)  # 1.01 is stored as 1.0078125
    jnp.einsum("ik,jk->ij", a, a)               # 304.0: bfloat16 has 8 significant bits
    product("ik,jk->ij", a, a)                  # 304.7058

The gradient is written by hand for speed. JAX's own would multiply the float32 gradient g by the bfloat16 factors: it
would convert b to float32 and run dot(g, b) as a float32 product, several times slower. Here g is rounded to bfloat16
first, as it would be without `product`, and both products of the backward pass stay in bfloat16.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array


def product(letters: str, a: Array, b: Array) -> Array:
    """Returns einsum(letters, a, b): in float32 for bfloat16 arrays, otherwise in the arrays' own dtype."""
    return _product(letters, a, b) if a.dtype == b.dtype == jnp.bfloat16 else jnp.einsum(letters, a, b)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _product(letters: str, a: Array, b: Array) -> Array:
    return jnp.einsum(letters, a, b, preferred_element_type=jnp.float32)


def _forward(letters: str, a: Array, b: Array) -> tuple[Array, tuple[Array, Array]]:
    return _product(letters, a, b), (a, b)


def _backward(letters: str, factors: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    a, b = factors
    gradient = gradient.astype(jnp.bfloat16)
    # einsum is linear in each factor; its transpose maps the gradient of the result to that of the factor.
    (gradient_a,) = jax.linear_transpose(lambda a: jnp.einsum(letters, a, b), a)(gradient)
    (gradient_b,) = jax.linear_transpose(lambda b: jnp.einsum(letters, a, b), b)(gradient)
    return gradient_a, gradient_b


_product.defvjp(_forward, _backward)
