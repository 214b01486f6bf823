"""Multi-head self-attention and its derivative.

Each position t has a query q_t, each position s a key k_s and a value v_s; the output at t is the mean of the values,
weighted by how well their keys match the query. N heads do this in parallel, each on H = D / N columns of the
projections.

References: Vaswani et al., Attention Is All You Need, 2017, section 3.2.
"""

import math

import numpy as np

from bert_jax.reference.layers import dense, dense_backward, softmax, softmax_backward
from bert_jax.reference.rotary import rotate, rotate_backward


def make_attention_mask(attention_mask):
    """Returns which query t may attend to which key s: those of the same sequence, unless it is padding.

    Args:
        attention_mask: int [B, T]; 0 = padding, otherwise the number of the sequence in its row.
    Returns:
        bool [B, T, S].
    """
    query = attention_mask[:, :, None]
    key = attention_mask[:, None, :]
    return (query == key) & (query != 0)


def split_heads(x, num_attention_heads):
    """[B, T, D] to [B, T, N, H]: head n has columns n H to (n + 1) H - 1."""
    return x.reshape(*x.shape[:-1], num_attention_heads, -1)


def merge_heads(x):
    """[B, T, N, H] to [B, T, D]; the inverse of split_heads, and also its derivative."""
    return x.reshape(*x.shape[:-2], -1)


def attention(params, x, mask, *, num_attention_heads, rotation=None):
    """Computes multi-head self-attention.

        q, k, v = dense(x) three times, split into heads; q and k rotated, if there is a rotation
        a = q k^T / sqrt(H), replaced by the most negative finite number where the mask is False
        p = softmax(a) over the keys
        y = dense(p v, heads merged)

    A query whose keys are all masked has equal scores: its weights are uniform, not NaN.

    Args:
        params: query, key, value, output: kernel [D, D] and bias [D] each.
        x: [B, T, D].
        mask: bool [B, T, S].
        rotation: the rotary positions of ModernBERT, see `rotary.rotations`.
    Returns:
        y [B, T, D], cache.
    """
    projected = {name: dense(params[name], x) for name in ("query", "key", "value")}
    q, k, v = (split_heads(y, num_attention_heads) for y, _ in projected.values())  # [B, T, N, H]
    if rotation is not None:
        q, k = rotate(q, rotation), rotate(k, rotation)
    scores = np.einsum("BTNH,BSNH->BNTS", q, k) / math.sqrt(q.shape[-1])  # [B, N, T, S]
    scores = np.where(mask[:, None], scores, np.finfo(scores.dtype).min)
    weights, softmax_cache = softmax(scores)  # p
    context = merge_heads(np.einsum("BNTS,BSNH->BTNH", weights, v))  # [B, T, D]
    y, output_cache = dense(params["output"], context)
    dense_caches = {name: cache for name, (_, cache) in projected.items()}
    return y, (q, k, v, weights, mask, dense_caches, softmax_cache, output_cache, rotation)


def attention_backward(dy, cache):
    """Computes the gradients in reverse order.

        dc = dense backward of dy, c being the context p v
        dp = dc v^T;  dv = p^T dc
        da = softmax backward of dp, 0 where the score was replaced
        dq = da k / sqrt(H);  dk = da^T q / sqrt(H)
        dx = the sum of the three dense backwards of dq, dk, dv, since x was used three times

    The gradient of the key's bias is zero: q_t . b is the same for every key, and softmax ignores a common shift.
    """
    q, k, v, weights, mask, dense_caches, softmax_cache, output_cache, rotation = cache
    dcontext, output_gradient = dense_backward(dy, output_cache)
    dcontext = split_heads(dcontext, q.shape[-2])  # [B, T, N, H]
    dweights = np.einsum("BTNH,BSNH->BNTS", dcontext, v)  # dp
    dv = np.einsum("BNTS,BTNH->BSNH", weights, dcontext)
    dscores = np.where(mask[:, None], softmax_backward(dweights, softmax_cache), 0) / math.sqrt(q.shape[-1])
    dq = np.einsum("BNTS,BSNH->BTNH", dscores, k)
    dk = np.einsum("BNTS,BTNH->BSNH", dscores, q)
    if rotation is not None:
        dq, dk = rotate_backward(dq, rotation), rotate_backward(dk, rotation)

    dx = 0
    gradient = {"output": output_gradient}
    for name, dprojected in (("query", dq), ("key", dk), ("value", dv)):
        dx_projection, gradient[name] = dense_backward(merge_heads(dprojected), dense_caches[name])
        dx = dx + dx_projection
    return dx, gradient
