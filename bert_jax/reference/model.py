"""Whole models: embeddings, encoder and one or more objectives; the loss and its gradient.

Pretraining has two objectives, masked LM and next sentence, on the same last hidden state x: the two losses are added,
and so are their two gradients dx. Every other model has one objective.

`config` is any object with num_attention_heads, hidden_act, masked_lm_act, layer_norm_eps, problem_type; and with what
differs between families: position_offset, pad_token_id, uses_token_types, family.offset_positions, family.layer_act,
family.is_modern; for ModernBERT also the fields of `modern_config`. `batch` is a dict of arrays.
"""

import numpy as np

from bert_jax.reference.attention import make_attention_mask
from bert_jax.reference.embeddings import embeddings, embeddings_backward
from bert_jax.reference.encoder import encoder, encoder_backward
from bert_jax.reference.layers import layer_norm, layer_norm_backward
from bert_jax.reference.modern import modern_encoder, modern_layer_backward
from bert_jax.reference.objectives import OBJECTIVES

PRETRAINING = ("masked_lm", "next_sentence")


def bert(params, batch, config):
    """Computes the last hidden state from token ids.

    Args:
        batch: input_ids int [..., T]; optionally attention_mask (default: ones), token_type_ids (default: zeros),
            position_ids (default: 0 to T-1, without padding for RoBERTa) of the same shape. The axes before T are
            flattened into B.
    Returns:
        x [B, T, D], cache.
    """
    ids = batch["input_ids"]
    mask = batch.get("attention_mask", np.ones_like(ids))
    token_types = batch.get("token_type_ids", np.zeros_like(ids))
    counted = ids != config.pad_token_id if config.family.offset_positions else np.ones_like(ids)
    positions = batch.get("position_ids", np.maximum(np.cumsum(counted, axis=-1) - 1, 0))
    if not config.uses_token_types:
        token_types = np.zeros_like(ids)
    ids, mask, token_types, positions = (a.reshape(-1, a.shape[-1]) for a in (ids, mask, token_types, positions))
    x, embeddings_cache = embeddings(
        params["embeddings"],
        ids,
        token_types,
        positions + config.position_offset,
        layer_norm_eps=config.layer_norm_eps,
        sinusoidal=not config.family.is_modern,
    )
    if config.family.is_modern:
        x, encoder_cache = modern_encoder(params["encoder"], x, make_attention_mask(mask), positions, config)
        x, norm_cache = layer_norm(params["final_norm"], x, layer_norm_eps=config.layer_norm_eps)
        return x, (embeddings_cache, encoder_cache, norm_cache)
    x, encoder_cache = encoder(
        params["encoder"],
        x,
        make_attention_mask(mask),
        num_attention_heads=config.num_attention_heads,
        hidden_act=config.hidden_act,
        layer_norm_eps=config.layer_norm_eps,
    )
    return x, (embeddings_cache, encoder_cache, None)


def bert_backward(dx, cache):
    """The backward pass through encoder and embeddings; returns the gradient only, because ids have none."""
    embeddings_cache, encoder_cache, norm_cache = cache
    gradient = {}
    if norm_cache is None:
        dx, gradient["encoder"] = encoder_backward(dx, encoder_cache)
    else:
        dx, gradient["final_norm"] = layer_norm_backward(dx, norm_cache)
        dx, gradient["encoder"] = encoder_backward(dx, encoder_cache, modern_layer_backward)
    return gradient | {"embeddings": embeddings_backward(dx, embeddings_cache)}


def add_trees(left, right):
    """Returns the sum of two trees of dicts; a leaf that only one of them has is kept."""
    if not isinstance(left, dict):
        return left + right
    shared = {name: add_trees(left[name], right[name]) for name in left.keys() & right.keys()}
    return left | right | shared


def loss(params, batch, config, *, objectives=PRETRAINING):
    """The forward pass.

    Args:
        objectives: keys of OBJECTIVES; the loss is the sum of their losses.
    Returns:
        loss (a float), outputs by name, cache.
    """
    x, bert_cache = bert(params, batch, config)
    total = 0.0
    outputs = {"last_hidden_state": x}
    caches = {}
    for name in objectives:
        objective, _ = OBJECTIVES[name]
        value, logits, caches[name] = objective(params, x, batch, config)
        total += value
        outputs |= logits
    return total, outputs, (bert_cache, caches)


def loss_backward(cache):
    """The backward pass: x was used by every objective, so dx is a sum, as is the gradient of a table used twice.

    Returns:
        The gradient of the loss, a tree like params.
    """
    bert_cache, caches = cache
    dx = 0
    gradient = {}
    for name, objective_cache in caches.items():
        _, objective_backward = OBJECTIVES[name]
        dx_objective, gradient_objective = objective_backward(objective_cache)
        dx = dx + dx_objective
        gradient = add_trees(gradient, gradient_objective)
    return add_trees(gradient, bert_backward(dx, bert_cache))


def loss_and_gradient(params, batch, config, *, objectives=PRETRAINING):
    """Returns loss, outputs by name and gradient."""
    value, outputs, cache = loss(params, batch, config, objectives=objectives)
    return value, outputs, loss_backward(cache)
