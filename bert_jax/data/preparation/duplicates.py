"""Finds the documents that repeat an earlier one, exactly, from the hashes of all parts.

Hashes are sorted in groups by their first bits, so that memory is bounded. The first of equal documents, in the order
of the parts, is kept.
"""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from bert_jax.data.preparation.sealed import Content, make_once
from bert_jax.data.preparation.survey import HASHES, survey_folder
from bert_jax.data.pretraining.array_files import ArrayWriter, map_array

FOLDER = "duplicates"
HASHES_AT_ONCE = 1 << 23  # in a group; sorting takes about 60 bytes each


def find_duplicates(store: Path, surveys: Sequence[Content]) -> Content:
    """Writes the numbers of documents that repeat an earlier one, unless that is done.

    Args:
        surveys: what `survey_part` returned for each part.
    """
    sizes = [survey["documents"] for survey in surveys]

    def write(folder: Path) -> Content:
        groups = math.ceil(sum(sizes) / HASHES_AT_ONCE)
        found = [repeated_in_group(store, len(sizes), group, groups) for group in range(groups)]
        numbers = np.sort(np.concatenate([np.zeros(0, np.int64), *found]))
        with ArrayWriter(folder / "documents.npy", np.int64) as file:
            file.append(numbers)
        with ArrayWriter(folder / "firsts.npy", np.int64) as file:
            file.append(np.cumsum([0, *sizes]))
        return {"duplicates": len(numbers), "documents": sum(sizes)}

    return make_once(store / FOLDER, [survey["files"] for survey in surveys], write)


def repeated_in_group(store: Path, num_parts: int, group: int, groups: int) -> np.ndarray:
    """Returns the numbers, counted over all parts, of the repeated documents whose hash is in a group."""
    bounds = [-(-number * 2**64 // groups) for number in (group, group + 1)]
    hashes = []
    numbers = []
    before = 0
    for part in range(num_parts):
        of_part = map_array(survey_folder(store, part) / HASHES).reshape(-1, 2)
        first = of_part[:, 0]
        inside = (first >= np.uint64(bounds[0])) & (first <= np.uint64(bounds[1] - 1))
        hashes.append(of_part[inside])
        numbers.append(before + np.flatnonzero(inside))
        before += len(of_part)
    return _repeated(np.concatenate(hashes), np.concatenate(numbers))


def _repeated(hashes: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Returns the numbers of all but the first of equal hashes, uint64 [documents, 2]; the numbers ascend."""
    order = np.lexsort((hashes[:, 1], hashes[:, 0]))  # stable: equal hashes stay in order
    equal = (hashes[order[1:]] == hashes[order[:-1]]).all(axis=1)
    return numbers[order[1:][equal]]


def repeated_documents(store: Path, number: int) -> Iterable[int]:
    """Returns the repeated documents of a part, by their index in it."""
    documents = map_array(store / FOLDER / "documents.npy")
    first, end = map_array(store / FOLDER / "firsts.npy")[number : number + 2]
    return (documents[slice(*np.searchsorted(documents, [first, end]))] - first).tolist()
