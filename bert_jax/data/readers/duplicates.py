"""Drops documents that repeat an earlier one, as copies of a page do in a crawl of the web.

Two documents are the same if they are equal after NFKC, lower-casing and replacing each run of white space by a blank.
What differs in one other character is kept.
"""

import hashlib
import unicodedata
from collections.abc import Iterable, Iterator

import numpy as np

from bert_jax.data.readers.report import ReadReport

DUPLICATES = "duplicates of earlier documents"
HASH_BYTES = 16
RECENT = 1 << 19  # hashes in a set, which takes about 50 MB


def without_duplicates(documents: Iterable[tuple[str, str]], report: ReadReport) -> Iterator[tuple[str, str]]:
    """Yields the first of equal documents, in their order, and counts the others in `report`.

    Args:
        documents: places and texts.
    """
    seen = HashSet()
    for where, text in documents:
        if seen.add(document_hash(text)):
            yield where, text
        else:
            report.skip(DUPLICATES, where)


def document_hash(text: str) -> bytes:
    """Returns a hash that equal documents share.

    >>> document_hash("The OWL\\n\\thooted ") == document_hash("the owl hooted")
    True
    """
    normalized = " ".join(unicodedata.normalize("NFKC", text).lower().split())
    return hashlib.blake2b(normalized.encode(errors="replace"), digest_size=HASH_BYTES).digest()


class HashSet:
    """A set of hashes in 16 bytes each: a sorted array, and a Python set of the most recent ones.

    A Python set alone takes six times as much. While the recent ones are merged into the array, it exists twice.
    """

    def __init__(self) -> None:
        self._sorted = np.empty(0, f"S{HASH_BYTES}")
        self._recent: set[bytes] = set()

    def add(self, value: bytes) -> bool:
        """Adds a hash; returns whether it was missing."""
        if value in self._recent:
            return False
        place = np.searchsorted(self._sorted, np.bytes_(value))
        # NumPy takes zeros at the end of bytes for padding, and returns the element without them.
        if place < len(self._sorted) and self._sorted[place] == value.rstrip(b"\0"):
            return False
        self._recent.add(value)
        if len(self._recent) >= RECENT:
            recent = np.sort(np.array(list(self._recent), self._sorted.dtype))
            self._sorted = np.insert(self._sorted, np.searchsorted(self._sorted, recent), recent)
            self._recent.clear()
        return True
