"""The layers above the encoder: the pooler, the masked-LM head and the task heads.

The next-sentence head and the classifiers are `logits` of the pooled vector, or of every token.

References: Devlin et al., BERT, 2018, sections 3.1 (masked LM, next sentence) and 4 (classification, SQuAD).
"""

import jax.numpy as jnp
from jax import Array

from bert_jax.config import BertConfig
from bert_jax.functional.layers import activation, at_least_float32, dense, layer_norm
from bert_jax.functional.precision import affine


def logits(params, x: Array) -> Array:
    """Returns x @ kernel + bias [..., C] for x [..., D]; in float32 if x is bfloat16, for the softmax that follows."""
    y = affine(x.reshape(-1, x.shape[-1]), params["kernel"], params.get("bias"), wide=True)
    return y.reshape(*x.shape[:-1], y.shape[-1])


def pooler(params, x: Array, *, act: str = "tanh") -> Array:
    """Returns act(dense(x)) of the [CLS] vectors x [..., D]: the pooler, or the layer that is in its place."""
    return activation(act)(dense(params, x))


def mean_pool(x: Array, attention_mask: Array, cls_positions: Array | None) -> Array:
    """Returns the mean of the vectors x [B, T, D] over the tokens of a sequence: ModernBERT's pooling `mean`.

    Args:
        attention_mask: int [B, T], 0 = padding, otherwise the number of the sequence in its row.
        cls_positions: int [B, S], the first token of each sequence; None = the first sequence of a row, without S.

    Returns:
        [B, S, D] or [B, D].
    """
    if cls_positions is None:
        numbers = jnp.where(attention_mask == 0, attention_mask.max(), attention_mask).min(axis=1, keepdims=True)
    else:
        numbers = jnp.take_along_axis(attention_mask, cls_positions, axis=1)  # [B, S]
    own = attention_mask[:, None, :] == numbers[:, :, None]  # [B, S, T]
    wide = at_least_float32(x)
    weights = own.astype(wide.dtype)
    means = jnp.einsum("BST,BTD->BSD", weights, wide) / weights.sum(axis=-1, keepdims=True)
    return (means[:, 0] if cls_positions is None else means).astype(x.dtype)


def prediction_head(params, x: Array, *, config: BertConfig) -> Array:
    """Returns norm(act(dense(x))) for x [..., D]: the part of the masked-LM head that comes before its decoder.

    In ModernBERT all heads have it. ELECTRA's goes from D to E.
    """
    x = activation(config.masked_lm_act)(dense(params["transform"], x))
    return layer_norm(params["norm"], x, eps=config.layer_norm_eps)


def masked_lm(params, word_embedding: Array, x: Array, *, config: BertConfig) -> Array:
    """Returns logits over the vocabulary [..., V] for the vectors x [..., D].

    The decoder is the word embedding [V, D], transposed, with a bias [V] of the head.

    References: Press, Wolf, Using the Output Embedding to Improve Language Models, 2017 (tied decoder).
    """
    x = prediction_head(params, x, config=config)
    bias = {"bias": params["bias"]} if "bias" in params else {}
    return logits({"kernel": word_embedding.T, **bias}, x)


def span(params, x: Array) -> tuple[Array, Array]:
    """Returns the logits of the first and of the last token of the answer, [B, T] each, for x [B, T, D]."""
    scores = logits(params, x)  # [B, T, 2]
    return scores[..., 0], scores[..., 1]
