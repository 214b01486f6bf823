"""The layers above the encoder: the pooler, the masked-LM head and the task heads.

The next-sentence head and the classifiers are `logits` of the pooled vector, or of every token.

References: Devlin et al., BERT, 2018, sections 3.1 (masked LM, next sentence) and 4 (classification, SQuAD).
"""

from jax import Array

from bert_jax.config import BertConfig
from bert_jax.functional.layers import activation, dense, layer_norm
from bert_jax.functional.precision import affine


def logits(params, x: Array) -> Array:
    """Returns x @ kernel + bias [..., C] for x [..., D]; in float32 if x is bfloat16, for the softmax that follows."""
    y = affine(x.reshape(-1, x.shape[-1]), params["kernel"], params["bias"], wide=True)
    return y.reshape(*x.shape[:-1], y.shape[-1])


def pooler(params, x: Array, *, act: str = "tanh") -> Array:
    """Returns act(dense(x)) of the [CLS] vectors x [..., D]: the pooler, or the layer that is in its place."""
    return activation(act)(dense(params, x))


def masked_lm(params, word_embedding: Array, x: Array, *, config: BertConfig) -> Array:
    """Returns logits over the vocabulary [..., V] for the vectors x [..., D].

    The decoder is the word embedding [V, D], transposed, with a bias [V] of the head. ELECTRA's is [V, E], and the
    head's transform goes from D to E.

    References: Press, Wolf, Using the Output Embedding to Improve Language Models, 2017 (tied decoder).
    """
    x = activation(config.masked_lm_act)(dense(params["transform"], x))
    x = layer_norm(params["norm"], x, eps=config.layer_norm_eps)
    return logits({"kernel": word_embedding.T, "bias": params["bias"]}, x)


def span(params, x: Array) -> tuple[Array, Array]:
    """Returns the logits of the first and of the last token of the answer, [B, T] each, for x [B, T, D]."""
    scores = logits(params, x)  # [B, T, 2]
    return scores[..., 0], scores[..., 1]
