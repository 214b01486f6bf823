"""The inputs of a corpus, cut into pieces of about equal cost, and the pieces put together in parts.

| input | pieces |
|---|---|
| text, jsonl | bytes between borders of documents |
| parquet | row groups |
| dataset (hub, `save_to_disk`, practice data) | rows |
| all others: compressed, csv, json, UTF-16, of unknown size | the whole file |

A part has a size and never a number of inputs or workers, so the same inputs give the same parts everywhere.
"""

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import datasets
from pyarrow import parquet

from bert_jax.data.preparation.settings import Preparation
from bert_jax.data.readers.files import COMPRESSED_SUFFIXES, compression_of, format_of
from bert_jax.data.readers.remote import RemoteFile, find_remote
from bert_jax.data.readers.slices import FileSlice, RowGroups, can_be_cut, find_borders
from bert_jax.data.readers.sources import codec, find_origins
from bert_jax.data.readers.tables import TABLES, Origin

SPLIT = "train"  # of datasets
SMALLEST_COST = 1 << 15  # bytes: a file has to be opened, however small it is
COMPRESSION = 4  # bytes of text in a byte of a compressed or parquet file


class Input(NamedTuple):
    """A file or a dataset.

    Attributes:
        source: index of the source in `corpus` that names it.
        kind: path, url or dataset.
        version: what says that it has changed: size and time in ns, size and ETag, or number of rows and bytes.
    """

    source: int
    kind: str
    name: str
    version: tuple[Any, Any]


class Piece(NamedTuple):
    """A piece of an input: all of it, or from `start` to before `end` (bytes, row groups or rows)."""

    input: int
    start: int | None = None
    end: int | None = None


class Changed(ValueError):
    """An input is not what it was when the manifest was written."""


def find_inputs(corpus: Iterable[str]) -> Iterator[tuple[Input, Origin]]:
    """Yields the inputs that the sources of a corpus name, each once.

    Raises:
        OSError, ValueError, ImportError: as `find_origins`.
    """
    seen = set()
    for source, name in enumerate(corpus):
        for origin in find_origins([name], SPLIT):
            described = _describe(source, name, origin)
            if described.name not in seen:
                seen.add(described.name)
                yield described, origin


def _describe(source: int, name: str, origin: Origin) -> Input:
    if isinstance(origin, Path):
        entry = origin.stat()
        try:
            str(origin).encode()
        except UnicodeEncodeError:
            raise ValueError(f"{str(origin)!a}: the name of the file is not UTF-8; rename it") from None
        return Input(source, "path", str(origin.absolute()), (entry.st_size, entry.st_mtime_ns))
    if isinstance(origin, RemoteFile):
        return Input(source, "url", origin.url, (origin.size, origin.version))
    assert isinstance(origin, datasets.Dataset)
    folder = Path(name).expanduser()
    if folder.is_dir():  # of `save_to_disk`
        name = str(folder.absolute())
    return Input(source, "dataset", name, (len(origin), origin.data.nbytes))


def reopen(described: Input) -> Origin:
    """Returns an input again.

    Raises:
        Changed: it has another size or version, or has vanished.
    """
    name = described.name
    try:
        if described.kind == "path":
            entry = Path(name).stat()
            found: Origin = Path(name)
            version = (entry.st_size, entry.st_mtime_ns)
        elif described.kind == "url":
            [found] = find_remote(name)  # pyright: ignore[reportGeneralTypeIssues, reportAssignmentType]
            version = (found.size, found.version)  # pyright: ignore[reportAttributeAccessIssue]
        else:
            found = _open_dataset(name)
            version = (len(found), found.data.nbytes)
    except (FileNotFoundError, NotADirectoryError):
        raise Changed(f"{name} has vanished since the manifest was written") from None
    if version != described.version:
        raise Changed(
            f"{name} has changed since the manifest was written: {version} instead of {described.version}; "
            "prepare the corpus in another `output`"
        )
    return found


@lru_cache(maxsize=4)
def _open_dataset(name: str) -> datasets.Dataset:
    [found] = find_origins([name], SPLIT)
    assert isinstance(found, datasets.Dataset)
    return found


def open_piece(described: Input, piece: Piece) -> Origin:
    """Returns a piece, which is read like a file or a dataset; raises `Changed` as `reopen` does."""
    origin = reopen(described)
    if piece.start is None or piece.end is None:
        return origin
    if isinstance(origin, datasets.Dataset):
        return origin.select(range(piece.start, piece.end))
    assert isinstance(origin, Path | RemoteFile)
    kind = RowGroups if format_of(origin) == ".parquet" else FileSlice
    return kind(origin, piece.start, piece.end)


def make_parts(inputs: Iterable[tuple[Input, Origin]], settings: Preparation) -> tuple[list[Input], list[list[Piece]]]:
    """Cuts inputs into pieces and puts these together in parts, in their order."""
    found = []
    parts: list[list[Piece]] = []
    room = 0.0
    for number, (described, origin) in enumerate(inputs):
        found.append(described)
        for piece, cost in _cut(number, described, origin, settings):
            if not parts or cost > room:
                parts.append([])
                room = settings.part_bytes
            parts[-1].append(piece)
            room -= cost
    return found, parts


def _cut(number: int, described: Input, origin: Origin, settings: Preparation) -> Iterator[tuple[Piece, float]]:
    """Yields the pieces of an input and what each costs, in bytes of text."""
    if isinstance(origin, datasets.Dataset):
        rows = len(origin)
        cost = origin.data.nbytes * rows / max(origin.data.num_rows, 1)
        borders = _even_borders(rows, math.ceil(cost / settings.part_bytes))
        for start, end in pairwise(borders):
            yield Piece(number, start, end), cost * (end - start) / rows
        return
    size = described.version[0] or 0
    is_parquet = format_of(origin) == ".parquet"
    is_smaller = is_parquet or origin.suffix.lower() in COMPRESSED_SUFFIXES
    cost = max(size * (COMPRESSION if is_smaller else 1), SMALLEST_COST)
    weights: list[int] = []
    if cost > settings.part_bytes:
        try:
            if is_parquet:
                weights = _row_groups(origin)
            else:
                borders = _text_borders(origin, size, settings)
                yield from ((Piece(number, *ends), ends[1] - ends[0]) for ends in pairwise(borders))
                if borders:
                    return
        except (OSError, ValueError):  # the worker that reads the file reports it
            pass
    if not weights:
        yield Piece(number), cost
        return
    start = 0
    total = max(sum(weights), 1)
    for end in range(1, len(weights) + 1):
        if end == len(weights) or cost * sum(weights[start : end + 1]) / total > settings.part_bytes:
            yield Piece(number, start, end), cost * sum(weights[start:end]) / total
            start = end


def _even_borders(size: int, pieces: int) -> list[int]:
    return [number * size // pieces for number in range(pieces + 1)] if pieces else []


def _row_groups(origin: Any) -> list[int]:
    """Returns the sizes of the row groups of a parquet file."""
    with origin.open("rb") as file:
        metadata = parquet.ParquetFile(file).metadata
        return [metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups)]


def _text_borders(origin: Any, size: int, settings: Preparation) -> list[int]:
    """Returns where to cut a file of text; nothing if it must stay whole."""
    format = format_of(origin)
    is_lines = format in (".jsonl", ".ndjson")
    if (format in TABLES and not is_lines) or not can_be_cut(codec(settings.encoding)):
        return []
    with origin.open("rb") as file:
        if compression_of(file):
            return []
        after_blank_lines = not is_lines and settings.document == "paragraphs"
        pieces = math.ceil(size / settings.part_bytes)
        return find_borders(file, size, pieces, after_blank_lines=after_blank_lines)
