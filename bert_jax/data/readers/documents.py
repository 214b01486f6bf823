"""Streams the documents of one file or dataset.

Error messages are one line, with the file and its line number.
"""

from collections.abc import Generator, Iterable, Iterator
from functools import partial
from itertools import groupby
from typing import Literal

import datasets

from bert_jax.data.readers.delimited import LONGEST_FIELD
from bert_jax.data.readers.files import File, format_of, open_text
from bert_jax.data.readers.report import ReadReport
from bert_jax.data.readers.tables import TABLES, Origin, read_rows, text_of

LONGEST_DOCUMENT = LONGEST_FIELD  # characters; a longer one is a corpus without blank lines
WITHOUT_TEXT = "documents without text"
CUT = "documents that were cut, because they are very long"
DocumentUnit = Literal["paragraphs", "line"]
_LONGEST_WORD = 1 << 10  # characters; a cut document is cut at white space if a word ends in as many


def read_documents(
    origin: Origin,
    text_column: str,
    encoding: str,
    document: DocumentUnit,
    report: ReadReport,
    cut_at: int | None = None,
) -> Generator[tuple[str, str], None, None]:
    """Yields the places and the texts of the documents in one file or dataset.

    Rows, and lines that are documents, may be empty. These are skipped and counted in `report`.

    Args:
        cut_at: documents of more characters are cut at white space into several, and counted; a text file is then read
            in bounded memory. With None a document of more than LONGEST_DOCUMENT characters in a text file is an error.
    """
    is_table = True
    if isinstance(origin, datasets.Dataset) or format_of(origin) in TABLES:
        rows = read_rows(origin, [text_column], encoding=encoding)
        found = ((where, [text_of(row, text_column, where) or ""]) for where, row in rows)
    else:
        read = _read_lines if document == "line" else _read_paragraphs
        is_table = False
        found = read(origin, encoding, (LONGEST_DOCUMENT if cut_at is None else cut_at) + 1)
    for where, pieces in found:
        if cut_at is not None:
            texts = _cut(where, pieces, cut_at, report)
        else:
            texts = pieces if is_table else _whole(where, pieces, document)
        for text in texts:
            report.rows += 1
            if text and not text.isspace():
                yield where, text if is_table else text.rstrip("\n")
            else:
                report.skip(WITHOUT_TEXT, where)


def _read_lines(path: File, encoding: str, most: int) -> Iterator[tuple[str, Iterator[str]]]:
    """Yields the place of each line, and the line in pieces of up to `most` characters."""
    with open_text(path, encoding) as file:
        for number, first in enumerate(iter(partial(file.readline, most), ""), 1):
            yield f"{path}:{number}", _rest_of_line(first, partial(file.readline, most))


def _rest_of_line(first: str, read: partial[str]) -> Iterator[str]:
    piece = first
    while piece:
        yield piece
        piece = "" if piece.endswith("\n") else read()


def _read_paragraphs(path: File, encoding: str, most: int) -> Iterator[tuple[str, Iterator[str]]]:
    """Yields the place of each document, and its lines; very long ones in pieces of up to `most` characters."""
    with open_text(path, encoding) as file:
        number = 1

        def counted(lines: Iterable[str]) -> Iterator[str]:
            nonlocal number
            for line in lines:
                number += line.endswith("\n")
                yield line

        for blank, group in groupby(iter(partial(file.readline, most), ""), key=str.isspace):
            if blank:
                number += sum(line.endswith("\n") for line in group)
            else:
                yield f"{path}:{number}", counted(group)


def _whole(where: str, pieces: Iterable[str], document: DocumentUnit) -> Iterator[str]:
    """Yields the text of a document; an error if it is very long, before it fills the memory."""
    kept = []
    size = 0
    for piece in pieces:
        kept.append(piece)
        size += len(piece)
        if size > LONGEST_DOCUMENT:
            advice = "" if document == "line" else "; blank lines separate documents, or set `document=line`"
            raise ValueError(f"{where}: a document of more than {LONGEST_DOCUMENT} characters{advice}")
    yield "".join(kept)


def _cut(where: str, pieces: Iterable[str], cut_at: int, report: ReadReport) -> Iterator[str]:
    """Yields the text of a document, or if it is longer than `cut_at` characters, several texts."""
    kept = []
    size = 0
    is_cut = False
    for piece in pieces:
        kept.append(piece)
        size += len(piece)
        if size <= cut_at:
            continue
        text = "".join(kept)
        start = 0
        while len(text) - start > cut_at:  # a row may be a thousand times as long: the rest is not copied
            end = _last_space(text, start, start + cut_at)
            yield text[start:end]
            start = end
        kept = [text[start:]]
        size = len(kept[0])
        if not is_cut:
            report.change(CUT, where)
            is_cut = True
    yield "".join(kept)


def _last_space(text: str, start: int, end: int) -> int:
    """Returns where to cut a text that begins at `start`, before `end`: after white space, else inside of a word."""
    for place in range(end, max(end - _LONGEST_WORD, start), -1):
        if text[place - 1].isspace():
            return place
    return end
