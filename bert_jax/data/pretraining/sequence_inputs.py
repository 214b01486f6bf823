"""Turns planned sequences into arrays: [CLS] A [SEP] B [SEP], or [CLS] A [SEP], in the rows of a batch.

These are BERT's special tokens; the vocabulary's layout may have others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bert_jax.data.packing import PackedRows
from bert_jax.data.pretraining.masking import Vocabulary
from bert_jax.data.pretraining.sequences import sequence_lengths, special_tokens

if TYPE_CHECKING:  # so that rows can be described without `datasets`
    from bert_jax.data.pretraining.token_store import TokenStore


def build_inputs(
    store: TokenStore,
    sequences: np.ndarray,
    in_row: np.ndarray,
    vocabulary: Vocabulary,
    *,
    max_length: int,
    slots: int,
    next_sentence: bool,
) -> dict[str, np.ndarray]:
    """Builds the batch of SEQUENCE [N], `in_row` [B] of them in each row, before masking.

    Args:
        max_length: T, tokens of a row.
        slots: S, maximum number of sequences in a row.
        next_sentence: whether the batch is for next-sentence prediction too.

    Returns:
        input_ids, attention_mask, token_type_ids and position_ids int32 [B, T]; with `next_sentence` also cls_positions
        and next_sentence_labels int32 [B, S] and next_sentence_weights float32 [B, S].

    Raises:
        ValueError: a token id of the corpus is not in the vocabulary.
    """
    layout = vocabulary.layout
    lengths = sequence_lengths(sequences, special_tokens(layout))
    rows = PackedRows(lengths, in_row, row_length=max_length, slots=slots)
    paired = sequences["b_length"] > 0
    a_end = rows.start + len(layout.prefix) + sequences["a_length"]  # [N], columns
    input_ids = np.full((len(in_row), max_length), vocabulary.pad_id, np.int32)
    _put(input_ids, rows.row, rows.start, layout.prefix)
    _put(input_ids, rows.row[~paired], a_end[~paired], layout.suffix)
    _put(input_ids, rows.row[paired], a_end[paired], layout.middle)
    ends = rows.start + lengths
    _put(input_ids, rows.row[paired], ends[paired] - len(layout.pair_suffix), layout.pair_suffix)
    # A loop, because the store is memory-mapped in chunks: each span is copied from disk straight into the batch.
    columns = zip(rows.row.tolist(), rows.start.tolist(), sequences.tolist(), strict=True)
    for row, start, (a_start, b_start, a_length, b_length, _) in columns:
        a_column = start + len(layout.prefix)
        b_column = a_column + a_length + len(layout.middle)
        input_ids[row, a_column : a_column + a_length] = store.span(a_start, a_length)
        if b_length:
            input_ids[row, b_column : b_column + b_length] = store.span(b_start, b_length)
    _check_ids(input_ids, sequences, rows, vocabulary.vocab_size)
    # Where token type 1 begins, [N]: after [CLS] A [SEP], or at the end if there is no B.
    segment_b = np.where(paired & layout.segments, a_end + len(layout.middle), ends) - rows.start
    inputs = {"input_ids": input_ids, **rows.model_inputs(segment_b)}
    if not next_sentence:
        del inputs["cls_positions"]  # no head reads [CLS]
        return inputs
    return inputs | {
        "next_sentence_labels": rows.scatter_sequences(sequences["label"].astype(np.int32)),
        "next_sentence_weights": rows.scatter_sequences(np.ones(len(sequences), np.float32)),
    }


def _put(input_ids: np.ndarray, row: np.ndarray, column: np.ndarray, tokens: tuple[int, ...]) -> None:
    """Writes special tokens into the rows [N], from the columns [N] on."""
    for place, token in enumerate(tokens):
        input_ids[row, column + place] = token


def _check_ids(input_ids: np.ndarray, sequences: np.ndarray, rows: PackedRows, vocab_size: int) -> None:
    wrong = (input_ids < 0) | (input_ids >= vocab_size)
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        sequence = sequences[(rows.row == row) & (rows.start <= column)][-1]
        where = f"in the pair at tokens {sequence['a_start']} and {sequence['b_start']} of the corpus"
        if sequence["b_length"] == 0:
            where = f"in the sequence at token {sequence['a_start']} of the corpus"
        raise ValueError(f"token id {input_ids[row, column]} is not in the vocabulary of {vocab_size} ({where})")
