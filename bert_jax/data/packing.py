"""Several short sequences in one row, so that no time goes into padding.

Attention stays within a sequence (`attention_mask` holds its number), positions restart, and each sequence has a [CLS]
of its own, so that a row of several says the same as a row for each.

References: Krell et al., Efficient Sequence Packing without Cross-contamination, 2021.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

TOKENS_A_SLOT = 16  # rows fill up as long as sequences are longer than this on the average


def enough_slots(max_length: int) -> int:
    """Returns S, the slots for sequences that a row of `max_length` tokens gets."""
    return max(2, max_length // TOKENS_A_SLOT)


def pack(lengths: Sequence[int] | np.ndarray, row_length: int, *, slots: int) -> list[list[int]]:
    """Returns for each row the numbers of its sequences, ascending; see `assign_rows`."""
    row_of = assign_rows(lengths, row_length, slots=slots)
    rows: list[list[int]] = [[] for _ in range(row_of.max(initial=-1) + 1)]
    for number, row in enumerate(row_of.tolist()):
        rows[row].append(number)
    return rows


def assign_rows(lengths: Sequence[int] | np.ndarray, row_length: int, *, slots: int) -> np.ndarray:
    """Packs sequences into few rows: the longest first, each where it leaves the least room (best-fit decreasing).

    Sequences of one length are placed together, so the time goes with the number of lengths and hardly with that of
    sequences. Among equals their order decides: shuffle first where neighbours should not meet.

    Args:
        lengths: tokens of each sequence, 1 to `row_length`.
        slots: the most sequences a row takes.

    Returns:
        The row of each sequence, int64 [N], counted from 0. It hangs on the lengths alone.

    Raises:
        ValueError: a sequence that is empty or longer than a row.
    """
    lengths = np.asarray(lengths, np.int64)
    for length in lengths[(lengths < 1) | (lengths > row_length)][:1]:
        raise ValueError(f"a sequence of {length} tokens does not fit a row of {row_length}")
    longest_first = np.argsort(-lengths, kind="stable")
    row_of, rows = np.zeros(lengths.size, np.int64), _Rows(row_length, slots)
    for alike in np.split(longest_first, np.flatnonzero(np.diff(lengths[longest_first])) + 1):
        row_of[alike] = rows.take(alike.size, int(lengths[alike].max(initial=0)))
    return row_of


class _Rows:
    """Rows that are being filled; those with as many tokens and slots left lie together."""

    def __init__(self, row_length: int, slots: int) -> None:
        self.empty, self.count = (row_length, slots), 0
        self.rooms: list[tuple[int, int]] = []  # (tokens left, slots left), ascending
        self.rows: dict[tuple[int, int], np.ndarray] = {}

    def take(self, wanted: int, length: int) -> np.ndarray:
        """Returns the rows that take `wanted` sequences of `length` tokens, int64 [wanted]."""
        found = [np.zeros(0, np.int64)]
        while wanted:
            at = bisect_left(self.rooms, (length, 0))
            tokens, slots = room = self.rooms.pop(at) if at < len(self.rooms) else self.empty
            # A row that has taken one is the tightest for the next, until it has no room for another.
            each = min(tokens // length, slots, wanted)
            rows = self.rows.pop(room) if room in self.rows else self._new(wanted // each)
            used, rest = np.split(rows, [wanted // each])
            self._keep(used, (tokens - each * length, slots - each))
            self._keep(rest, room)
            found.append(np.repeat(used, each))
            wanted -= each * len(used)
        return np.concatenate(found)

    def _new(self, count: int) -> np.ndarray:
        self.count += count
        return np.arange(self.count - count, self.count)

    def _keep(self, rows: np.ndarray, room: tuple[int, int]) -> None:
        if not len(rows) or not all(room):
            return
        if room in self.rows:
            rows = np.concatenate([self.rows[room], rows])
        else:
            insort(self.rooms, room)
        self.rows[room] = rows


class Layout:
    """Where the sequences of a batch lie: in rows of T tokens and S slots, one after another.

    Attributes:
        row, slot: int64 [N], the row of each sequence, and the how-manieth it is there.
        start: int64 [N], where in the row it begins.
    """

    def __init__(self, lengths: np.ndarray, in_row: np.ndarray, *, row_length: int, slots: int) -> None:
        """Lays out sequences of `lengths` [N], `in_row` [B] of them in each row."""
        self._row_length, self._slots, self._lengths = row_length, slots, np.asarray(lengths, np.int64)
        self._ends = np.cumsum(in_row)
        before = np.cumsum([0, *self._lengths])
        self._room = row_length - (before[self._ends] - before[self._ends - in_row])
        self.row = np.repeat(np.arange(len(in_row)), in_row)
        first = (self._ends - in_row)[self.row]
        self.slot = np.arange(len(lengths)) - first
        self.start = before[:-1] - before[first]

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns attention_mask and position_ids, int32 [B, T], and cls_positions, int32 [B, S]."""
        attention_mask = self.fill(self.slot + 1)
        place = np.arange(self._row_length, dtype=np.int32) - self.fill(self.start)
        return {
            "attention_mask": attention_mask,
            "position_ids": np.where(attention_mask != 0, place, 0),
            "cls_positions": self.spread(self.start.astype(np.int32)),
        }

    def fill(self, values: np.ndarray, lengths: np.ndarray | None = None) -> np.ndarray:
        """Fills rows, int32 [B, T], with a value for each sequence, or for K consecutive parts of it; padding gets 0.

        Args:
            values: int [N] or [N, K].
            lengths: int [N, K], the tokens of the parts.
        """
        lengths = self._lengths if lengths is None else lengths
        row_ends = self._ends * (values.size // max(1, len(values)))
        runs = np.insert(values.ravel(), row_ends, 0).astype(np.int32)
        return np.repeat(runs, np.insert(lengths.ravel(), row_ends, self._room)).reshape(-1, self._row_length)

    def spread(self, values: np.ndarray) -> np.ndarray:
        """Returns [B, S] with a value for each sequence, values [N], and 0 in the slots that are not taken."""
        table = np.zeros((len(self._room), self._slots), values.dtype)
        table[self.row, self.slot] = values
        return table
