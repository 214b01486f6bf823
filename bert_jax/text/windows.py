"""Windows over tokens that are too many for a row.

Neighbouring windows overlap, so a token is looked at several times; the window in which it has the most context on
both sides speaks for it.

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
    """Returns windows of up to `room` tokens over `length` tokens, each `step` (at most `room`) after the one before.

    There is at least one, the last one reaches the end, and no token is left out.

    >>> [(window.start, window.stop) for window in slide(11, 6, 3)]
    [(0, 6), (3, 9), (6, 11)]
    """
    starts = range(0, max(1, length - room + step), step)
    return tuple(Window(start, min(start + room, length)) for start in starts)


def cover(length: int, room: int, overlap: int) -> tuple[Window, ...]:
    """Returns windows of up to `room` tokens over `length` tokens, neighbours sharing `overlap`, at most half of them.

    >>> [(window.start, window.stop) for window in cover(10, 6, 2)]
    [(0, 6), (4, 10)]
    """
    return slide(length, room, max(1, room - min(overlap, room // 2)))


def owners(windows: Sequence[Window]) -> np.ndarray:
    """Returns for each token, int32 [length], the number of the window in which it has the most context.

    That is the lesser of what the window holds before and after the token, plus a hundredth of the window's length; of
    equals the first.

    Args:
        windows: what `slide` or `cover` returned.
    """
    length = windows[-1].stop
    found, most = np.zeros(length, np.int32), np.full(length, -1.0)
    for number, window in enumerate(windows):
        tokens = np.arange(window.start, window.stop)
        context = np.minimum(tokens - window.start, window.stop - 1 - tokens)
        context = context + 0.01 * (window.stop - window.start)
        better = context > most[tokens]
        found[tokens[better]], most[tokens[better]] = number, context[better]
    return found


class FlatWindows(NamedTuple):
    """The windows of many documents, one after another.

    Attributes:
        documents: int64 [windows], the number of the document that each is of.
        starts: int64 [windows], the window's first token within its document.
        lengths: int64 [windows].
        owned: bool [tokens of all windows], whether the window speaks for the token.
    """

    documents: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    owned: np.ndarray


def flatten_windows(documents: Sequence[Sequence[Window]]) -> FlatWindows:
    """Lays out the windows of documents, each as `slide` or `cover` returned them."""
    flat = [window for windows in documents for window in windows]
    starts = np.array([window.start for window in flat], np.int64)
    lengths = np.array([window.stop for window in flat], np.int64) - starts
    numbers = np.repeat(np.arange(len(documents)), [len(windows) for windows in documents])
    owned, token = np.ones(lengths.sum(), bool), 0
    for windows in documents:
        if len(windows) > 1:
            owner, begin = owners(windows), token
            for number, window in enumerate(windows):
                end = begin + window.stop - window.start
                owned[begin:end] = owner[window.start : window.stop] == number
                begin = end
        token += sum(window.stop - window.start for window in windows)
    return FlatWindows(numbers, starts, lengths, owned)
