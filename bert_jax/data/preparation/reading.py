"""Streams the documents of a part, the same in every stage."""

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeVar

import datasets

from bert_jax.data.preparation.inputs import Changed, Input, Piece, open_piece, reopen
from bert_jax.data.preparation.manifest import Manifest, reason
from bert_jax.data.preparation.report import SourceReport
from bert_jax.data.readers.corpus import side_hash
from bert_jax.data.readers.documents import read_documents
from bert_jax.data.readers.report import ReadReport
from bert_jax.data.readers.sources import codec
from bert_jax.text.inputs import valid_text

CUT_AT = 1 << 22  # characters: longer than a long book
READ_AT_ONCE = 1 << 22  # bytes: a smaller file is read to its end before its first document is used
T = TypeVar("T")


class Document(NamedTuple):
    """A document, its place, and the index of its source."""

    source: int
    where: str
    text: str


class StartAgain(Exception):
    """A file could not be read to its end, and some of its documents were used already."""


class PartReader:
    """Reads the documents of a part, any number of times; files that are unreadable are then left out."""

    def __init__(self, manifest: Manifest, number: int) -> None:
        self.manifest = manifest
        self.number = number
        self.reports: dict[int, SourceReport] = {}
        self._unreadable: dict[Piece, str] = {}

    def write(self, write: Callable[[], T]) -> T:
        """Returns what a function returns that reads the documents, which is called again after `StartAgain`."""
        while True:
            try:
                return write()
            except StartAgain:
                continue

    def read(self) -> Iterator[Document]:
        """Yields the documents; `reports` then has what was found.

        Raises:
            Changed: an input has changed or vanished.
            StartAgain: a file is unreadable; the part is to be read again, without it.
            OSError, ValueError, ImportError: a file is unreadable, and unreadable files are not to be skipped.
        """
        self.reports = {}
        for piece in self.manifest.parts[self.number]:
            described = self.manifest.inputs[piece.input]
            report = self.report(described.source)
            if piece in self._unreadable:
                report.skip_file(self._unreadable[piece])
                continue
            found = ReadReport(described.name)
            used = 0
            try:
                for document in self._documents(described, piece, found):
                    used += 1
                    yield document
            except Changed:
                raise
            except (OSError, ValueError, ImportError) as error:
                if not self.manifest.settings.skip_unreadable:
                    raise
                why = reason(error)
                self._unreadable[piece] = why if described.name in why else f"{described.name}: {why}"
                if used:
                    raise StartAgain from None
                report.skip_file(self._unreadable[piece])
            else:
                reopen(described)  # it has not changed meanwhile
                report.read.add(found.as_dict())

    def report(self, source: int) -> SourceReport:
        """Returns the report of a source."""
        if source not in self.reports:
            self.reports[source] = SourceReport(self.manifest.settings.corpus[source])
        return self.reports[source]

    def _documents(self, described: Input, piece: Piece, report: ReadReport) -> Iterator[Document]:
        settings = self.manifest.settings
        origin = open_piece(described, piece)
        documents = read_documents(
            origin, settings.text_column, codec(settings.encoding), settings.document, report, CUT_AT
        )
        found = (Document(described.source, where, valid_text(text)) for where, text in documents)
        is_small = not isinstance(origin, datasets.Dataset) and (described.version[0] or READ_AT_ONCE) < READ_AT_ONCE
        return iter(list(found)) if is_small and settings.skip_unreadable else found


class HeldOut:
    """Decides by a hash of its text whether a document is held out, so that copies fall on the same side."""

    def __init__(self, fraction: float, seed: int) -> None:
        self._below = round(fraction * 2**64)
        self._seed = seed

    def __call__(self, text: str) -> bool:
        return side_hash(text, self._seed) < self._below

    @classmethod
    def of(cls, manifest: Manifest) -> "HeldOut":
        return cls(manifest.settings.held_out, manifest.settings.seed)
