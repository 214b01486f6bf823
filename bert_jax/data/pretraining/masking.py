"""Choose the tokens a masked language model has to predict, and what the model sees in their place.

Of the tokens of a sequence 15 % are chosen; of those 80 % become [MASK], 10 % another token, 10 % stay. Each sequence
of a packed row has its own share. What happens to a row depends on the seed and the row's number alone, so it is the
same in any batch, worker or process, and it is another in the next pass, where the row has another number (RoBERTa's
dynamic masking).

References: Devlin et al., BERT, 2018, section 3.1; Liu et al., RoBERTa, 2019, section 4.1; whole-word masking after
google-research/bert. Departures: the random token is drawn from the vocabulary without its special tokens, [UNK] is
never asked for, and a word that a cut left at the beginning of a segment does not join the segment before.
"""

import math
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

MASK_SHARE, RANDOM_SHARE = 0.8, 0.1
SHORTEST = 5  # tokens of a sequence: [CLS], one, [SEP], another, [SEP]


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

    @cached_property
    def special(self) -> np.ndarray:
        """Bool [V], the special tokens."""
        return np.isin(np.arange(self.vocab_size), self.special_ids)

    @cached_property
    def ordinary_ids(self) -> np.ndarray:
        """Int32 [any], all others."""
        return np.flatnonzero(~self.special).astype(np.int32)


def predictions_per_row(max_length: int, masked_share: float, slots: int = 1) -> int:
    """Returns P, slots enough for the predictions of a row of `max_length` tokens with up to `slots` sequences."""
    # Each of several sequences rounds its number up, by a half or, where it would come to nothing, to one.
    rounding = max(0.5, 1 - masked_share * SHORTEST) * slots if slots > 1 else 0.0
    return max(1, min(max_length, math.ceil(masked_share * max_length + rounding)))


def mask_tokens(
    input_ids: np.ndarray,
    attention_mask: np.ndarray,
    vocabulary: Vocabulary,
    *,
    masked_share: float = 0.15,
    predictions: int,
    max_predictions: int | None = None,
    whole_words: bool = False,
    seed: int,
    rows: np.ndarray,
) -> dict[str, np.ndarray]:
    """Masks each sequence of a batch: min(most, max(1, round(share x length))) tokens, or all there are if fewer.

    Args:
        input_ids: int32 [B, T], sequences with their special tokens, then padding.
        attention_mask: int32 [B, T], the number of the sequence in its row, ascending from 1; 0 is padding.
        predictions: P, the slots of a row; what its sequences want beyond them is left out.
        max_predictions: the most tokens masked in a sequence; None is P.
        whole_words: take the pieces of a word together, and skip a word that would pass the number; a sequence may
            then end below it.
        seed, rows: row `rows[b]` (int [B]) of `seed` has masks of its own.

    Returns:
        input_ids int32 [B, T] masked; masked_positions (ascending), masked_labels int32 [B, P] and masked_weights
        float32 [B, P], all 0 where there is nothing to predict.
    """
    (B, T), P = input_ids.shape, predictions
    order, action, replacement = np.split(_draw(seed, rows, T + 2 * P), [T, T + P], axis=1)
    candidate = ~vocabulary.special[input_ids]
    starts = candidate.copy()
    if whole_words:
        starts[:, 1:] &= ~(vocabulary.continuation[input_ids[:, 1:]] & candidate[:, :-1])

    S = int(attention_mask.max(initial=0))
    sequence = attention_mask + np.arange(B)[:, None] * (S + 1)  # in the whole batch
    length = np.bincount(sequence.ravel(), minlength=B * (S + 1))
    most = P if max_predictions is None else max_predictions
    wanted = np.minimum(most, np.maximum(1, np.rint(masked_share * length).astype(int)))
    row, place = np.divmod(_choose(starts, candidate, sequence, order + attention_mask, wanted), T)

    slot = np.arange(row.size) - np.searchsorted(row, np.arange(B))[row]
    row, place, slot = row[slot < P], place[slot < P], slot[slot < P]
    labels = input_ids[row, place]
    ordinary = vocabulary.ordinary_ids
    others = ordinary[(replacement[row, slot] * ordinary.size).astype(int)]
    drawn = action[row, slot]
    masked = input_ids.astype(np.int32)
    masked[row, place] = np.where(
        drawn < MASK_SHARE, vocabulary.mask_id, np.where(drawn < MASK_SHARE + RANDOM_SHARE, others, labels)
    )

    def in_slots(values: np.ndarray, dtype: type[np.generic]) -> np.ndarray:
        table = np.zeros((B, P), dtype)
        table[row, slot] = values
        return table

    return {
        "input_ids": masked,
        "masked_positions": in_slots(place, np.int32),
        "masked_labels": in_slots(labels, np.int32),
        "masked_weights": in_slots(np.ones(row.size), np.float32),
    }


def _draw(seed: int, rows: np.ndarray, count: int) -> np.ndarray:
    """Returns uniform numbers, float64 [B, count]: those of row r are the r-th part of one stream."""
    blocks = -(-count // 4)  # Philox counts blocks of four numbers
    draws = np.empty((len(rows), 4 * blocks))
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    for part, first in zip(np.split(draws, breaks), np.split(rows, breaks), strict=True):
        if len(part):
            np.random.Generator(np.random.Philox(key=seed, counter=int(first[0]) * blocks)).random(out=part)
    return draws[:, :count]


def _choose(
    starts: np.ndarray, candidate: np.ndarray, sequence: np.ndarray, turn: np.ndarray, wanted: np.ndarray
) -> np.ndarray:
    """Takes words of each sequence in turn, skipping those that would pass its `wanted` tokens.

    Args:
        starts: bool [B, T], where words begin.
        candidate: bool [B, T], what is part of a word.
        sequence: int [B, T], each token's sequence in the batch; `wanted` is by them.
        turn: float [B, T], ascending from one sequence of a row to the next.

    Returns:
        The tokens' places in the flattened batch, ascending.
    """
    B, T = starts.shape
    places = np.argsort(np.where(starts, turn, np.inf), axis=1) + np.arange(B)[:, None] * T
    words = places[np.arange(T) < starts.sum(axis=1, keepdims=True)]  # where they begin, sequence by sequence
    count = np.bincount(sequence[starts], minlength=wanted.size)
    first = np.cumsum(count) - count
    if candidate.sum() == words.size:  # words of one token each
        most = np.minimum(count, wanted)
        return np.sort(words[np.repeat(first - np.cumsum(most) + most, most) + np.arange(most.sum())])

    number = np.cumsum(starts) - 1  # of each token's word, where it has one
    size = np.bincount(number[candidate.ravel()], minlength=words.size)
    in_turn, taken, chosen = number[words], np.zeros(wanted.size, int), np.zeros(words.size, bool)
    for round_ in range(count.max()):
        going = np.flatnonzero((round_ < count) & (taken < wanted))
        if not going.size:
            break
        word = in_turn[first[going] + round_]
        chosen[word] = taken[going] + size[word] <= wanted[going]
        taken[going] += size[word] * chosen[word]
    return np.flatnonzero(candidate.ravel() & chosen[number])
