"""Choose the tokens a masked language model has to predict, and what the model sees in their place.

Of the tokens of a sequence 15 % are chosen; of those 80 % become [MASK], 10 % another token, 10 % stay. What happens to
a row depends on the seed and the row's number alone, so it is the same in any batch, worker or process, and it is
another in the next pass, where the row has another number (RoBERTa's dynamic masking).

References: Devlin et al., BERT, 2018, section 3.1; Liu et al., RoBERTa, 2019, section 4.1; whole-word masking after
google-research/bert. Departures: the random token is drawn from the vocabulary without its special tokens, [UNK] is
never asked for, and a word that a cut left at the beginning of a segment does not join the segment before.
"""

import math
from dataclasses import dataclass, fields
from typing import Any

import numpy as np

MASK_SHARE, RANDOM_SHARE = 0.8, 0.1


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """What data needs to know of a tokenizer; the tokenizer's own attributes of the same names."""

    vocab_size: int
    pad_id: int
    cls_id: int
    sep_id: int
    mask_id: int
    special_ids: np.ndarray  # int [any]
    continuation: np.ndarray  # bool [V], the piece goes on with the word before it ("##ing")

    @classmethod
    def of(cls, tokenizer: Any) -> "Vocabulary":
        """Takes the attributes from a tokenizer, and leaves the rest of it behind."""
        return cls(**{field.name: getattr(tokenizer, field.name) for field in fields(cls)})


def enough_predictions(max_length: int, masked_share: float) -> int:
    """Returns P, slots enough for any sequence of up to `max_length` tokens."""
    return max(1, math.ceil(masked_share * max_length))


def mask_tokens(
    input_ids: np.ndarray,
    vocabulary: Vocabulary,
    *,
    masked_share: float = 0.15,
    predictions: int,
    whole_words: bool = False,
    seed: int,
    rows: np.ndarray,
) -> dict[str, np.ndarray]:
    """Masks each sequence of a batch: min(P, max(1, round(share x length))) tokens, or all there are if fewer.

    Args:
        input_ids: int32 [B, T], one sequence a row with its special tokens, then padding.
        predictions: P, the most tokens masked in a row.
        whole_words: take the pieces of a word together, and skip a word that would pass the number; a row may then
            end below it.
        seed, rows: row `rows[b]` (int [B]) of `seed` has masks of its own.

    Returns:
        input_ids int32 [B, T] masked; masked_positions (ascending), masked_labels int32 [B, P] and masked_weights
        float32 [B, P], all 0 where there is nothing to predict.
    """
    (B, T), P = input_ids.shape, predictions
    order, action, replacement = _draw(seed, rows, T)
    candidate = ~_table(vocabulary.vocab_size, vocabulary.special_ids)[input_ids]
    length = (input_ids != vocabulary.pad_id).sum(axis=1)
    wanted = np.minimum(P, np.maximum(1, np.rint(masked_share * length).astype(int)))

    starts = candidate.copy()
    if whole_words:
        starts[:, 1:] &= ~(vocabulary.continuation[input_ids[:, 1:]] & candidate[:, :-1])
    chosen = candidate & _choose(starts, candidate, order, wanted)

    ordinary = np.delete(np.arange(vocabulary.vocab_size, dtype=np.int32), vocabulary.special_ids)
    other = ordinary[(replacement * ordinary.size).astype(int)]
    seen = np.where(
        action < MASK_SHARE, vocabulary.mask_id, np.where(action < MASK_SHARE + RANDOM_SHARE, other, input_ids)
    )

    positions = np.zeros((B, P), np.int32)
    positions[:, : min(P, T)] = np.argsort(~chosen, axis=1, kind="stable")[:, :P]
    used = np.arange(P) < chosen.sum(axis=1, keepdims=True)
    return {
        "input_ids": np.where(chosen, seen, input_ids).astype(np.int32),
        "masked_positions": np.where(used, positions, 0),
        "masked_labels": np.where(used, np.take_along_axis(input_ids, positions, axis=1), 0).astype(np.int32),
        "masked_weights": used.astype(np.float32),
    }


def _draw(seed: int, rows: np.ndarray, T: int) -> np.ndarray:
    """Returns three uniform numbers for each token of each row, float64 [3, B, T]."""
    draws = np.empty((len(rows), 3, T))
    for draw, row in zip(draws, rows, strict=True):
        np.random.Generator(np.random.Philox(key=(seed, row))).random(out=draw)
    return draws.swapaxes(0, 1)


def _choose(starts: np.ndarray, candidate: np.ndarray, order: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Takes words in the order of their draws, skipping those that would pass `wanted` tokens [B]; bool [B, T].

    A word runs from a start to the next; a position outside words may come out either way.
    """
    B, T = starts.shape
    row = np.arange(B)[:, None]
    word = np.cumsum(starts, axis=1)  # [B, T], 0 before the first word
    size = np.bincount((row * (T + 1) + word)[candidate], minlength=B * (T + 1)).reshape(B, T + 1)
    words = int(word.max(initial=0))
    turn = word[row, np.argsort(np.where(starts, order, 2.0), axis=1)[:, :words]]  # the word whose turn it is
    turn[np.arange(words) >= word[:, -1:]] = 0
    taken, chosen = np.zeros(B, int), np.zeros((B, T + 1), bool)
    for number in turn.T:
        count = size[row[:, 0], number]
        fits = (number > 0) & (taken + count <= wanted)
        taken += count * fits
        chosen[row[:, 0], number] |= fits
        if np.all(taken == wanted):
            break
    return chosen[row, word]


def _table(size: int, ids: np.ndarray) -> np.ndarray:
    table = np.zeros(size, bool)
    table[ids] = True
    return table
