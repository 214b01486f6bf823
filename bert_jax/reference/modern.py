"""The encoder of ModernBERT: norms before the blocks, rotary positions, GeGLU, local and global attention.

A norm before a block ("pre-LN") leaves the path of the residual connections free of norms; the one after the last layer
is `final_norm` of the model. Layer l is global if l is a multiple of n: its tokens attend to their whole sequence.
In the other layers they attend to tokens at a distance of at most w / 2.

References: Warner et al., ModernBERT, 2024, section 2.1. Shazeer, GLU Variants Improve Transformer, 2020.
"""

import numpy as np

from bert_jax.reference.attention import attention, attention_backward
from bert_jax.reference.encoder import layer_slice
from bert_jax.reference.layers import (
    activation,
    activation_backward,
    dense,
    dense_backward,
    layer_norm,
    layer_norm_backward,
)
from bert_jax.reference.rotary import rotations


def gated_feed_forward(params, x, *, hidden_act):
    """Computes y = dense_down(f(dense_up(x)) * dense_gate(x)) at each position.

    Args:
        params: up, gate: kernel [D, F]; down: kernel [F, D]; a bias each if the model has them.
        x: [B, T, D].
    Returns:
        y [B, T, D], cache.
    """
    inner, up_cache = dense(params["up"], x)  # [B, T, F]
    inner, activation_cache = activation(inner, hidden_act=hidden_act)
    gate, gate_cache = dense(params["gate"], x)  # [B, T, F]
    y, down_cache = dense(params["down"], inner * gate)
    return y, (up_cache, activation_cache, inner, gate, gate_cache, down_cache)


def gated_feed_forward_backward(dy, cache):
    """A product passes to each factor its gradient times the other factor; x was used twice, so dx is a sum."""
    up_cache, activation_cache, inner, gate, gate_cache, down_cache = cache
    dproduct, down_gradient = dense_backward(dy, down_cache)
    dx_up, up_gradient = dense_backward(activation_backward(dproduct * gate, activation_cache), up_cache)
    dx_gate, gate_gradient = dense_backward(dproduct * inner, gate_cache)
    return dx_up + dx_gate, {"up": up_gradient, "gate": gate_gradient, "down": down_gradient}


def modern_layer(params, x, mask, rotation, *, is_first, num_attention_heads, hidden_act, layer_norm_eps):
    """Computes one layer: y = x + attention(norm(x)), z = y + feed_forward(norm(y)).

    Args:
        params: attention and feed_forward of one layer, each with its norm.
        x: [B, T, D].
        mask: bool [B, T, S].
        rotation: see `rotary.rotations`.
        is_first: whether it is layer 0, which has no norm before its attention.
    Returns:
        z [B, T, D], cache.
    """
    normalized, attention_norm_cache = layer_norm(params["attention"]["norm"], x, layer_norm_eps=layer_norm_eps)
    mixed, attention_cache = attention(
        params["attention"],
        x if is_first else normalized,
        mask,
        num_attention_heads=num_attention_heads,
        rotation=rotation,
    )
    y = x + mixed
    normalized, feed_forward_norm_cache = layer_norm(params["feed_forward"]["norm"], y, layer_norm_eps=layer_norm_eps)
    transformed, feed_forward_cache = gated_feed_forward(params["feed_forward"], normalized, hidden_act=hidden_act)
    caches = (attention_norm_cache, attention_cache, feed_forward_norm_cache, feed_forward_cache)
    return y + transformed, (is_first, *caches)


def modern_layer_backward(dz, cache):
    """The residual connection passes the gradient on; the block adds what comes back through its norm."""
    is_first, attention_norm_cache, attention_cache, feed_forward_norm_cache, feed_forward_cache = cache
    dnormalized, feed_forward_gradient = gated_feed_forward_backward(dz, feed_forward_cache)
    dblock, feed_forward_norm_gradient = layer_norm_backward(dnormalized, feed_forward_norm_cache)
    dy = dz + dblock
    dnormalized, attention_gradient = attention_backward(dy, attention_cache)
    dblock, attention_norm_gradient = layer_norm_backward(0 * dy if is_first else dnormalized, attention_norm_cache)
    return dy + (dnormalized if is_first else dblock), {
        "attention": attention_gradient | {"norm": attention_norm_gradient},
        "feed_forward": feed_forward_gradient | {"norm": feed_forward_norm_gradient},
    }


def modern_encoder(params, x, mask, position_ids, config):
    """Computes all layers in order.

    Args:
        params: as for modern_layer, every array with a leading L.
        x: [B, T, D].
        mask: bool [B, T, S].
        position_ids: int [B, T].
        config: as for `model.bert`.
    Returns:
        y [B, T, D], cache.
    """
    distance = np.abs(np.arange(x.shape[1])[:, None] - np.arange(x.shape[1]))  # [T, S]
    near = mask & (distance <= config.local_attention // 2)
    head_size = x.shape[-1] // config.num_attention_heads
    caches = []
    for layer in range(len(params["attention"]["norm"]["scale"])):
        is_global = layer % config.global_attn_every_n_layers == 0
        theta = config.global_rope_theta if is_global else config.local_rope_theta
        x, cache = modern_layer(
            layer_slice(params, layer),
            x,
            mask if is_global else near,
            rotations(position_ids, head_size, theta),
            is_first=layer == 0,
            num_attention_heads=config.num_attention_heads,
            hidden_act=config.hidden_act,
            layer_norm_eps=config.layer_norm_eps,
        )
        caches.append(cache)
    return x, caches
