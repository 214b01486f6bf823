"""Whole models: embeddings and encoder below, one or more objectives on top, the loss and its gradient.

Pretraining is two objectives, masked LM and next sentence, on the same last hidden state x: the two losses add, and so
do the two dx that come back. Every other model is one objective.

`config` is anything with num_attention_heads, hidden_act, layer_norm_eps and problem_type; `batch` is a dict of arrays.
"""

import numpy as np

from bert_jax.reference.attention import visibility
from bert_jax.reference.embeddings import embeddings, embeddings_backward
from bert_jax.reference.encoder import encoder, encoder_backward
from bert_jax.reference.objectives import OBJECTIVES

PRETRAINING = ("masked_lm", "next_sentence")


def bert(params, batch, config):
    """Turns token ids into the last hidden state.

    Args:
        batch: input_ids int [..., T]; attention_mask, token_type_ids, position_ids of the same shape, or absent: all
            visible, all segment A, counting from 0. The axes before T are flattened into B.
    Returns:
        x [B, T, D], cache.
    """
    ids = batch["input_ids"]
    mask = batch.get("attention_mask", np.ones_like(ids))
    token_types = batch.get("token_type_ids", np.zeros_like(ids))
    positions = batch.get("position_ids", np.broadcast_to(np.arange(ids.shape[-1]), ids.shape))
    ids, mask, token_types, positions = (a.reshape(-1, a.shape[-1]) for a in (ids, mask, token_types, positions))
    x, embeddings_cache = embeddings(
        params["embeddings"], ids, token_types, positions, layer_norm_eps=config.layer_norm_eps
    )
    x, encoder_cache = encoder(
        params["encoder"],
        x,
        visibility(mask),
        num_attention_heads=config.num_attention_heads,
        hidden_act=config.hidden_act,
        layer_norm_eps=config.layer_norm_eps,
    )
    return x, (embeddings_cache, encoder_cache)


def bert_backward(dx, cache):
    """Goes back through encoder and embeddings; returns the gradient alone, for ids have none."""
    embeddings_cache, encoder_cache = cache
    dx, encoder_gradient = encoder_backward(dx, encoder_cache)
    return {"embeddings": embeddings_backward(dx, embeddings_cache), "encoder": encoder_gradient}


def add_trees(left, right):
    """Adds two trees of dicts where they meet, and keeps what only one of them has."""
    if not isinstance(left, dict):
        return left + right
    both = {name: add_trees(left[name], right[name]) for name in left.keys() & right.keys()}
    return left | right | both


def loss(params, batch, config, *, objectives=PRETRAINING):
    """Runs a model forward.

    Args:
        objectives: keys of OBJECTIVES; the loss is the sum of theirs.
    Returns:
        loss (a float), outputs by name, cache.
    """
    x, bert_cache = bert(params, batch, config)
    total, outputs, caches = 0.0, {"last_hidden_state": x}, {}
    for name in objectives:
        objective, _ = OBJECTIVES[name]
        value, logits, caches[name] = objective(params, x, batch, config)
        total, outputs = total + value, outputs | logits
    return total, outputs, (bert_cache, caches)


def loss_backward(cache):
    """Runs it back: x was used by every objective, so dx is a sum; a table used twice gets a sum as well.

    Returns:
        The gradient of the loss, a tree like params.
    """
    bert_cache, caches = cache
    dx, gradient = 0, {}
    for name, objective_cache in caches.items():
        _, objective_backward = OBJECTIVES[name]
        dx_part, gradient_part = objective_backward(objective_cache)
        dx, gradient = dx + dx_part, add_trees(gradient, gradient_part)
    return add_trees(gradient, bert_backward(dx, bert_cache))


def loss_and_gradient(params, batch, config, *, objectives=PRETRAINING):
    """Runs forward and back; returns loss, outputs by name, gradient."""
    value, outputs, cache = loss(params, batch, config, objectives=objectives)
    return value, outputs, loss_backward(cache)
