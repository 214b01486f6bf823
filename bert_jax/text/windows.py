"""Overlapping windows over texts that are longer than a row.

A token may be in several windows; the one in which it has the most context on both sides owns it.

References: google-research/bert `run_squad.py` (sliding windows, `_check_is_max_context`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


@dataclass(frozen=True)
class Window:
    """The tokens start <= i < stop of a document."""

    start: int
    stop: int


def slide(length: int, room: int, step: int) -> tuple[Window, ...]:
    """Returns windows of up to `room` tokens over `length` tokens, each `step` (at most `room`) after the previous one.

    There is at least one window, the last one reaches the end, and they cover all tokens.

    >>> [(window.start, window.stop) for window in slide(11, 6, 3)]
    [(0, 6), (3, 9), (6, 11)]
    """
    starts = range(0, max(1, length - room + step), step)
    return tuple(Window(start, min(start + room, length)) for start in starts)


def cover(length: int, room: int, overlap: int) -> tuple[Window, ...]:
    """Returns windows of up to `room` tokens over `length` tokens; neighbours share `overlap`, at most half a window.

    >>> [(window.start, window.stop) for window in cover(10, 6, 2)]
    [(0, 6), (4, 10)]
    """
    return slide(length, room, max(1, room - min(overlap, room // 2)))


def owners(windows: Sequence[Window]) -> np.ndarray:
    """Returns the index of the window in which each token has the most context, int32 [length].

    The context is the smaller number of tokens before and after it in the window, plus 0.01 times the window's length;
    the first of equal windows wins. In the windows 0..6 and 4..10 token 4 has min(4, 1) and min(0, 5) tokens of
    context, so the first window owns it; token 5 has 0 and 1, so the second one does.

    Args:
        windows: the result of `slide` or `cover`.
    """
    length = windows[-1].stop
    found = np.zeros(length, np.int32)
    most = np.full(length, -1.0)
    for number, window in enumerate(windows):
        tokens = np.arange(window.start, window.stop)
        context = np.minimum(tokens - window.start, window.stop - 1 - tokens)
        context = context + 0.01 * (window.stop - window.start)
        better = context > most[tokens]
        found[tokens[better]] = number
        most[tokens[better]] = context[better]
    return found


class FlatWindows(NamedTuple):
    """The windows of many documents, one after another.

    Attributes:
        documents: int64 [windows], the index of each window's document.
        starts: int64 [windows], the window's first token within its document.
        lengths: int64 [windows].
        owned: bool [tokens of all windows], whether the token has the most context in this window.
    """

    documents: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    owned: np.ndarray


def flatten_windows(documents: Sequence[Sequence[Window]]) -> FlatWindows:
    """Concatenates the windows of documents, which `slide` or `cover` returned, into flat arrays."""
    flat = [window for windows in documents for window in windows]
    starts = np.array([window.start for window in flat], np.int64)
    lengths = np.array([window.stop for window in flat], np.int64) - starts
    numbers = np.repeat(np.arange(len(documents)), [len(windows) for windows in documents])
    owned = np.ones(lengths.sum(), bool)
    token = 0  # the first token of the document
    for windows in documents:
        if len(windows) > 1:
            owner = owners(windows)
            begin = token
            for number, window in enumerate(windows):
                end = begin + window.stop - window.start
                owned[begin:end] = owner[window.start : window.stop] == number
                begin = end
        token += sum(window.stop - window.start for window in windows)
    return FlatWindows(numbers, starts, lengths, owned)
