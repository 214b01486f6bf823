"""Finds a text within another one where they are written differently: other white space, Unicode form or case.

Both texts are folded to one form, in which `CAFÉ`, `café` and `cafe` + U+0301 are equal, as are `ß` and `ss`, or CRLF
and a blank. Folding changes lengths, so it works on clusters: a character with its combining marks, or a run of white
space. Each folded character knows its cluster, a match must consist of whole clusters, and its offsets are theirs:

    find_folded("Die Straße", "STRASSE")    # [(4, 10)]
    find_folded("Die Straße", "STRAS")      # [], it ends within ß

Reference: Unicode Standard Annex 15 (normalization forms) and section 3.13 (caseless matching).
"""

import unicodedata
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple


class Folded(NamedTuple):
    """A folded text, and for each of its characters the start and the end of its cluster in the original text."""

    text: str
    starts: list[int]
    ends: list[int]


def find_folded(text: str, wanted: str, *, case: bool = True) -> list[tuple[int, int]]:
    """Returns the start and the end of each place of `text` that equals `wanted` after folding.

    Args:
        wanted: without regard to white space at its ends; nothing else than white space is nowhere.
        case: whether to fold case too, not only white space and Unicode form.
    """
    folded = fold(text, case)
    needle = fold(wanted.strip(), case).text
    found = []
    start = folded.text.find(needle) if needle else -1
    while start >= 0:
        stop = start + len(needle)
        begins = start == 0 or folded.starts[start - 1] != folded.starts[start]
        ends = stop == len(folded.text) or folded.starts[stop - 1] != folded.starts[stop]
        if begins and ends:
            found.append((folded.starts[start], folded.ends[stop - 1]))
        start = folded.text.find(needle, start + 1)
    return found


@lru_cache(maxsize=64)  # several answers have one context
def fold(text: str, case: bool) -> Folded:
    """Folds a text; see `find_folded`."""
    folded = Folded("", [], [])
    parts = []
    for start, end in _clusters(text):
        part = _fold_cluster(text[start:end], case)
        parts.append(part)
        folded.starts.extend([start] * len(part))
        folded.ends.extend([end] * len(part))
    return folded._replace(text="".join(parts))


def _clusters(text: str) -> Iterator[tuple[int, int]]:
    """Yields the start and the end of each cluster."""
    start = 0
    for index in range(1, len(text) + 1):
        if index == len(text) or not _continues(text[index - 1], text[index]):
            yield start, index
            start = index


def _continues(before: str, character: str) -> bool:
    """Returns whether a character belongs to the cluster of the one before it."""
    if character.isspace():
        return before.isspace()
    if character < "\u0300":  # there are no marks below
        return False
    jamo = "\u1160" <= character <= "\u11ff" or "\ud7b0" <= character <= "\ud7ff"  # vowels and finals of Hangul
    return jamo or unicodedata.category(character).startswith("M")


def _fold_cluster(cluster: str, case: bool) -> str:
    if cluster.isspace():
        return " "
    if cluster.isascii():
        return cluster.lower() if case else cluster
    folded = unicodedata.normalize("NFKD", cluster)
    if case:
        folded = unicodedata.normalize("NFKD", folded.casefold())
        folded = folded.replace("i\u0307", "i").replace("\u0131", "i")  # Turkish pairs I with \u0131
    return "".join(character for character in folded if unicodedata.category(character) != "Cf")  # soft hyphens
