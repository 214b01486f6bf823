"""Masking for the masked language model: chooses the tokens to predict and replaces them in the inputs.

15 % of the tokens of a sequence are chosen; of those 80 % become [MASK], 10 % a random token, 10 % stay as they are.
Each sequence of a packed row gets its own 15 %. The masks of a row depend only on the seed and the row's number, so
they are the same in any batch, worker or process, and different in the next pass, where the row has another number
(dynamic masking, RoBERTa).

One row, `masked_share` 0.3, whole words. The budget is round(0.3 * 7 tokens) = 2.
    column       0      1    2   3         4       5      6
    input_ids    [CLS]  the  un  ##believ  ##able  story  [SEP]
    maskable     0      1    1   1         1       1      0
    word_starts  0      1    1   0         0       1      0
    turn         1.9    1.6  1.2 1.8       1.1     1.4    1.3     random in [0, 1), plus the number of the sequence
Words in the order of their turns: `un ##believ ##able` has 3 tokens, more than 2, and is skipped; `story` is taken;
`the` is taken. masked_positions = 1 5.

Axes: B rows, T tokens of a row, P predictions of a row, N sequences of the batch, W words of the batch, V vocabulary.

References: Devlin et al., BERT, 2018, section 3.1; Liu et al., RoBERTa, 2019, section 4.1; whole-word masking as in
google-research/bert. Departures: random tokens are drawn from the vocabulary without its special tokens, [UNK] is
never predicted, and a word cut off at the beginning of a segment does not join the word before it.
"""

import math
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np

from bert_jax.data.pretraining.sequences import SHORTEST
from bert_jax.text.layout import Layout

MASK_FRACTION = 0.8
RANDOM_FRACTION = 0.1


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The attributes of a tokenizer that batches depend on: small enough to send to a worker process."""

    vocab_size: int
    pad_id: int
    mask_id: int
    layout: Layout  # the special tokens around texts
    special_ids: np.ndarray  # int, any number
    continuation: np.ndarray  # bool [V], the piece continues a word ("##ing"; see `word_marks.py`)

    @classmethod
    def of(cls, tokenizer: Any) -> "Vocabulary":
        """Copies the attributes of a tokenizer, or of another vocabulary.

        Raises:
            ValueError: a tokenizer without a mask token.
        """
        if tokenizer.mask_id < 0:
            raise ValueError("the tokenizer has no mask token (`mask_token`), so it cannot be used for pretraining")
        return cls(**{field.name: getattr(tokenizer, field.name) for field in fields(cls)})

    def __reduce__(self) -> tuple[Any, ...]:
        # One bit for each token. Sending more than a pipe holds (64 KiB) to a worker that dies at its start would block
        # this process for ever, because it holds the pipe open itself.
        ids = (self.vocab_size, self.pad_id, self.mask_id)
        return _unpack, (ids, self.layout, np.asarray(self.special_ids), np.packbits(self.continuation))

    @cached_property
    def special(self) -> np.ndarray:
        """Bool [V], the special tokens."""
        return np.isin(np.arange(self.vocab_size), self.special_ids)

    @cached_property
    def ordinary_ids(self) -> np.ndarray:
        """Int32, the ids of all other tokens."""
        return np.flatnonzero(~self.special).astype(np.int32)


def _unpack(ids: tuple[int, int, int], layout: Layout, special_ids: np.ndarray, bits: np.ndarray) -> Vocabulary:
    return Vocabulary(*ids, layout, special_ids, np.unpackbits(bits, count=ids[0]).astype(bool))


def predictions_per_row(
    max_length: int, masked_share: float, slots: int = 1, shortest: int = SHORTEST["mlm-nsp"]
) -> int:
    """Returns P, enough predictions for a row of `max_length` tokens with up to `slots` sequences.

    Args:
        shortest: minimum number of tokens of a sequence.
    """
    # With several sequences each budget may be rounded up: by a half, or from less than one to one.
    rounding = max(0.5, 1 - masked_share * shortest) * slots if slots > 1 else 0.0
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
    """Masks round(masked_share * length) tokens of each sequence, at least 1 and at most `max_predictions`.

    Args:
        input_ids: int32 [B, T], sequences with their special tokens, then padding.
        attention_mask: int32 [B, T], the number of the sequence in its row, ascending from 1; 0 is padding.
        predictions: P, the slots of a row; predictions beyond them are dropped.
        max_predictions: maximum number of masked tokens of a sequence; None is P.
        whole_words: mask all pieces of a word or none; words larger than the rest of the budget are skipped.
        seed: with `rows`, decides the masks.
        rows: int [B], the number of each row in training.

    Returns:
        input_ids int32 [B, T] masked; masked_positions (ascending) and masked_labels int32 [B, P] and masked_weights
        float32 [B, P], all 0 in unused slots.
    """
    B, T = input_ids.shape
    P = predictions
    order, action, replacement = np.split(_uniform(seed, rows, T + 2 * P), [T, T + P], axis=1)  # [B, T], 2 x [B, P]
    maskable = ~vocabulary.special[input_ids]  # [B, T]
    word_starts = maskable.copy()
    if whole_words:
        word_starts[:, 1:] &= ~(vocabulary.continuation[input_ids[:, 1:]] & maskable[:, :-1])
    sequence, length = _number_sequences(attention_mask)
    budget = np.maximum(1, np.rint(masked_share * length).astype(int))  # [N]
    budget = np.minimum(budget, P if max_predictions is None else max_predictions)
    cells = _choose(word_starts, maskable, sequence, order + attention_mask, budget)

    row, column = np.divmod(cells, T)
    slot = np.arange(row.size) - np.searchsorted(row, np.arange(B))[row]  # counts from 0 in each row
    fits = slot < P
    row = row[fits]
    column = column[fits]
    slot = slot[fits]
    labels = input_ids[row, column]
    masked = input_ids.astype(np.int32)
    masked[row, column] = _replace(labels, action[row, slot], replacement[row, slot], vocabulary)

    def in_slots(values: np.ndarray, dtype: type[np.generic]) -> np.ndarray:
        table = np.zeros((B, P), dtype)
        table[row, slot] = values
        return table

    return {
        "input_ids": masked,
        "masked_positions": in_slots(column, np.int32),
        "masked_labels": in_slots(labels, np.int32),
        "masked_weights": in_slots(np.ones(row.size), np.float32),
    }


def _uniform(seed: int, rows: np.ndarray, count: int) -> np.ndarray:
    """Returns uniform numbers in [0, 1), float64 [B, count], which depend on the seed and the row's number only.

    They are slices of one random stream: row r has the numbers from `r * n` on, where n is `count` rounded up to a
    multiple of 4. Consecutive rows are drawn in one call.
    """
    blocks = -(-count // 4)  # Philox's counter counts blocks of four numbers
    draws = np.empty((len(rows), 4 * blocks))
    breaks = np.flatnonzero(np.diff(rows) != 1) + 1
    for part, first in zip(np.split(draws, breaks), np.split(rows, breaks), strict=True):
        if len(part):
            np.random.Generator(np.random.Philox(key=seed, counter=int(first[0]) * blocks)).random(out=part)
    return draws[:, :count]


def _number_sequences(attention_mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Numbers the sequences of a batch: [B, T] with each token's sequence, and [N] with their lengths.

    Every row gets as many numbers as the fullest row needs, one more for its padding, so some sequences are empty.
    """
    B, _ = attention_mask.shape
    per_row = int(attention_mask.max(initial=0)) + 1
    sequence = attention_mask + np.arange(B)[:, None] * per_row
    return sequence, np.bincount(sequence.ravel(), minlength=B * per_row)


def _replace(labels: np.ndarray, action: np.ndarray, replacement: np.ndarray, vocabulary: Vocabulary) -> np.ndarray:
    """Returns what the model sees instead of the labels: [MASK], a random token or the label itself."""
    random_ids = vocabulary.ordinary_ids[(replacement * vocabulary.ordinary_ids.size).astype(int)]
    kept_or_random = np.where(action < MASK_FRACTION + RANDOM_FRACTION, random_ids, labels)
    return np.where(action < MASK_FRACTION, vocabulary.mask_id, kept_or_random)


def _choose(
    word_starts: np.ndarray, maskable: np.ndarray, sequence: np.ndarray, turn: np.ndarray, budget: np.ndarray
) -> np.ndarray:
    """Chooses words of each sequence in the order of their turns, as long as they fit into the budget.

    Args:
        word_starts: bool [B, T], where words begin.
        maskable: bool [B, T], the tokens of words.
        sequence: int [B, T], the sequence of each token in the batch.
        turn: float [B, T], larger for a later sequence of the row, random within a sequence.
        budget: int [N], maximum number of tokens of each sequence.

    Returns:
        The chosen tokens as indices into the flattened [B * T], ascending.
    """
    B, T = word_starts.shape
    cells = np.argsort(np.where(word_starts, turn, np.inf), axis=1) + np.arange(B)[:, None] * T
    starts = cells[np.arange(T) < word_starts.sum(axis=1, keepdims=True)]  # [W], by sequence, then by turn
    words = np.bincount(sequence[word_starts], minlength=budget.size)  # [N], words of each sequence
    first = np.cumsum(words) - words  # [N], index in `starts` of each sequence's first word
    if maskable.sum() == starts.size:  # every word is one token: take the first ones
        taken = np.minimum(words, budget)
        within = np.arange(taken.sum()) - np.repeat(np.cumsum(taken) - taken, taken)
        return np.sort(starts[np.repeat(first, taken) + within])
    word_of = np.cumsum(word_starts) - 1  # [B * T], the word of each token that belongs to one
    size = np.bincount(word_of[maskable.ravel()], minlength=starts.size)  # [W], tokens of each word
    chosen = _choose_whole_words(word_of[starts], size, first, words, budget)
    return np.flatnonzero(maskable.ravel() & chosen[word_of])


def _choose_whole_words(
    in_turn: np.ndarray, size: np.ndarray, first: np.ndarray, words: np.ndarray, budget: np.ndarray
) -> np.ndarray:
    """Returns the chosen words, bool [W]: one word of every sequence per round, skipped if it exceeds the budget.

    Args:
        in_turn: int [W], the words by sequence, then by turn.
        size: int [W], tokens of each word.
        first, words, budget: int [N], index of the first word in `in_turn`, number of words, number of tokens.
    """
    chosen = np.zeros(size.size, bool)
    tokens = np.zeros(budget.size, int)  # [N], taken so far
    for round_ in range(words.max()):
        open_ = np.flatnonzero((round_ < words) & (tokens < budget))  # sequences with words and budget left
        if not open_.size:
            break
        word = in_turn[first[open_] + round_]
        chosen[word] = tokens[open_] + size[word] <= budget[open_]
        tokens[open_] += size[word] * chosen[word]
    return chosen
