"""Several short sequences in one row, so that no time goes into padding.

Attention stays within a sequence (`attention_mask` holds its number), positions restart, and each sequence has a [CLS]
of its own, so that a row of several says the same as a row for each.

References: Krell et al., Efficient Sequence Packing without Cross-contamination, 2021.
"""

from bisect import bisect_left, insort
from collections.abc import Sequence

import numpy as np


def pack(lengths: Sequence[int] | np.ndarray, row_length: int, *, slots: int) -> list[list[int]]:
    """Packs sequences into few rows: the longest first, each where it leaves the least room (best-fit decreasing).

    Args:
        lengths: tokens of each sequence, at most `row_length`.
        slots: the most sequences a row takes.

    Returns:
        For each row the numbers of its sequences. It hangs on the lengths alone.

    Raises:
        ValueError: a sequence that is longer than a row.
    """
    rows: list[list[int]] = []
    rooms: list[tuple[int, int]] = []  # (tokens left, row), ascending
    numbers = np.asarray(lengths).tolist()
    for i in sorted(range(len(numbers)), key=lambda i: (-numbers[i], i)):
        if numbers[i] > row_length:
            raise ValueError(f"a sequence of {numbers[i]} tokens does not fit a row of {row_length}")
        at = bisect_left(rooms, (numbers[i], -1))
        if at < len(rooms):
            room, row = rooms.pop(at)
        else:
            room, row = row_length, len(rows)
            rows.append([])
        rows[row].append(i)
        if len(rows[row]) < slots:
            insort(rooms, (room - numbers[i], row))
    return rows
