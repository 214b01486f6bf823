"""Multi-head self-attention over rows that may hold padding, and several sequences that must not see each other.

References: Vaswani et al., Attention Is All You Need, 2017, section 3.2. Krell et al., Efficient Sequence Packing
without Cross-contamination, 2021, section 3.2 (the mask of packed rows).
"""

import math

import jax
import jax.numpy as jnp
from jax import Array

from bert_jax.functional.attention_kernels import KERNELS
from bert_jax.functional.layers import dense, dropout
from bert_jax.functional.precision import product


def make_attention_mask(attention_mask: Array) -> Array:
    """Says which position sees which: bool [B, 1, T, S] from the sequence numbers, int [B, T], where 0 is padding.

    A token sees the tokens that carry its own number; nobody sees padding, and padding sees nothing.
    """
    same = attention_mask[:, None, :, None] == attention_mask[:, None, None, :]
    return same & (attention_mask != 0)[:, None, None, :]


def attention(
    params,
    x: Array,
    mask: Array,
    *,
    num_heads: int,
    dropout_rate: float,
    kernel: str | None = None,
    key: Array | None,
) -> tuple[Array, Array | None]:
    """Lets every position of x [B, T, D] gather from the positions that it may see.

    softmax(q k' / sqrt(H)) v for each of the N heads, and a dense layer over the heads' outputs side by side. A row of
    the mask with nothing to see weighs all positions alike: useless, but finite.

    Args:
        x: float32, bfloat16 or float64; float16 has no room for sums over S positions that are divided last.
        mask: bool [B, 1, T, S]; with a kernel the sequence numbers, int [B, T], which say the same.
        kernel: one of `attention_kernels.KERNELS`, or None for plain matrix products.

    Returns:
        The output [B, T, D] and the attention weights [B, N, T, S] before dropout; None where a kernel keeps them.

    Raises:
        ValueError: a kernel, and dropout of weights, which kernels do not have.
    """
    q, k, v = (dense(params[name], x) for name in ("query", "key", "value"))
    if kernel is not None:
        if key is not None and dropout_rate:
            raise ValueError(f"the attention kernel {kernel} has no dropout of weights, got a rate of {dropout_rate}")
        B, T, D = x.shape
        q, k, v = (y.reshape(B, T, num_heads, D // num_heads) for y in (q, k, v))
        return dense(params["output"], KERNELS[kernel](q, k, v, mask).reshape(B, T, D)), None
    q, k, v = (split_heads(y, num_heads) for y in (q, k, v))
    q = jnp.where(mask.any(axis=-1, keepdims=True), q, 0.0)  # who sees nothing asks nothing, and has no gradient
    scores = product("BNTH,BNSH->BNTS", q, k) / math.sqrt(q.shape[-1])
    scores = scores + jnp.where(mask, 0.0, jnp.finfo(scores.dtype).min).astype(scores.dtype)
    # The softmax is divided by its sum last, where it has H columns and not S: a pass less over the largest arrays.
    exp_scores = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    total = exp_scores.sum(axis=-1, keepdims=True)
    context = jnp.einsum("BNTS,BNSH->BNTH", dropout(exp_scores.astype(x.dtype), rate=dropout_rate, key=key), v)
    return dense(params["output"], merge_heads((context / total).astype(x.dtype))), (exp_scores / total).astype(x.dtype)


def split_heads(x: Array, num_heads: int) -> Array:
    """[B, T, D] -> [B, N, T, H]: heads before positions make both products of attention plain ones."""
    B, T, D = x.shape
    return x.reshape(B, T, num_heads, D // num_heads).swapaxes(1, 2)


def merge_heads(x: Array) -> Array:
    """[B, N, T, H] -> [B, T, D]."""
    B, N, T, H = x.shape
    return x.swapaxes(1, 2).reshape(B, T, N * H)
