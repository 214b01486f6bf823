"""The encoder: L layers of attention and feed-forward, each followed by a residual connection and a layer norm.

In BERT the norm comes after the addition ("post-LN"), so every path from the top to the bottom passes the norms. The
parameters of all layers are stacked on a leading axis L; layer l uses slice l of every array.

References: Devlin et al., BERT: Pre-training of Deep Bidirectional Transformers, 2018, section 3.
"""

import numpy as np

from bert_jax.reference.attention import attention, attention_backward
from bert_jax.reference.layers import (
    activation,
    activation_backward,
    dense,
    dense_backward,
    layer_norm,
    layer_norm_backward,
)


def feed_forward(params, x, *, hidden_act):
    """Computes y = dense_down(f(dense_up(x))) at each position.

    Args:
        params: up: kernel [D, F], bias [F]; down: kernel [F, D], bias [D].
        x: [B, T, D].
    Returns:
        y [B, T, D], cache.
    """
    inner, up_cache = dense(params["up"], x)  # [B, T, F]
    inner, activation_cache = activation(inner, hidden_act=hidden_act)
    y, down_cache = dense(params["down"], inner)
    return y, (up_cache, activation_cache, down_cache)


def feed_forward_backward(dy, cache):
    """The backward pass through down, activation, up."""
    up_cache, activation_cache, down_cache = cache
    dinner, down_gradient = dense_backward(dy, down_cache)
    dinner = activation_backward(dinner, activation_cache)
    dx, up_gradient = dense_backward(dinner, up_cache)
    return dx, {"up": up_gradient, "down": down_gradient}


def encoder_layer(params, x, mask, *, num_attention_heads, hidden_act, layer_norm_eps):
    """Computes one layer: y = norm(x + attention(x)), z = norm(y + feed_forward(y)).

    Args:
        params: attention and feed_forward of one layer, each with its norm.
        x: [B, T, D].
        mask: bool [B, T, S].
    Returns:
        z [B, T, D], cache.
    """
    mixed, attention_cache = attention(params["attention"], x, mask, num_attention_heads=num_attention_heads)
    y, attention_norm_cache = layer_norm(params["attention"]["norm"], x + mixed, layer_norm_eps=layer_norm_eps)
    transformed, feed_forward_cache = feed_forward(params["feed_forward"], y, hidden_act=hidden_act)
    z, feed_forward_norm_cache = layer_norm(
        params["feed_forward"]["norm"], y + transformed, layer_norm_eps=layer_norm_eps
    )
    return z, (attention_cache, attention_norm_cache, feed_forward_cache, feed_forward_norm_cache)


def encoder_layer_backward(dz, cache):
    """A sum passes its gradient to both terms, so each residual connection adds: dx = dsum + backward(dsum)."""
    attention_cache, attention_norm_cache, feed_forward_cache, feed_forward_norm_cache = cache
    dsum, feed_forward_norm_gradient = layer_norm_backward(dz, feed_forward_norm_cache)
    dtransformed, feed_forward_gradient = feed_forward_backward(dsum, feed_forward_cache)
    dy = dsum + dtransformed
    dsum, attention_norm_gradient = layer_norm_backward(dy, attention_norm_cache)
    dmixed, attention_gradient = attention_backward(dsum, attention_cache)
    return dsum + dmixed, {
        "attention": attention_gradient | {"norm": attention_norm_gradient},
        "feed_forward": feed_forward_gradient | {"norm": feed_forward_norm_gradient},
    }


def layer_slice(tree, layer):
    """Returns one layer of a tree of stacked arrays."""
    return {k: layer_slice(v, layer) if isinstance(v, dict) else v[layer] for k, v in tree.items()}


def stack_layers(trees):
    """Returns trees of one layer each stacked on a new leading axis L: the inverse of layer_slice."""
    return {
        k: stack_layers([t[k] for t in trees]) if isinstance(v, dict) else np.stack([t[k] for t in trees])
        for k, v in trees[0].items()
    }


def encoder(params, x, mask, **options):
    """Computes all layers in order.

    Args:
        params: as for encoder_layer, every array with a leading L.
        x: [B, T, D].
        mask: bool [B, T, S].
        options: as for encoder_layer.
    Returns:
        y [B, T, D], cache.
    """
    caches = []
    for layer in range(len(params["attention"]["norm"]["scale"])):
        x, cache = encoder_layer(layer_slice(params, layer), x, mask, **options)
        caches.append(cache)
    return x, caches


def encoder_backward(dy, cache, layer_backward=encoder_layer_backward):
    """The backward pass, last layer first."""
    gradients = []
    for layer_cache in reversed(cache):
        dy, gradient = layer_backward(dy, layer_cache)
        gradients.append(gradient)
    return dy, stack_layers(gradients[::-1])
