"""The mathematics of BERT as pure functions `f(params, arrays, *, options, key)`.

A function takes its subtree of the parameters first, then arrays, then keyword-only options, and the dropout key last;
`key=None` turns dropout off. Nothing here holds state or imports Flax.

Axes, in shapes such as `[B, T, D]` and in the letters of `einsum`:

    B  batch (rows)            H  size of one head, D / N       V  vocabulary
    T  query positions         F  inner size of feed-forward    P  masked positions of a row
    S  key positions           L  layers                        C  classes
    D  hidden size             R  rank of a LoRA adapter        K  seeds trained together
    N  attention heads         E  size of the embeddings (D, except in ELECTRA)

T and S are the same positions of a row, seen from the two sides of attention: position t reads from position s. Where
`cls_positions` select several tokens of a packed row, [B, S] counts sequences instead. I and O are the input and output
sizes of a dense layer.
"""

from bert_jax.functional import lora, losses
from bert_jax.functional.attention import attention, make_attention_mask
from bert_jax.functional.embeddings import embeddings
from bert_jax.functional.encoder import encoder, encoder_layer, feed_forward
from bert_jax.functional.heads import logits, masked_lm, mean_pool, pooler, prediction_head, span
from bert_jax.functional.layers import activation, dense, dropout, layer_norm
from bert_jax.functional.lookup import select
from bert_jax.functional.modern import modern_layer
from bert_jax.functional.pooling import pool

__all__ = [
    "activation", "attention", "dense", "dropout", "embeddings", "encoder", "encoder_layer", "feed_forward",
    "layer_norm", "logits", "lora", "losses", "make_attention_mask", "masked_lm", "mean_pool", "modern_layer",
    "pool", "pooler", "prediction_head", "select", "span",
]  # fmt: skip
