"""One pass over the corpus as a table: its sequences, and which of them share a row.

Sequences are packed block by block, from their lengths alone, in a random order, so that neighbours in the corpus
rarely meet in a row. A table may be larger than memory: it is then kept in memory-mapped temporary files.
"""

from __future__ import annotations

import io
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np

from bert_jax.data.packing import pack
from bert_jax.data.pretraining.sequence_planning import plan_sequences
from bert_jax.data.pretraining.sequences import SEQUENCE, SPECIAL_TOKENS, Objective, SpecialTokens, sequence_lengths

if TYPE_CHECKING:  # so that rows can be described without `datasets`
    from bert_jax.data.pretraining.token_store import TokenStore

PACKING = 1  # seeds the packing of a block independently of its planning


@dataclass(frozen=True)
class EpochPlan:
    """The rows of a pass: row r holds `sequences[offsets[r]:offsets[r + 1]]`.

    Attributes:
        sequences: SEQUENCE [N].
        offsets: int64 [rows + 1].
    """

    sequences: np.ndarray
    offsets: np.ndarray

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.offsets) - 1

    def take(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the sequences of the rows [B], SEQUENCE [N], and the number of them in each row, int64 [B].

        Rows 5 and 2 with 2 and 3 sequences: first 12 4, in_row 2 3, shift 12 2, so sequences 12 13 4 5 6.
        """
        first = self.offsets[rows]
        in_row = self.offsets[rows + 1] - first
        shift = first - (np.cumsum(in_row) - in_row)  # from the index in the batch to the index in the plan
        return self.sequences[np.repeat(shift, in_row) + np.arange(in_row.sum())], in_row


def plan_rows(
    store: TokenStore,
    *,
    objective: Objective,
    max_length: int,
    slots: int = 1,
    short_probability: float = 0.1,
    seed: int,
    pass_number: int,
    special: SpecialTokens = SPECIAL_TOKENS,
    cache_dir: str | os.PathLike[str] | None = None,
) -> EpochPlan:
    """Plans the sequences of a pass (see `plan_sequences`) and packs them in rows of `max_length` tokens.

    Args:
        slots: maximum number of sequences in a row; with 1 each has a row, in the order of the corpus.
        special: the numbers of special tokens of the sequences; default: BERT's.
        cache_dir: folder for the plan, 25 bytes a sequence and 8 a row, in memory-mapped files that are deleted with
            the plan. None keeps the plan in memory.

    Raises:
        ValueError: see `plan_sequences`.
    """
    blocks = plan_sequences(
        store,
        objective=objective,
        max_length=max_length,
        short_probability=short_probability,
        seed=seed,
        pass_number=pass_number,
        special=special,
    )
    sequences = _Column(SEQUENCE, cache_dir)
    offsets = _Column(np.dtype(np.int64), cache_dir)
    offsets.append(np.zeros(1, np.int64))
    planned = 0
    for index, block in enumerate(blocks):
        seeds = np.random.SeedSequence((seed, pass_number, index, PACKING))
        order, in_row = _pack_block(sequence_lengths(block, special), max_length, slots, seeds)
        sequences.append(block[order])
        offsets.append(planned + np.cumsum(in_row))
        planned += len(block)
    return EpochPlan(sequences.array(), offsets.array())


def _pack_block(
    lengths: np.ndarray, row_length: int, slots: int, seeds: np.random.SeedSequence
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the indices of the sequences, [N], row by row, and their number in each row."""
    if slots == 1:
        return np.arange(len(lengths)), np.ones(len(lengths), np.int64)
    order = np.random.Generator(np.random.Philox(seeds)).permutation(len(lengths))
    row_of = pack(lengths[order], row_length, slots=slots)
    return order[np.argsort(row_of, kind="stable")], np.bincount(row_of)


class _Column:
    """An array that grows, in memory or in an unnamed temporary file."""

    def __init__(self, dtype: np.dtype, folder: str | os.PathLike[str] | None) -> None:
        self._dtype = dtype
        self._file = self._open(folder)

    @staticmethod
    def _open(folder: str | os.PathLike[str] | None) -> IO[bytes]:
        if folder is None:
            return io.BytesIO()
        Path(folder).mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryFile(dir=folder)

    def append(self, values: np.ndarray) -> None:
        self._file.write(values.tobytes())

    def array(self) -> np.ndarray:
        """Returns all appended values; nothing can be appended afterwards."""
        if isinstance(self._file, io.BytesIO):
            return np.frombuffer(self._file.getbuffer(), self._dtype)
        with self._file:
            return np.memmap(self._file, self._dtype, mode="r")
