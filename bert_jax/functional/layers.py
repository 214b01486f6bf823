"""The basic layers: dense, layer normalization, activations, dropout.

Each takes arrays with any leading axes. Computation is in the dtype of the input array: parameters are cast to it where
they are used. Statistics (means, variances, erf) are computed in at least float32 and cast back.
"""

import math

import jax
import jax.numpy as jnp
from jax import Array

from bert_jax.functional.mesh_axes import first_row
from bert_jax.functional.normalization import normalize
from bert_jax.functional.precision import affine
from bert_jax.functional.random_bits import row_bits


def dense(params, x: Array) -> Array:
    """Returns x @ kernel + bias for x [..., I], kernel [I, O] and bias [O]; without a bias in `params`, x @ kernel.

    If `params` has an `adapter` (see `functional.lora`), (x @ a) @ b is added.
    """
    # XLA's CPU backend runs one plain matrix product 10 % faster than a contraction over three axes; elsewhere
    # flattening the leading axes costs nothing.
    rows = x.reshape(-1, x.shape[-1])
    y = affine(rows, params["kernel"], params.get("bias"))
    if "adapter" in params:
        y = y + affine(affine(rows, params["adapter"]["a"], None), params["adapter"]["b"], None)
    return y.reshape(*x.shape[:-1], y.shape[-1])


def layer_norm(params, x: Array, *, eps: float) -> Array:
    """Returns (x - mean) / sqrt(variance + eps) * scale + bias over the last axis of x [..., D]; the bias is optional.

    References: Ba, Kiros, Hinton, Layer Normalization, 2016.
    """
    rows = x.reshape(-1, x.shape[-1])
    if x.dtype == jnp.bfloat16:
        normalized: Array = normalize(eps, rows, params["scale"], params.get("bias"))
        return normalized.reshape(x.shape)
    rows = at_least_float32(rows)
    centered = rows - rows.mean(axis=-1, keepdims=True)
    variance = jnp.square(centered).mean(axis=-1, keepdims=True)
    normalized = centered * jax.lax.rsqrt(variance + eps)
    normalized = normalized * params["scale"][None, :]
    if "bias" in params:
        normalized = normalized + params["bias"][None, :]
    return normalized.astype(x.dtype).reshape(x.shape)


def activation(name: str):
    """Returns the function for `hidden_act`: `gelu` is the exact erf form, `gelu_new` the tanh form of the original.

    References: Hendrycks, Gimpel, Gaussian Error Linear Units, 2016.
    """
    return {
        "gelu": gelu,
        "gelu_new": lambda x: jax.nn.gelu(x, approximate=True),
        "relu": jax.nn.relu,
        "silu": jax.nn.silu,
        "tanh": jnp.tanh,
    }[name]


def gelu(x: Array) -> Array:
    """Returns x / 2 (1 + erf(x / sqrt(2))), computed in at least float32.

    Half the cost of `jax.nn.gelu`, which uses erfc: that keeps more digits where the result is close to zero, but the
    input does not have them.
    """
    wide = at_least_float32(x)
    return (0.5 * wide * (1.0 + jax.lax.erf(wide * math.sqrt(0.5)))).astype(x.dtype)


def dropout(x: Array, *, rate: float, key: Array | None) -> Array:
    """Returns x with a fraction `rate` of its elements set to zero and the others scaled up; x itself if key is None.

    The mask of a row of x [B, ...] depends on its place in the global batch, not on the device that computes it.

    References: Srivastava et al., Dropout, 2014.
    """
    if key is None or rate == 0.0:
        return x
    # 16 random bits per element cost half as much as a uniform float32. The scale uses the rounded rate, so that the
    # mean is exact.
    threshold = dropout_threshold(rate)
    keep = row_bits(key, 16, x.shape, first_row(len(x))) >= threshold
    return jnp.where(keep, x / (1.0 - threshold / 2**16), jnp.zeros_like(x))


def dropout_threshold(rate: float) -> int:
    """Returns t: elements are dropped whose 16 random bits are below t. 0.1 gives 6554 of 65536, a rate of 0.100006."""
    return min(round(rate * 2**16), 2**16 - 1)


def at_least_float32(x: Array) -> Array:
    """Returns x in float32, or in its own dtype if that is wider."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))
