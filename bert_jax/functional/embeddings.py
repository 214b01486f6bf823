"""Token ids to vectors: word, position and token-type embeddings, summed and normalized.

Families differ: RoBERTa's positions start at `position_offset`; DistilBERT has no token types; ELECTRA's embeddings are
of another size E and are projected to D; ModernBERT has no positions here, its attention has them.

References: Devlin et al., BERT, 2018, section 3 (Input/Output Representations). Vaswani et al., Attention Is All You
Need, 2017, section 3.5 (sinusoidal positions). Clark et al., ELECTRA, 2020, section 3.2 (projection).
"""

import jax.numpy as jnp
from jax import Array

from bert_jax.config import BertConfig
from bert_jax.functional.layers import dense, dropout, layer_norm
from bert_jax.functional.lookup import lookup


def embeddings(
    params, input_ids: Array, token_type_ids: Array, position_ids: Array, *, config: BertConfig, key: Array | None
) -> Array:
    """Returns the encoder's input, [B, T, D] in the compute dtype, for three int arrays [B, T].

    Position ids start at 0 in every family. Ids must lie within their tables. This is not checked: under `jit` values
    are unknown, and JAX clamps an index that is out of range.
    """
    # The sum is in the parameters' dtype; only the normalized result is cast to the compute dtype.
    x = lookup(params["word"]["embedding"], input_ids)  # [B, T, E]
    if config.uses_token_types:
        x = x + lookup(params["token_type"]["embedding"], token_type_ids)
    elif "token_type" in params:
        x = x + params["token_type"]["embedding"][0][None, None, :]  # the only type
    rows = position_ids + config.position_offset if config.position_offset else position_ids
    if config.position_embedding_type == "sinusoidal":
        x = x + sinusoidal_positions(rows, x.shape[-1], x.dtype)
    elif "position" in params:
        x = x + lookup(params["position"]["embedding"], rows)
    x = layer_norm(params["norm"], x.astype(config.dtype), eps=config.layer_norm_eps)
    x = dropout(x, rate=config.hidden_dropout_prob, key=key)
    return dense(params["projection"], x) if "projection" in params else x  # [B, T, D]


def sinusoidal_positions(position_ids: Array, hidden_size: int, dtype) -> Array:
    """Returns [B, T, D] with sin(t / 10000^(2i/D)) in column 2i and cos(t / 10000^(2i/D)) in column 2i + 1.

    For D = 4, position t becomes [sin(t), cos(t), sin(t / 100), cos(t / 100)].
    """
    pairs = jnp.arange((hidden_size + 1) // 2, dtype=dtype)  # i; one more than needed when D is odd
    angles = position_ids[..., None].astype(dtype) / 10000.0 ** (2.0 * pairs / hidden_size)[None, None, :]
    waves = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1)  # [B, T, ceil(D / 2), 2]
    return waves.reshape(*position_ids.shape, -1)[..., :hidden_size]
