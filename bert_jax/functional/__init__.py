"""The mathematics of BERT as pure functions f(params, arrays, *, options, key)."""

from bert_jax.functional import lora, losses
from bert_jax.functional.attention import attention, make_attention_mask
from bert_jax.functional.embeddings import embeddings
from bert_jax.functional.encoder import encoder, encoder_layer, feed_forward
from bert_jax.functional.heads import logits, masked_lm, pooler, select, span
from bert_jax.functional.layers import activation, dense, dropout, layer_norm

__all__ = [
    "activation", "attention", "dense", "dropout", "embeddings", "encoder", "encoder_layer", "feed_forward",
    "layer_norm", "logits", "lora", "losses", "make_attention_mask", "masked_lm", "pooler", "select", "span",
]  # fmt: skip
