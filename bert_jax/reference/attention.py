"""Multi-head self-attention and its derivative.

Each position t asks a question q_t, each position s offers a key k_s and a value v_s; t receives the values, weighted
by how well the keys answer. N heads do so side by side, each on its own H = D / N columns of the projections.

References: Vaswani et al., Attention Is All You Need, 2017, section 3.2.
"""

import math

import numpy as np

from bert_jax.reference.layers import dense, dense_backward, softmax, softmax_backward


def visibility(attention_mask):
    """Says which query t may see which key s: those of one and the same sequence, which is not padding.

    Args:
        attention_mask: int [B, T]; 0 = padding, otherwise the number of the sequence in its row.
    Returns:
        bool [B, T, S].
    """
    query, key = attention_mask[:, :, None], attention_mask[:, None, :]
    return (query == key) & (query != 0)


def split_heads(x, num_attention_heads):
    """[B, T, D] to [B, T, N, H]: head n owns columns n H to (n + 1) H."""
    return x.reshape(*x.shape[:-1], num_attention_heads, -1)


def merge_heads(x):
    """[B, T, N, H] to [B, T, D]; the inverse of split_heads, and hence also its derivative."""
    return x.reshape(*x.shape[:-2], -1)


def attention(params, x, visible, *, num_attention_heads):
    """Mixes every position with the positions it may see.

        q, k, v = dense(x) three times, split into heads
        a = q k^T / sqrt(H), replaced by the least finite number where the key is not visible
        p = softmax(a) over the keys
        y = dense(p v, heads merged)

    A query that sees nothing has equal scores all along its row: its weights are uniform, not NaN.

    Args:
        params: query, key, value, output: kernel [D, D] and bias [D] each.
        x: [B, T, D].
        visible: bool [B, T, S].
    Returns:
        y [B, T, D], cache.
    """
    projected = {name: dense(params[name], x) for name in ("query", "key", "value")}
    q, k, v = (split_heads(y, num_attention_heads) for y, _ in projected.values())
    scores = np.einsum("BTNH,BSNH->BNTS", q, k) / math.sqrt(q.shape[-1])
    scores = np.where(visible[:, None], scores, np.finfo(scores.dtype).min)
    weights, softmax_cache = softmax(scores)
    context = merge_heads(np.einsum("BNTS,BSNH->BTNH", weights, v))
    y, output_cache = dense(params["output"], context)
    dense_caches = {name: cache for name, (_, cache) in projected.items()}
    return y, (q, k, v, weights, visible, dense_caches, softmax_cache, output_cache)


def attention_backward(dy, cache):
    """Takes the same path back.

        dc = dense backward of dy, c being the context p v
        dp = dc v^T;  dv = p^T dc
        da = softmax backward of dp, and 0 where the score was replaced
        dq = da k / sqrt(H);  dk = da^T q / sqrt(H)
        dx = the sum of the three dense backwards of dq, dk, dv, since x was used three times

    The gradient of the key's bias is zero: q_t . b is the same for every key, and softmax ignores a common shift.
    """
    q, k, v, weights, visible, dense_caches, softmax_cache, output_cache = cache
    dcontext, output_gradient = dense_backward(dy, output_cache)
    dcontext = split_heads(dcontext, q.shape[-2])
    dweights = np.einsum("BTNH,BSNH->BNTS", dcontext, v)
    dv = np.einsum("BNTS,BTNH->BSNH", weights, dcontext)
    dscores = np.where(visible[:, None], softmax_backward(dweights, softmax_cache), 0) / math.sqrt(q.shape[-1])
    dq = np.einsum("BNTS,BSNH->BTNH", dscores, k)
    dk = np.einsum("BNTS,BTNH->BSNH", dscores, q)

    dx, gradient = 0, {"output": output_gradient}
    for name, dprojected in (("query", dq), ("key", dk), ("value", dv)):
        dx_part, gradient[name] = dense_backward(merge_heads(dprojected), dense_caches[name])
        dx = dx + dx_part
    return dx, gradient
