"""Stage 2: the tokens of a part."""

from collections.abc import Iterator
from contextlib import ExitStack
from functools import lru_cache, partial
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from bert_jax.data.preparation.duplicates import repeated_documents
from bert_jax.data.preparation.manifest import SIDES, Manifest, naming_part, part_name
from bert_jax.data.preparation.reading import Document, HeldOut, PartReader
from bert_jax.data.preparation.report import count_scripts
from bert_jax.data.preparation.sealed import Content, make_once, read_content
from bert_jax.data.preparation.survey import survey_folder
from bert_jax.data.pretraining.token_store import TokenStoreWriter, encode_documents
from bert_jax.data.readers.duplicates import DUPLICATES
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.vocabulary import text_batches


def prepare_part(store: Path, number: int) -> Content:
    """Writes the tokens of a part, unless they are there and whole; may be called by any process, in any order.

    Args:
        store: folder with the manifest, the tokenizer and, if duplicates are dropped, these.

    Returns:
        `number`; `documents`, how many were read; `train` and `held_out`, what was written; `sources`, the reports;
        `files`, the SHA-256 of each file.

    Raises:
        ValueError: an input that has changed, has vanished or cannot be read, or a full disk; with part and file.
    """
    with naming_part(number):
        manifest = Manifest.load(store)
        tokenizer = _load_tokenizer(store / "tokenizer", (store / "tokenizer" / "tokenizer.json").stat().st_mtime_ns)
        if manifest.tokenizer not in (None, tokenizer.fingerprint):
            raise ValueError(
                f"{store / 'tokenizer'} is not the tokenizer of the manifest; name it again with `tokenizer`"
            )
        surveyed = _surveyed(store, number) if manifest.has_survey else None
        repeated = repeated_documents(store, number) if manifest.settings.drop_duplicates else []
        made_from = [manifest.digest, number, tokenizer.fingerprint, surveyed, list(repeated)]
        work = _PartWriter(PartReader(manifest, number), tokenizer, set(repeated), surveyed)
        return make_once(store / part_name(number), made_from, work.write)


@lru_cache(maxsize=1)
def _load_tokenizer(folder: Path, _changed_at: int) -> Tokenizer:
    return Tokenizer.load(folder)


def _surveyed(store: Path, number: int) -> int:
    """Returns the number of documents that the survey has found."""
    survey = read_content(survey_folder(store, number))
    if survey is None:
        raise ValueError(f"{survey_folder(store, number)} is missing or damaged: it has to be surveyed again")
    return survey["documents"]


class _PartWriter:
    def __init__(self, reader: PartReader, tokenizer: Tokenizer, repeated: set[int], surveyed: int | None) -> None:
        self._reader = reader
        self._tokenizer = tokenizer
        self._repeated = repeated
        self._surveyed = surveyed
        self._is_held_out = HeldOut.of(reader.manifest)

    def write(self, folder: Path) -> Content:
        """Writes both sides."""
        return self._reader.write(partial(self._write, folder))

    def _write(self, folder: Path) -> Content:
        self._documents = 0
        with ExitStack() as stack:
            writers = []
            for side in SIDES:
                (folder / side).mkdir(exist_ok=True)
                writers.append(stack.enter_context(TokenStoreWriter(folder / side, self._tokenizer)))
            for source, documents in groupby(self._kept(), attrgetter("source")):
                for texts in text_batches(document.text for document in documents):
                    self._encode(source, texts, writers)
        if self._surveyed not in (None, self._documents):
            raise ValueError(
                f"{self._documents:,} documents, but the survey found {self._surveyed:,}: an input has changed"
            )
        counts = {side: writer.counts for side, writer in zip(SIDES, writers, strict=True)}
        sources = {report.source: report.as_dict() for report in self._reader.reports.values()}
        return {"number": self._reader.number, "documents": self._documents, **counts, "sources": sources}

    def _kept(self) -> Iterator[Document]:
        """Yields the documents, without duplicates."""
        for document in self._reader.read():
            number = self._documents
            self._documents += 1
            if number in self._repeated:
                self._reader.report(document.source).read.skip(DUPLICATES, document.where)
            else:
                yield document

    def _encode(self, source: int, texts: list[str], writers: list[TokenStoreWriter]) -> None:
        report = self._reader.report(source)
        report.bytes += len("".join(texts).encode())
        report.letters.update(count_scripts(texts))
        sides: tuple[list[str], list[str]] = ([], [])
        for text in texts:
            sides[self._is_held_out(text)].append(text)
        for side, writer in zip(sides, writers, strict=True):
            encoded = encode_documents(side, self._tokenizer, self._reader.manifest.settings.language)
            writer.append(encoded)
            report.tokens += len(encoded.ids)
            report.unknown_tokens += encoded.unknown_tokens
