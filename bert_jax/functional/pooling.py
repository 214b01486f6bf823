"""One vector of a sequence from the vectors of its tokens: the poolings of sentence-transformers.

References: Reimers, Gurevych, Sentence-BERT, 2019, section 3 (cls, mean, max). Muennighoff, SGPT, 2022, section 3.1
(weightedmean, lasttoken).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from bert_jax.functional.lookup import select


class Tokens(NamedTuple):
    """The tokens that are pooled.

    Attributes:
        x: float32 [B, T, D], their vectors.
        inside: bool [B, S, T], which of them belong to each sequence.
        first: int [B, S], the first of each sequence.
        places: int [B, T], their places in their sequences, from 0.
    """

    x: Array
    inside: Array
    first: Array
    places: Array

    def total(self, weights: Array) -> Array:
        """Returns the weighted sum of the vectors of each sequence, [B, S, D]."""
        return jnp.einsum("BST,BTD->BSD", weights, self.x, precision="highest")

    def mean(self, weights: Array) -> Array:
        """Returns the weighted mean of the vectors of each sequence, [B, S, D]; 0 for a sequence without tokens."""
        return self.total(weights) / jnp.maximum(weights.sum(axis=2), 1e-9)[:, :, None]


def _root_mean(tokens: Tokens) -> Array:
    weights = tokens.inside.astype(jnp.float32)
    return tokens.total(weights) / jnp.sqrt(jnp.maximum(weights.sum(axis=2), 1e-9))[:, :, None]


def _last(tokens: Tokens) -> Array:
    T = tokens.x.shape[1]
    return select(tokens.x, T - 1 - jnp.argmax(tokens.inside[:, :, ::-1], axis=2))


POOLINGS: dict[str, Callable[[Tokens], Array]] = {  # in the order of sentence-transformers
    "cls": lambda tokens: select(tokens.x, tokens.first),
    "max": lambda tokens: jnp.where(tokens.inside[..., None], tokens.x[:, None], -jnp.inf).max(axis=2),
    "mean": lambda tokens: tokens.mean(tokens.inside.astype(jnp.float32)),
    "mean_sqrt_len_tokens": _root_mean,
    "weightedmean": lambda tokens: tokens.mean(tokens.inside * (tokens.places[:, None, :] + 1.0)),
    "lasttoken": _last,
}


def pool(
    x: Array, attention_mask: Array, position_ids: Array, cls_positions: Array, *, modes: Sequence[str], skip: int = 0
) -> Array:
    """Returns the vectors of sequences by each of the poolings, side by side: float32 [B, S, modes * D].

    Args:
        x: [B, T, D], the vectors of tokens.
        attention_mask: int [B, T], 0 = padding, otherwise the number of the sequence in its row.
        position_ids: int [B, T], from 0 in every sequence.
        cls_positions: int [B, S], the first token of each sequence.
        modes: names of `POOLINGS`.
        skip: tokens at the beginning of a sequence that are not pooled.
    """
    numbers = jnp.take_along_axis(attention_mask, cls_positions, axis=1)
    inside = numbers[:, :, None] == attention_mask[:, None, :]  # [B, S, T]
    if skip:
        inside &= (position_ids >= skip)[:, None, :]
    first = jnp.minimum(cls_positions + skip, x.shape[1] - 1)
    tokens = Tokens(x.astype(jnp.float32), inside, first, position_ids)
    return jnp.concatenate([POOLINGS[mode](tokens) for mode in modes], axis=-1)
