"""Multi-head self-attention over rows that may hold padding, or several sequences packed one after the other.

References: Vaswani et al., Attention Is All You Need, 2017, section 3.2. Krell et al., Efficient Sequence Packing
without Cross-contamination, 2021, section 3.2 (the mask of packed rows).
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from bert_jax.functional.attention_kernels import KERNELS
from bert_jax.functional.layers import dense, dropout
from bert_jax.functional.precision import product


def make_attention_mask(attention_mask: Array) -> Array:
    """Returns which position may attend to which: bool [B, 1, T, S] from sequence numbers, int [B, T].

    0 is padding; any other number is that of the position's sequence in its row. A token attends to the tokens that
    carry its own number. Padding neither attends nor is attended to. The row [1, 1, 2, 0] holds a sequence of two
    tokens, one of a single token, and padding:

               key  1  1  2  0
        query 1     x  x  .  .
        query 1     x  x  .  .
        query 2     .  .  x  .
        query 0     .  .  .  .

    An ordinary mask of ones and zeros is the case of one sequence per row.
    """
    same_sequence = attention_mask[:, None, :, None] == attention_mask[:, None, None, :]  # [B, 1, T, S]
    return same_sequence & (attention_mask != 0)[:, None, None, :]


def attention(
    params,
    x: Array,
    mask: Array,
    *,
    num_heads: int,
    dropout_rate: float,
    rotate: Callable[[Array], Array] | None = None,
    kernel: str | None = None,
    key: Array | None,
) -> tuple[Array, Array | None]:
    """Returns the output of multi-head self-attention for x [B, T, D], and the attention weights.

    softmax(q k' / sqrt(H)) v for each of the N heads, then a dense layer over the concatenated heads. A position that
    may attend to nothing gets equal weights on all positions: its output is meaningless, but finite.

    Args:
        x: float32, bfloat16 or float64. float16 may overflow, because sums over S positions are divided last.
        mask: bool [B, 1, T, S] from `make_attention_mask`; with a kernel the sequence numbers, int [B, T].
        rotate: applied to the queries and to the keys, [B, T, D] each: rotary positions, see `functional.modern`.
        kernel: one of `attention_kernels.KERNELS`, or None for plain matrix products.

    Returns:
        The output [B, T, D] and the attention weights [B, N, T, S] before dropout; None with a kernel, which never
        stores them.

    Raises:
        ValueError: dropout of the attention weights, and a kernel that does not implement it.
    """
    q, k, v = (dense(params[name], x) for name in ("query", "key", "value"))  # [B, T, D] each
    if rotate is not None:
        q, k = rotate(q), rotate(k)
    options = {"num_heads": num_heads, "dropout_rate": dropout_rate, "key": key}
    if kernel is None:
        context, weights = plain_attention(q, k, v, mask, **options)
    else:
        context, weights = KERNELS[kernel](q, k, v, mask, **options), None
    return dense(params["output"], context), weights


def plain_attention(
    q: Array, k: Array, v: Array, mask: Array, *, num_heads: int, dropout_rate: float, key: Array | None
) -> tuple[Array, Array]:
    """Returns the heads' outputs [B, T, D] for q, k, v [B, T, D] and mask [B, 1, T, S], and the attention weights."""
    dtype = q.dtype
    q, k, v = (_split_heads(y, num_heads) for y in (q, k, v))  # [B, N, T, H]
    # A query that may attend to nothing is replaced by zero, so that no gradient flows back into it.
    q = jnp.where(mask.any(axis=-1, keepdims=True), q, 0.0)
    scores = product("BNTH,BNSH->BNTS", q, k) / math.sqrt(q.shape[-1])
    # The most negative finite number, not -inf: a row that is masked everywhere must give numbers, not NaN.
    scores = scores + jnp.where(mask, 0.0, jnp.finfo(scores.dtype).min).astype(scores.dtype)
    # The maximum cancels in the quotient, so it needs no gradient. The division by the sum comes after the product
    # with v, on [B, N, T, H] and not on [B, N, T, S]: one pass less over the largest array.
    exp_scores = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    total = exp_scores.sum(axis=-1, keepdims=True)  # [B, N, T, 1]
    context = jnp.einsum("BNTS,BNSH->BNTH", dropout(exp_scores.astype(dtype), rate=dropout_rate, key=key), v)
    return _merge_heads((context / total).astype(dtype)), (exp_scores / total).astype(dtype)


def _split_heads(x: Array, num_heads: int) -> Array:
    """[B, T, D] -> [B, N, T, H]: with heads before positions, both products of attention are plain batched ones."""
    B, T, D = x.shape
    return x.reshape(B, T, num_heads, D // num_heads).swapaxes(1, 2)


def _merge_heads(x: Array) -> Array:
    """[B, N, T, H] -> [B, T, D]."""
    B, N, T, H = x.shape
    return x.swapaxes(1, 2).reshape(B, T, N * H)
