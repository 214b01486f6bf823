"""Packing: several short sequences share a row, so that little of a batch is padding.

`pack` decides which sequences share a row. `PackedRows` scatters their values into arrays. Attention stays within a
sequence (`attention_mask` holds the sequence's number in its row), positions restart at 0, and each sequence keeps its
own [CLS]: a model gives the same outputs for a packed sequence as for the same sequence alone in a row.

    sequences of 5, 3 and 4 tokens in rows of 9 tokens: pack([5, 3, 4], 9, slots=2) == [0, 1, 0]

    row 0   sequence 0        sequence 2    row 1   sequence 1
    attention_mask  1 1 1 1 1 2 2 2 2       1 1 1 0 0 0 0 0 0
    position_ids    0 1 2 3 4 0 1 2 3       0 1 2 0 0 0 0 0 0
    cls_positions   0 5                     0 0

Axes: N sequences, B rows, T tokens of a row, S slots for sequences in a row.

Reference: Krell et al., Efficient Sequence Packing without Cross-contamination, 2021.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np

TOKENS_PER_SLOT = 16  # rows fill up as long as the mean sequence is longer than this


def slots_per_row(row_length: int) -> int:
    """Returns S, the number of slots for sequences in a row of `row_length` tokens."""
    return max(2, row_length // TOKENS_PER_SLOT)


def pack(lengths: Sequence[int] | np.ndarray, row_lengths: int | Sequence[int], *, slots: int) -> np.ndarray:
    """Packs sequences into few rows: the longest first, each into the row that it fills best (best-fit decreasing).

    Where no open row has room, a new row of the smallest sufficient length is opened. Sequences of equal length are
    placed together, so the time depends on the number of different lengths and hardly on the number of sequences.
    Among sequences of equal length the earlier one is placed first: shuffle them if neighbours should be separated.

    Args:
        lengths: tokens of each sequence, at least 1.
        row_lengths: the permitted row length, or several in ascending order.
        slots: maximum number of sequences in a row.

    Returns:
        The row of each sequence, int64 [N]; rows are numbered from 0 in the order in which they were opened. A row's
        length is the smallest permitted length that holds its longest sequence.

    Raises:
        ValueError: a sequence is empty or longer than the longest row.
    """
    lengths = np.asarray(lengths, np.int64)
    row_lengths = [row_lengths] if isinstance(row_lengths, int) else row_lengths
    misfits = lengths[(lengths < 1) | (lengths > row_lengths[-1])]
    if misfits.size:
        raise ValueError(f"a sequence of {misfits[0]} tokens does not fit a row of {row_lengths[-1]}")
    rows = _OpenRows(row_lengths, slots)
    of_lengths, counts = np.unique(lengths, return_counts=True)
    for length, count in zip(of_lengths[::-1].tolist(), counts[::-1].tolist(), strict=True):
        rows.place(count, length)
    row_of = np.empty(lengths.size, np.int64)
    row_of[np.argsort(-lengths, kind="stable")] = rows.placed
    return row_of


def members(row_of: np.ndarray) -> list[list[int]]:
    """Returns for each row the indices of its sequences, ascending.

    >>> members(np.array([1, 0, 1, 2]))
    [[1], [0, 2], [3]]
    """
    rows: list[list[int]] = [[] for _ in range(row_of.max(initial=-1) + 1)]
    for index, row in enumerate(row_of.tolist()):
        rows[row].append(index)
    return rows


class _OpenRows:
    """Rows that are being filled, grouped by their room: (tokens left, slots left).

    Attributes:
        placed: the row of each sequence in the order in which they were placed.
    """

    def __init__(self, row_lengths: Sequence[int], slots: int) -> None:
        self.placed: list[int] = []
        self._row_lengths = row_lengths
        self._slots = slots
        self._count = 0
        self._rooms: list[tuple[int, int]] = []  # ascending
        self._rows: dict[tuple[int, int], list[int]] = {}  # the rows with that room

    def place(self, count: int, length: int) -> None:
        """Places `count` sequences of `length` tokens, no longer than those before them."""
        while count:
            best = bisect_left(self._rooms, (length, 0))  # the smallest room that is large enough
            if best < len(self._rooms):
                room = self._rooms.pop(best)
                rows = self._rows.pop(room)
            else:
                room = (self._row_lengths[bisect_left(self._row_lengths, length)], self._slots)
                rows = []
            tokens, slots = room
            # After a row has taken one of these sequences it is the best fit for the next one, until it is full. So
            # 7 sequences of 20 tokens go to two new rows of 64, three to a row, and the last one opens a third row.
            each = min(tokens // length, slots, count)
            wanted = count // each
            if not rows:
                rows = list(range(self._count, self._count + wanted))
                self._count += wanted
            used = rows[:wanted]
            self._keep(used, (tokens - each * length, slots - each))
            self._keep(rows[wanted:], room)
            self.placed += used if each == 1 else [row for row in used for _ in range(each)]
            count -= each * len(used)

    def _keep(self, rows: list[int], room: tuple[int, int]) -> None:
        if not rows or not all(room):
            return  # nothing to keep, or full rows
        if room in self._rows:
            self._rows[room] += rows
        else:
            insort(self._rooms, room)
            self._rows[room] = rows


class PackedRows:
    """Sequences in rows of T tokens and S slots, one after another; scatters their values into the rows' arrays.

    Attributes:
        lengths: int64 [N], tokens of each sequence.
        row, slot: int64 [N], the row of each sequence and its slot there.
        start: int64 [N], its first column in the row.
        occupied: bool [B, T], the cells that hold a token. Read row by row they are the tokens of all sequences.
    """

    def __init__(self, lengths: np.ndarray, in_row: np.ndarray, *, row_length: int, slots: int) -> None:
        """Lays out the sequences in order, `in_row` [B] of them in each row."""
        self.lengths = np.asarray(lengths, np.int64)
        first_of_row = np.cumsum(in_row) - in_row  # [B]
        offsets = np.concatenate([[0], np.cumsum(self.lengths)])  # [N + 1], tokens before each sequence
        self.row = np.repeat(np.arange(len(in_row)), in_row)
        first = first_of_row[self.row]  # [N], the first sequence of the same row
        self.slot = np.arange(len(self.lengths)) - first
        self.start = offsets[:-1] - offsets[first]
        tokens_of_row = offsets[first_of_row + in_row] - offsets[first_of_row]  # [B]
        self.occupied = np.arange(row_length) < tokens_of_row[:, None]  # [B, T]
        self._slots = slots

    def scatter_tokens(self, values: np.ndarray, fill: int = 0) -> np.ndarray:
        """Returns [B, T] with one value per token, `values` [tokens of all sequences], and `fill` in the padding."""
        array = np.full(self.occupied.shape, fill, values.dtype)
        array[self.occupied] = values
        return array

    def scatter_sequences(self, values: np.ndarray) -> np.ndarray:
        """Returns [B, S, ...] with one value per sequence, `values` [N, ...], and 0 in the empty slots."""
        array = np.zeros((len(self.occupied), self._slots, *values.shape[1:]), values.dtype)
        array[self.row, self.slot] = values
        return array

    def model_inputs(self, segment_b: np.ndarray) -> dict[str, np.ndarray]:
        """Returns all inputs but the ids: the masks and positions of a batch, int32.

        Args:
            segment_b: int [N], where segment B begins in each sequence; its length if there is none.

        Returns:
            attention_mask, token_type_ids and position_ids [B, T], and cls_positions [B, S].
        """
        first_token = np.cumsum(self.lengths) - self.lengths  # [N]
        number, first, second = np.repeat([self.slot + 1, first_token, segment_b], self.lengths, axis=1)  # [tokens]
        position = np.arange(len(first)) - first
        return {
            "attention_mask": self.scatter_tokens(number.astype(np.int32)),
            "token_type_ids": self.scatter_tokens((position >= second).astype(np.int32)),
            "position_ids": self.scatter_tokens(position.astype(np.int32)),
            "cls_positions": self.scatter_sequences(self.start.astype(np.int32)),
        }
