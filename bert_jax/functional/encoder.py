"""The stack of encoder layers: attention and feed-forward, each with a residual connection and layer norm after it.

The layers' parameters lie stacked on a leading axis L and `jax.lax.scan` runs one compiled layer over them: compile
time does not grow with depth. `unroll` writes several layers out, for shapes where that measures better.

References: Vaswani et al., Attention Is All You Need, 2017, section 3.1. Chen et al., Training Deep Nets with Sublinear
Memory Cost, 2016 (rematerialisation).
"""

import jax
import jax.numpy as jnp
from jax import Array

from bert_jax.config import BertConfig
from bert_jax.functional.attention import attention
from bert_jax.functional.layers import activation, dense, dropout, layer_norm

REMAT = {
    "none": lambda layer: layer,
    "dots": lambda layer: jax.checkpoint(
        layer, policy=jax.checkpoint_policies.dots_with_no_batch_dims_saveable, prevent_cse=False
    ),
    "full": lambda layer: jax.checkpoint(layer, prevent_cse=False),
    "auto": lambda layer: REMAT["dots" if jax.default_backend() == "cpu" else "none"](layer),  # noqa: PLW0108
}


def feed_forward(params, x: Array, *, hidden_act: str) -> Array:
    """Returns down(act(up(x))): [B, T, D] -> [B, T, F] -> [B, T, D]."""
    return dense(params["down"], activation(hidden_act)(dense(params["up"], x)))


def encoder_layer(
    params, x: Array, mask: Array, *, config: BertConfig, kernel: str | None = None, key: Array | None
) -> tuple[Array, Array | None]:
    """Returns one layer's output [B, T, D] and its attention weights [B, N, T, S]; mask and kernel are attention's."""
    keys = (None, None, None) if key is None else jax.random.split(key, 3)
    drop, eps = config.hidden_dropout_prob, config.layer_norm_eps

    with jax.named_scope("attention"):
        attended, weights = attention(
            params["attention"],
            x,
            mask,
            num_heads=config.num_attention_heads,
            dropout_rate=config.attention_probs_dropout_prob,
            kernel=kernel,
            key=keys[0],
        )
        x = layer_norm(params["attention"]["norm"], x + dropout(attended, rate=drop, key=keys[1]), eps=eps)
    with jax.named_scope("feed_forward"):
        fed = feed_forward(params["feed_forward"], x, hidden_act=config.hidden_act)
        x = layer_norm(params["feed_forward"]["norm"], x + dropout(fed, rate=drop, key=keys[2]), eps=eps)
    return x, weights


def encoder(
    params,
    x: Array,
    mask: Array,
    *,
    config: BertConfig,
    remat: str = "none",
    unroll: int = 1,
    frozen_layers: int = 0,
    kernel: str | None = None,
    output_hidden_states: bool = False,
    output_attentions: bool = False,
    key: Array | None,
) -> tuple[Array, Array | None, Array | None]:
    """Runs x [B, T, D] through all L layers.

    Args:
        params: the `encoder` subtree; every leaf has a leading axis L.
        mask: bool [B, 1, T, S], see `attention.make_attention_mask`; with a kernel the sequence numbers, int [B, T].
        remat: what the backward pass computes again: `none`, `dots` (all but matrix products), `full` (the whole
        layer), `auto` (`dots` on CPUs, whose memory is slower than their arithmetic, elsewhere `none`).
        unroll: how many layers the compiled loop writes out a turn.
        frozen_layers: the lowest layers, which no gradient reaches; there is no backward pass through them.
        kernel: one of `attention_kernels.KERNELS`, which has neither dropout nor weights to give; None: matrix
        products.

    Returns:
        The last layer's output [B, T, D]; all layers' outputs [L, B, T, D] or None; all weights [L, B, N, T, S] or
        None.
    """

    def layer(x, inputs):
        index, layer_params = inputs
        layer_key = None if key is None else jax.random.fold_in(key, index)
        x, weights = encoder_layer(layer_params, x, mask, config=config, kernel=kernel, key=layer_key)
        return x, (x if output_hidden_states else None, weights if output_attentions else None)

    def run(x, first: int, last: int):
        some = jax.tree.map(lambda leaf: leaf[first:last], (jnp.arange(config.num_hidden_layers), params))
        return jax.lax.scan(REMAT[remat](layer), x, some, unroll=unroll)

    if not frozen_layers:
        x, (hidden_states, attentions) = run(x, 0, config.num_hidden_layers)
        return x, hidden_states, attentions
    x, below = run(x, 0, frozen_layers)
    x, above = run(jax.lax.stop_gradient(x), frozen_layers, config.num_hidden_layers)
    hidden_states, attentions = jax.tree.map(lambda *parts: jnp.concatenate(parts), below, above)
    return x, hidden_states, attentions
