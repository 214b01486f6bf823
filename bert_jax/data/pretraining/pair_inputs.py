"""Planned sentence pairs as arrays: [CLS] A [SEP] B [SEP] in the rows of a batch, with next-sentence labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bert_jax.data.packing import PackedRows
from bert_jax.data.pretraining.pair_planning import pair_lengths

if TYPE_CHECKING:
    from bert_jax.data.pretraining.masking import Vocabulary
    from bert_jax.data.pretraining.token_store import TokenStore


def build_inputs(
    store: TokenStore, pairs: np.ndarray, in_row: np.ndarray, vocabulary: Vocabulary, *, max_length: int, slots: int
) -> dict[str, np.ndarray]:
    """Lays out [CLS] A [SEP] B [SEP] for PAIR [N], `in_row` [B] of them in each row, with next-sentence labels [B, S].

    Args:
        max_length: T, the tokens of a row.
        slots: S, the most pairs in a row.

    Raises:
        ValueError: an id of the corpus is not in the vocabulary.
    """
    lengths = pair_lengths(pairs)
    rows = PackedRows(lengths, in_row, row_length=max_length, slots=slots)
    input_ids = np.full((len(in_row), max_length), vocabulary.pad_id, np.int32)
    for row, start, (a_start, b_start, a, b, _) in zip(
        rows.row.tolist(), rows.start.tolist(), pairs.tolist(), strict=True
    ):
        second = start + a + 2  # where B begins
        input_ids[row, start + 1 : second - 1] = store.span(a_start, a)
        input_ids[row, second : second + b] = store.span(b_start, b)
    _check_ids(input_ids, pairs, rows, vocabulary.vocab_size)
    segment_b = pairs["a_length"].astype(np.int64) + 2  # [CLS] A [SEP] come before it
    input_ids[rows.row, rows.start] = vocabulary.cls_id
    input_ids[rows.row, rows.start + segment_b - 1] = vocabulary.sep_id
    input_ids[rows.row, rows.start + lengths - 1] = vocabulary.sep_id
    return {
        "input_ids": input_ids,
        **rows.model_inputs(segment_b),
        "next_sentence_labels": rows.scatter_sequences(pairs["label"].astype(np.int32)),
        "next_sentence_weights": rows.scatter_sequences(np.ones(len(pairs), np.float32)),
    }


def _check_ids(input_ids: np.ndarray, pairs: np.ndarray, rows: PackedRows, vocab_size: int) -> None:
    wrong = (input_ids < 0) | (input_ids >= vocab_size)
    if wrong.any():
        row, place = np.argwhere(wrong)[0]
        pair = pairs[(rows.row == row) & (rows.start <= place)][-1]
        where = f"in the pair at tokens {pair['a_start']} and {pair['b_start']} of the corpus"
        raise ValueError(f"token id {input_ids[row, place]} is beyond the vocabulary of {vocab_size} ({where})")
