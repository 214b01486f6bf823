"""The pooler, with the layers that other families have in its place, and the masked-LM head.

The other heads (next sentence, classifier, span) are one dense layer each.

References: Devlin et al., BERT, 2018, section 3.1; the head's transform is in google-research/bert, run_pretraining.py.
"""

import numpy as np

from bert_jax.reference.layers import (
    activation,
    activation_backward,
    dense,
    dense_backward,
    layer_norm,
    layer_norm_backward,
)


def gather(x, positions):
    """Selects tokens of each row: y[b, p] = x[b, positions[b, p]].

    Args:
        x: [B, T, D].
        positions: int [B, P], or [B] for one token per row.
    Returns:
        y [B, P, D] or [B, D], cache.
    """
    rows = np.arange(len(x)).reshape(-1, *[1] * (positions.ndim - 1))  # [B, 1] or [B]: broadcasts with positions
    return x[rows, positions], (x, rows, positions)


def gather_backward(dy, cache):
    """dx[b, t] = the sum of dy[b, p] over all p with positions[b, p] = t."""
    x, rows, positions = cache
    dx = np.zeros_like(x)
    np.add.at(dx, (rows, positions), dy)
    return dx


def pooler(params, x, cls_positions=None, *, act="tanh"):
    """Represents a sequence by its [CLS] token: y = f(dense(x[cls])), where f is tanh in BERT.

    Args:
        params: kernel [D, D], bias [D].
        x: [B, T, D].
        cls_positions: int [B, S], one per sequence in the row; None = the first token of each row.
        act: the name of f.
    Returns:
        y [B, S, D] or [B, D], cache.
    """
    positions = np.zeros(len(x), np.int64) if cls_positions is None else cls_positions
    first, gather_cache = gather(x, positions)  # [B, S, D] or [B, D]
    hidden, dense_cache = dense(params, first)
    y, activation_cache = activation(hidden, hidden_act=act)
    return y, (activation_cache, dense_cache, gather_cache)


def pooler_backward(dy, cache):
    """Goes back through the activation, dense, gather."""
    activation_cache, dense_cache, gather_cache = cache
    dfirst, gradient = dense_backward(activation_backward(dy, activation_cache), dense_cache)
    return gather_backward(dfirst, gather_cache), gradient


def mean_pool(x, attention_mask):
    """Represents a sequence by the mean over its tokens: ModernBERT's pooling `mean`.

    Args:
        x: [B, T, D].
        attention_mask: int [B, T] of ones and zeros: one sequence per row.
    Returns:
        y [B, D], cache.
    """
    shares = attention_mask / attention_mask.sum(axis=1, keepdims=True)  # [B, T]
    return np.einsum("BT,BTD->BD", shares, x), shares


def mean_pool_backward(dy, cache):
    """dx[b, t] = the share of token t in the mean, times dy[b]."""
    return cache[:, :, None] * dy[:, None, :]


def prediction_head(params, x, *, hidden_act, layer_norm_eps):
    """Computes y = norm(f(dense(x))): the first part of the masked-LM head, and of all heads of ModernBERT.

    Args:
        params: transform: kernel [D, D], bias [D]; norm: scale [D], bias [D].
        x: [..., D].
    Returns:
        y [..., D], cache.
    """
    hidden, transform_cache = dense(params["transform"], x)
    hidden, activation_cache = activation(hidden, hidden_act=hidden_act)
    y, norm_cache = layer_norm(params["norm"], hidden, layer_norm_eps=layer_norm_eps)
    return y, (transform_cache, activation_cache, norm_cache)


def prediction_head_backward(dy, cache):
    """The backward pass through norm, activation, dense."""
    transform_cache, activation_cache, norm_cache = cache
    dhidden, norm_gradient = layer_norm_backward(dy, norm_cache)
    dx, transform_gradient = dense_backward(activation_backward(dhidden, activation_cache), transform_cache)
    return dx, {"transform": transform_gradient, "norm": norm_gradient}


def masked_lm(params, word, x, masked_positions=None, *, hidden_act, layer_norm_eps):
    """Computes logits over the vocabulary at each masked position: norm(f(dense(x))) E^T + b.

    E is the word embedding table, used a second time: the decoder is tied to it.

    Args:
        params: those of `prediction_head`; bias b [V], 0 if there is none.
        word: E [V, D]; if its rows are smaller than D, so are the outputs of transform and norm.
        x: [B, T, D].
        masked_positions: int [B, P]; None = every token, P = T.
    Returns:
        logits [B, P, V], cache.
    """
    all_positions = np.broadcast_to(np.arange(x.shape[1]), x.shape[:2])
    selected, gather_cache = gather(x, all_positions if masked_positions is None else masked_positions)
    hidden, head_cache = prediction_head(params, selected, hidden_act=hidden_act, layer_norm_eps=layer_norm_eps)
    bias = {"bias": params["bias"]} if "bias" in params else {}
    logits, decoder_cache = dense({"kernel": word.T, **bias}, hidden)
    return logits, (gather_cache, head_cache, decoder_cache)


def masked_lm_backward(dlogits, cache):
    """The decoder's kernel is E^T, so its gradient, transposed, is this head's contribution to dE.

    Returns:
        dx [B, T, D], gradient, dword [V, D], to be added to the gradient of the embeddings' lookup in the same table.
    """
    gather_cache, head_cache, decoder_cache = cache
    dhidden, decoder_gradient = dense_backward(dlogits, decoder_cache)
    dword = decoder_gradient.pop("kernel").T
    dselected, gradient = prediction_head_backward(dhidden, head_cache)
    return gather_backward(dselected, gather_cache), gradient | decoder_gradient, dword
