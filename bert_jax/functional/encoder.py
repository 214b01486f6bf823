"""The encoder: L layers of attention and feed-forward, each followed by a residual connection and a layer norm.

ModernBERT's layers are others, see `functional.modern`; the loop over them is the same.

The parameters of all layers are stacked on a leading axis L, and `jax.lax.scan` runs one compiled layer over them, so
compile time does not grow with depth. `unroll` compiles several layers per iteration where that measures faster.

References: Vaswani et al., Attention Is All You Need, 2017, section 3.1. Chen et al., Training Deep Nets with Sublinear
Memory Cost, 2016 (rematerialization).
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from bert_jax.config import BertConfig
from bert_jax.functional.attention import attention
from bert_jax.functional.fused_attention import SAVED_NAMES
from bert_jax.functional.layers import activation, dense, dropout, layer_norm
from bert_jax.functional.modern import modern_layer, neighborhood

REMAT = ("auto", "none", "dots", "full")
# Matrix products and what the attention kernel computes.
DOTS = jax.checkpoint_policies.save_from_both_policies(
    jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    jax.checkpoint_policies.save_only_these_names(*SAVED_NAMES),
)


def rematerialize(layer: Callable, remat: str, *, unrolled: bool) -> Callable:
    """Returns the layer such that its backward pass recomputes what `remat` says, see `encoder`.

    Args:
        unrolled: whether the layers are not in a loop. In a loop, the forward and the backward pass are apart, and XLA
            cannot replace the recomputation by stored results. Elsewhere it would (common subexpressions), and
            `prevent_cse` forbids that.
    """
    if remat == "auto":
        # A loop stores what it keeps in arrays of all layers, at the cost of copies; without one nothing is copied.
        remat = "none" if unrolled else "dots"
    if remat == "none":
        return layer
    return jax.checkpoint(layer, policy=DOTS if remat == "dots" else None, prevent_cse=unrolled)


def feed_forward(params, x: Array, *, hidden_act: str) -> Array:
    """Returns down(act(up(x))): [B, T, D] -> [B, T, F] -> [B, T, D]."""
    return dense(params["down"], activation(hidden_act)(dense(params["up"], x)))


def encoder_layer(
    params, x: Array, mask: Array, *, config: BertConfig, kernel: str | None = None, key: Array | None
) -> tuple[Array, Array | None]:
    """Returns a layer's output [B, T, D] and its attention weights [B, N, T, S].

    x = norm(x + attention(x)), then x = norm(x + feed_forward(x)). `mask` and `kernel` are those of `attention`.
    """
    keys = (None, None, None) if key is None else jax.random.split(key, 3)
    rate = config.hidden_dropout_prob

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
        x = x + dropout(attended, rate=rate, key=keys[1])
        x = layer_norm(params["attention"]["norm"], x, eps=config.layer_norm_eps)
    with jax.named_scope("feed_forward"):
        transformed = feed_forward(params["feed_forward"], x, hidden_act=config.hidden_act)
        x = x + dropout(transformed, rate=rate, key=keys[2])
        x = layer_norm(params["feed_forward"]["norm"], x, eps=config.layer_norm_eps)
    return x, weights


def encoder(
    params,
    x: Array,
    mask: Array,
    position_ids: Array | None = None,
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
        mask: bool [B, 1, T, S] from `make_attention_mask`; with a kernel the sequence numbers, int [B, T].
        position_ids: int [B, T]; read by ModernBERT's layers only, which have no kernel.
        remat: what the backward pass recomputes: `none`, `dots` (everything but matrix products and the results of the
            attention kernel), `full` (the whole layer), or `auto` (`none` if all layers are unrolled, else `dots`).
        unroll: number of layers per iteration of the compiled loop.
        frozen_layers: number of layers, from the bottom, that receive no gradient; their backward pass is not run.
        kernel: one of `attention_kernels.KERNELS`, or None for plain matrix products.
        output_hidden_states: whether to return every layer's output.
        output_attentions: whether to return every layer's attention weights; kernels have none.

    Returns:
        The last layer's output [B, T, D]; all layers' outputs [L, B, T, D] or None; all attention weights
        [L, B, N, T, S] or None.
    """

    around = None
    if config.family.is_modern:
        assert position_ids is not None
        assert kernel is None
        around = neighborhood(mask, position_ids, config)

    def layer(x, inputs):
        index, layer_params = inputs
        layer_key = None if key is None else jax.random.fold_in(key, index)  # independent of unroll and of freezing
        if around is None:
            x, weights = encoder_layer(layer_params, x, mask, config=config, kernel=kernel, key=layer_key)
        else:
            x, weights = modern_layer(layer_params, x, around, index, config=config, key=layer_key)
        return x, (x if output_hidden_states else None, weights if output_attentions else None)

    def run(x, first: int, last: int):
        indexed = (jnp.arange(config.num_hidden_layers), params)
        layers = jax.tree.map(lambda leaf: leaf[first:last], indexed)
        step = rematerialize(layer, remat, unrolled=unroll >= last - first)
        return jax.lax.scan(step, x, layers, unroll=unroll)

    if not frozen_layers:
        x, (hidden_states, attentions) = run(x, 0, config.num_hidden_layers)
        return x, hidden_states, attentions
    # Two scans, the gradient stopped between them: with one scan, the backward pass would still visit every layer.
    x, lower = run(x, 0, frozen_layers)
    x, upper = run(jax.lax.stop_gradient(x), frozen_layers, config.num_hidden_layers)
    hidden_states, attentions = jax.tree.map(lambda *halves: jnp.concatenate(halves), lower, upper)
    return x, hidden_states, attentions
