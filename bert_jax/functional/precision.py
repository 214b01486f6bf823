"""Products of bfloat16 arrays with float32 results: scores that a softmax or a loss reads, and gradients of weights.

Matrix units multiply bfloat16 and add in float32. A plain `einsum` rounds that sum to bfloat16; here it is kept:

    a = jnp.full((1, 300), 1.01, jnp.bfloat16)  # 1.01 is stored as 1.0078125
    jnp.einsum("ik,jk->ij", a, a)               # 304.0: bfloat16 has 8 significant bits
    product("ik,jk->ij", a, a)                  # 304.7058

The gradient is written by hand for speed. JAX's own would multiply the float32 gradient g by the bfloat16 factors: it
would convert b to float32 and run dot(g, b) as a float32 product, several times slower. Here g is rounded to bfloat16
first, as it would be without `product`, and both products of the backward pass stay in bfloat16.

The gradient of a weight sums over all rows of a batch, and is then added over micro-batches and devices. In `affine` it
leaves the product in float32.
"""

from functools import partial
from typing import Any

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
    # Not `_product`, which has no derivative in forward mode: Hessian-vector products need one of this.
    return jnp.einsum(letters, a, b, preferred_element_type=jnp.float32), (a, b)


def _backward(letters: str, factors: tuple[Array, Array], gradient: Array) -> tuple[Array, Array]:
    a, b = factors
    gradient = gradient.astype(jnp.bfloat16)
    # einsum is linear in each factor; its transpose maps the gradient of the result to that of the factor.
    (gradient_a,) = jax.linear_transpose(lambda a: jnp.einsum(letters, a, b), a)(gradient)
    (gradient_b,) = jax.linear_transpose(lambda b: jnp.einsum(letters, a, b), b)(gradient)
    return gradient_a, gradient_b


_product.defvjp(_forward, _backward)


def affine(x: Array, kernel: Array, bias: Array | None, *, wide: bool = False) -> Array:
    """Returns x @ kernel + bias for x [R, I], kernel [I, O] and bias [O], computed in the dtype of x.

    If x is bfloat16, the gradients of kernel and bias are sums in float32.

    Args:
        wide: whether the result of bfloat16 arrays is float32.
    """
    if x.dtype == jnp.bfloat16:
        kernel = kernel.astype(jnp.float32)  # so are gradients; parameters are float32 already
        return _affine(jnp.float32 if wide else jnp.bfloat16, x, kernel, bias)
    y = x @ kernel.astype(x.dtype)
    return y if bias is None else y + bias.astype(x.dtype)[None, :]


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _affine(dtype: Any, x: Array, kernel: Array, bias: Array | None) -> Array:
    return _affine_forward(dtype, x, kernel, bias)[0]


def _affine_forward(dtype: Any, x: Array, kernel: Array, bias: Array | None):
    kernel = kernel.astype(jnp.bfloat16)
    y = jnp.matmul(x, kernel, preferred_element_type=dtype)
    return y if bias is None else y + bias.astype(dtype)[None, :], (x, kernel, bias)


def _affine_backward(dtype: Any, residuals: tuple[Array, Array, Array | None], gradient: Array):
    x, kernel, bias = residuals
    narrow = gradient.astype(jnp.bfloat16)
    x_gradient = jnp.einsum("RO,IO->RI", narrow, kernel)
    kernel_gradient = jnp.einsum("RI,RO->IO", x, narrow, preferred_element_type=jnp.float32)
    bias_gradient = None if bias is None else gradient.astype(jnp.float32).sum(axis=0).astype(bias.dtype)
    return x_gradient, kernel_gradient, bias_gradient


_affine.defvjp(_affine_forward, _affine_backward)
