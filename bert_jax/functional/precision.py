"""Products of bfloat16 arrays that stay in float32: scores that a softmax or a loss reads are not rounded first.

Matrix units take bfloat16 and sum in float32 anyway; here the sums are kept. JAX's own gradient of such a product would
widen the bfloat16 factors and multiply in float32, at a fraction of the speed, so the gradient is rounded before.
"""

import jax
import jax.numpy as jnp
from jax import Array


def product(letters: str, a: Array, b: Array) -> Array:
    """Returns einsum(letters, a, b), float32 for bfloat16 arrays; for others their own dtype."""
    return wide(letters, a, b) if a.dtype == b.dtype == jnp.bfloat16 else jnp.einsum(letters, a, b)


def kept(letters: str, a: Array, b: Array) -> Array:
    return jnp.einsum(letters, a, b, preferred_element_type=jnp.float32)


def forward(letters: str, a: Array, b: Array) -> tuple[Array, tuple[Array, Array]]:
    return kept(letters, a, b), (a, b)


def backward(letters: str, factors: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    (a, b), gradient = factors, gradient.astype(jnp.bfloat16)
    (of_a,) = jax.linear_transpose(lambda a: jnp.einsum(letters, a, b), a)(gradient)
    (of_b,) = jax.linear_transpose(lambda b: jnp.einsum(letters, a, b), b)(gradient)
    return of_a, of_b


wide = jax.custom_vjp(kept, nondiff_argnums=(0,))
wide.defvjp(forward, backward)
