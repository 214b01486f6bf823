"""From ids to vectors: word, position and token type, added up and normalised.

References: Devlin et al., BERT, 2018, section 3 (Input/Output Representations). Vaswani et al., Attention Is All You
Need, 2017, section 3.5 (sinusoidal positions).
"""

import jax.numpy as jnp
from jax import Array

from bert_jax.config import BertConfig
from bert_jax.functional.layers import dropout, layer_norm


def embeddings(
    params, input_ids: Array, token_type_ids: Array, position_ids: Array, *, config: BertConfig, key: Array | None
) -> Array:
    """Returns the input of the encoder, [B, T, D] in the dtype of computation, for three int arrays [B, T].

    Ids must lie within their tables; nothing here can say so, because under `jit` no value is known.
    """
    x = params["word"]["embedding"][input_ids] + params["token_type"]["embedding"][token_type_ids]
    if config.position_embedding_type == "sinusoidal":
        x = x + sinusoidal_positions(position_ids, config.hidden_size, x.dtype)
    else:
        x = x + params["position"]["embedding"][position_ids]
    x = layer_norm(params["norm"], x.astype(config.dtype), eps=config.layer_norm_eps)
    return dropout(x, rate=config.hidden_dropout_prob, key=key)


def sinusoidal_positions(position_ids: Array, hidden_size: int, dtype) -> Array:
    """Returns sin(t / 10000^(2i/D)) at the even and the cosine at the odd places of [B, T, D]."""
    pairs = jnp.arange((hidden_size + 1) // 2, dtype=dtype)
    angles = position_ids[..., None].astype(dtype) / 10000.0 ** (2.0 * pairs / hidden_size)[None, None, :]
    waves = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return waves.reshape(*position_ids.shape, -1)[..., :hidden_size]
