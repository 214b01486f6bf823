"""ModernBERT's layer: norms before the blocks, rotary positions, GeGLU, and local attention in most layers.

Every n-th layer attends to the whole sequence (global), the others to a window around each token (local). Each kind has
its own wavelengths of the rotary positions. Layers are stacked and run by one loop, so which kind a layer is, is data:
mask and rotation are selected by the layer's index.

References: Warner et al., ModernBERT, 2024, section 2.1. Su et al., RoFormer, 2021 (rotary positions). Shazeer, GLU
Variants Improve Transformer, 2020 (GeGLU). Beltagy et al., Longformer, 2020 (local attention).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array

from bert_jax.config import BertConfig
from bert_jax.functional.attention import attention
from bert_jax.functional.layers import activation, dense, dropout, layer_norm


class Neighborhood(NamedTuple):
    """What the two kinds of layers do not share, index 0 = local, 1 = global.

    Attributes:
        masks: bool [2, B, 1, T, S].
        rotations: cosine and sine of the angles, [2, 2, B, T, 1, H / 2]; float32, or float64 for that dtype.
    """

    masks: Array
    rotations: Array


def neighborhood(mask: Array, position_ids: Array, config: BertConfig) -> Neighborhood:
    """Returns masks and rotations for mask [B, 1, T, S] from `make_attention_mask` and position_ids, int [B, T]."""
    place = jnp.arange(mask.shape[-1], dtype=jnp.int32)
    # Sequences of a packed row are contiguous, so places in the row are as far apart as positions.
    near = jnp.abs(place[:, None] - place[None, :]) <= config.local_attention // 2  # [T, S]
    head_size = config.hidden_size // config.num_attention_heads
    thetas = (config.local_rope_theta, config.global_rope_theta)
    return Neighborhood(
        jnp.stack([mask & near[None, None], mask]),
        jnp.stack([rotations(position_ids, head_size, theta, config.dtype) for theta in thetas]),
    )


def rotations(position_ids: Array, head_size: int, theta: float, dtype: str) -> Array:
    """Returns cosine and sine of p / theta^(2i / H) for position p and pair i: [2, B, T, 1, H / 2]."""
    wide = jnp.promote_types(dtype, jnp.float32)
    pairs = jnp.arange(0, head_size, 2, dtype=wide) / head_size
    frequencies = 1.0 / jnp.asarray(theta, wide) ** pairs
    angles = position_ids[:, :, None, None].astype(wide) * frequencies[None, None, None, :]
    return jnp.stack([jnp.cos(angles), jnp.sin(angles)])


def rotate(x: Array, rotation: Array) -> Array:
    """Returns x [B, T, D] with the pairs (i, i + H / 2) of each head rotated by the angles of their position.

    The product of a query and a key then depends on the distance of their positions, not on the positions.

    Args:
        rotation: cosine and sine, [2, B, T, 1, H / 2].
    """
    B, T, D = x.shape
    cosine, sine = rotation
    heads = x.reshape(B, T, -1, 2 * sine.shape[-1]).astype(sine.dtype)  # [B, T, N, H]
    first, second = jnp.split(heads, 2, axis=-1)
    rotated = jnp.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)
    return rotated.astype(x.dtype).reshape(B, T, D)


def gated_feed_forward(params, x: Array, *, config: BertConfig, key: Array | None) -> Array:
    """Returns down(act(up(x)) * gate(x)): [B, T, D] -> [B, T, F] -> [B, T, D]."""
    inner = activation(config.hidden_act)(dense(params["up"], x)) * dense(params["gate"], x)
    return dense(params["down"], dropout(inner, rate=config.mlp_dropout, key=key))


def modern_layer(
    params, x: Array, around: Neighborhood, index: Array | int, *, config: BertConfig, key: Array | None
) -> tuple[Array, Array | None]:
    """Returns a layer's output [B, T, D] and its attention weights [B, N, T, S].

    x = x + attention(norm(x)), then x = x + feed_forward(norm(x)). The first layer has no norm before its attention,
    because the embeddings end with one; its row of the stacked norms is not used.

    Args:
        index: the number of the layer, from 0: an integer, or int [] in a loop.
    """
    keys = (None, None, None) if key is None else jax.random.split(key, 3)
    rate = config.attention_probs_dropout_prob
    is_global = jnp.asarray(index % config.global_attn_every_n_layers == 0, jnp.int32)
    with jax.named_scope("attention"):
        normalized = layer_norm(params["attention"]["norm"], x, eps=config.layer_norm_eps)
        rotation = around.rotations[is_global]
        attended, weights = attention(
            params["attention"],
            jnp.where(index == 0, x, normalized),
            around.masks[is_global],
            num_heads=config.num_attention_heads,
            dropout_rate=rate,
            rotate=lambda heads: rotate(heads, rotation),
            key=keys[0],
        )
        x = x + dropout(attended, rate=rate, key=keys[1])
    with jax.named_scope("feed_forward"):
        normalized = layer_norm(params["feed_forward"]["norm"], x, eps=config.layer_norm_eps)
        x = x + gated_feed_forward(params["feed_forward"], normalized, config=config, key=keys[2])
    return x, weights
