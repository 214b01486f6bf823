"""A corpus as token ids on disk: documents -> sentences -> tokens, in flat arrays.

Splitting and tokenizing a corpus takes minutes to hours and is the same for every pass, so it is done once, on all
cores, and memory-mapped afterwards. For two documents of two and one sentences with 3, 2 and 4 tokens:
    ids.npy               [i i i i i i i i i]   the ids of all tokens
    sentence_offsets.npy  [0 3 5 9]             tokens before each sentence
    document_offsets.npy  [0 2 3]               sentences before each document
    counts.json           {"unknown_tokens": 1, "split_sentences": 0}
A corpus may be larger than memory: processes that read it share it, and the process that writes it holds a few
megabytes at a time. The ids may be in several files, those of the parts that `data/preparation/` has prepared:
    counts.json           {..., "fingerprint": "...", "ids": [["../part-00000/train/ids.npy", 9], ...]}
"""

import hashlib
import json
import os
import tempfile
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, Self

import datasets
import numpy as np
from tqdm import tqdm

from bert_jax.data.pretraining.array_files import ArrayWriter, OffsetsWriter, map_array
from bert_jax.data.readers.cache import new_folder
from bert_jax.data.readers.sources import Texts
from bert_jax.process_start import num_cores
from bert_jax.text.sentences import split_sentences
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.vocabulary import text_batches

FORMAT = 3  # part of the fingerprint; increase it when the same corpus gives other sentences
MIN_BYTES_FOR_PROCESSES = 1 << 25  # of text; one process tokenizes less before others have started


@dataclass(frozen=True)
class IdsFile:
    """A file of token ids that is mapped when it is read, the number of its tokens, and its size in bytes."""

    path: Path
    length: int
    size: int

    def __len__(self) -> int:
        return self.length

    def require(self) -> None:
        """Raises ValueError unless the file is there and has its size."""
        try:
            size = self.path.stat().st_size
        except OSError as error:
            raise ValueError(f"{self.path}: {error.strerror}") from None
        if size != self.size:
            raise ValueError(f"{self.path}: {self.size:,} bytes expected, found {size:,}")

    def map(self) -> np.ndarray:
        """Maps the file; raises ValueError if it is missing or damaged."""
        try:
            ids = map_array(self.path)
        except OSError as error:
            raise ValueError(f"{self.path}: cannot be read ({error.strerror})") from None
        if len(ids) != self.length:
            raise ValueError(f"{self.path}: {self.length:,} tokens expected, found {len(ids):,}")
        return ids


class TokenStore:
    """Token ids of a corpus, split into sentences and documents.

    Sentence `s` holds the tokens `sentence_offsets[s]:sentence_offsets[s + 1]`, document `d` the sentences
    `document_offsets[d]:document_offsets[d + 1]`. No sentence and no document is empty.

    Attributes:
        sentence_offsets: int64 [sentences + 1], tokens before each sentence.
        document_offsets: int64 [documents + 1], sentences before each document.
        fingerprint: identifies the content; equal for equal documents, tokenizer and language.
        unknown_tokens: number of [UNK] among the tokens.
        split_sentences: number of sentences that were split, because they were longer than a row.
    """

    def __init__(
        self,
        chunks: Sequence[np.ndarray | IdsFile],
        sentence_offsets: np.ndarray,
        document_offsets: np.ndarray,
        fingerprint: str,
        folders: tuple[Path, Path] | None = None,
        unknown_tokens: int = 0,
        split_sentences: int = 0,
    ) -> None:
        """Wraps arrays; `chunks` hold the ids of consecutive tokens, and no document is in two chunks."""
        self._chunks = list(chunks)
        self._starts = np.cumsum([0, *map(len, chunks)])[:-1].tolist()
        self._folders = folders  # of the ids and of the offsets
        self.sentence_offsets = sentence_offsets
        self.document_offsets = document_offsets
        self.fingerprint = fingerprint
        self.unknown_tokens = unknown_tokens
        self.split_sentences = split_sentences

    @classmethod
    def open(cls, folder: Path, offsets: Path | None = None) -> "TokenStore":
        """Memory-maps a folder that `tokenize_corpus` has written; the offsets may be in another folder.

        Raises:
            ValueError: the folder holds something else, or its files do not match.
        """
        offsets = offsets or folder
        try:
            chunks = _chunks_of(folder)
            content = json.loads((offsets / "counts.json").read_text(encoding="utf-8"))
            counts = [int(content[name]) for name in ("unknown_tokens", "split_sentences")]
            fingerprint = str(content.get("fingerprint", offsets.name))
            sentences, documents = (map_array(offsets / f"{name}_offsets.npy") for name in ("sentence", "document"))
        except (KeyError, TypeError, ValueError, EOFError, OSError) as error:
            raise ValueError(f"{folder}: not a tokenized corpus ({error!r:.200}); delete it") from None
        for array, end in ((documents, len(sentences) - 1), (sentences, sum(map(len, chunks)))):
            whole = array.ndim == 1 and array.dtype == np.int64 and len(array) > 1
            if not (whole and array[0] == 0 and array[-1] == end):
                raise ValueError(f"{folder}: the files of this tokenized corpus do not match; delete it")
        return cls(chunks, sentences, documents, fingerprint, (folder, offsets), *counts)

    def with_offsets(self, offsets: Path) -> "TokenStore":
        """Returns the same tokens with the sentences of another folder, which `write_offsets` has filled."""
        assert self._folders is not None
        return TokenStore.open(self._folders[0], offsets)

    def require_files(self) -> None:
        """Raises ValueError unless the files of ids of all parts are there, with the right size; none is read."""
        for chunk in self._chunks:
            if isinstance(chunk, IdsFile):
                chunk.require()

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process maps the files again: the corpus itself is not sent.
        if self._folders is not None:
            return TokenStore.open, self._folders
        return TokenStore, (self._chunks, self.sentence_offsets, self.document_offsets, self.fingerprint)

    def span(self, start: int, length: int) -> np.ndarray:
        """Returns the ids [length] of the tokens from `start` on, within one document, as a read-only view."""
        number = bisect_right(self._starts, start) - 1
        chunk = self._chunks[number]
        if isinstance(chunk, IdsFile):
            chunk = self._chunks[number] = chunk.map()
        first = start - self._starts[number]
        return chunk[first : first + length]

    @property
    def num_documents(self) -> int:
        return len(self.document_offsets) - 1

    @property
    def num_sentences(self) -> int:
        return len(self.sentence_offsets) - 1

    @property
    def num_tokens(self) -> int:
        return int(self.sentence_offsets[-1])


def _chunks_of(folder: Path) -> list[np.ndarray | IdsFile]:
    """Returns the ids of a folder: its own file, or the files of parts that counts.json names."""
    if (folder / "ids.npy").exists():
        return [map_array(folder / "ids.npy")]
    content = json.loads((folder / "counts.json").read_text(encoding="utf-8"))
    return [IdsFile(folder / name, int(length), int(size)) for name, length, size in content["ids"]]


def tokenize_corpus(
    documents: datasets.Dataset,
    tokenizer: Tokenizer,
    *,
    cache_dir: str | os.PathLike[str],
    language: str = "en",
    num_proc: int | None = None,
) -> TokenStore:
    """Splits documents into sentences and encodes them, or opens the result in `cache_dir` if it exists.

    Args:
        documents: one document per row, in the column `text`.
        language: ISO 639 code; selects the rules for splitting sentences.
        num_proc: number of processes; None is one per core, or this one for a small corpus. They are spawned (a fork
            would inherit locks from JAX's threads), so a script with several needs the usual
            `if __name__ == "__main__":`. The result does not depend on their number.

    Raises:
        ValueError: no column `text`, or no token in the whole corpus.
    """
    if "text" not in documents.column_names:
        raise ValueError(f"documents need a column 'text', got {', '.join(documents.column_names)}")
    if num_proc is not None and num_proc < 1:
        raise ValueError(f"`num_proc` must be at least 1, got {num_proc}")
    made_from = [FORMAT, documents._fingerprint, tokenizer.fingerprint, language]
    folder = Path(cache_dir) / hashlib.sha256(json.dumps(made_from).encode()).hexdigest()
    if not folder.is_dir():
        with new_folder(folder) as unfinished:
            _write(
                unfinished,
                _encode_all(documents, tokenizer, language, num_proc or _process_count(documents)),
                tokenizer,
            )
    return TokenStore.open(folder)


class EncodedDocuments(NamedTuple):
    """Documents of a batch: token ids, tokens per sentence, sentences per document, and the number of [UNK]."""

    ids: np.ndarray
    sentences: np.ndarray
    documents: np.ndarray
    unknown_tokens: int


def encode_documents(texts: list[str], tokenizer: Tokenizer, language: str) -> EncodedDocuments:
    """Encodes documents without empty sentences and documents."""
    split = [split_sentences(text, language=language) for text in texts]
    ids, lengths = tokenizer.encode_flat(sentence for sentences in split for sentence in sentences)
    document = np.repeat(np.arange(len(split)), [len(sentences) for sentences in split])
    sentences = np.bincount(document[lengths > 0], minlength=len(split))
    unknown = int(np.count_nonzero(ids == tokenizer.unk_id))
    return EncodedDocuments(ids.astype(_id_type(tokenizer)), lengths[lengths > 0], sentences[sentences > 0], unknown)


def _id_type(tokenizer: Tokenizer) -> type[np.generic]:
    return np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.int32


def _encode_all(
    documents: datasets.Dataset, tokenizer: Tokenizer, language: str, num_proc: int
) -> Iterator[EncodedDocuments]:
    """Yields the encoded documents batch by batch, in the order of the corpus."""
    encode = partial(encode_documents, tokenizer=tokenizer, language=language)
    progress = tqdm(Texts(documents), "tokenizing", unit=" documents", disable=None)
    batches = text_batches(progress)
    if num_proc == 1:
        yield from map(encode, batches)
        return
    # Workers get the name of a file. If one died while it is sent a vocabulary, which is larger than a pipe (64 KiB),
    # this process would wait for ever, because it holds the pipe open itself.
    with tempfile.TemporaryDirectory(prefix="bert_jax_") as private:
        file = Path(private) / "tokenizer.json"
        file.write_text(tokenizer.backend.to_str(), encoding="utf-8")
        pool = ProcessPoolExecutor(num_proc, get_context("spawn"), _start_worker, (file, tokenizer.roles, language))
        yield from _encode_in(pool, batches, num_proc)


def _encode_in(pool: ProcessPoolExecutor, batches: Iterable[list[str]], num_proc: int) -> Iterator[EncodedDocuments]:
    """Yields the encoded batches in their order, and ends the processes."""
    waiting = deque()
    with pool:
        try:
            for batch in batches:
                waiting.append(pool.submit(_work, batch))
                # Enough batches for every process to stay busy, and few enough to fit in memory.
                if len(waiting) > 2 * num_proc:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        except BrokenProcessPool:
            raise RuntimeError(
                "a tokenizing process has died: memory ran out, or the script has no "
                '`if __name__ == "__main__":` (`num_proc=1` starts no process)'
            ) from None


_encode_here: list[partial[EncodedDocuments]] = []  # in a worker: the function, sent once and not with every batch


def _start_worker(tokenizer: Path, roles: dict[str, str], language: str) -> None:
    os.environ["TOKENIZERS_PARALLELISM"] = "false"  # every core already has a process
    loaded = Tokenizer.of(tokenizer.read_bytes(), roles)
    _encode_here[:] = [partial(encode_documents, tokenizer=loaded, language=language)]


def _work(texts: list[str]) -> EncodedDocuments:
    return _encode_here[0](texts)


def _process_count(documents: datasets.Dataset) -> int:
    """Returns one process per core, or 1 for a small corpus."""
    table = documents.data
    size = table.nbytes / max(table.num_rows, 1) * len(documents)
    if size < MIN_BYTES_FOR_PROCESSES:
        return 1
    return num_cores()


class TokenStoreWriter:
    """Writes a folder that `TokenStore.open` reads, in batches; use it in a `with` statement."""

    def __init__(self, folder: Path, tokenizer: Tokenizer) -> None:
        self._folder = folder
        self._ids = ArrayWriter(folder / "ids.npy", _id_type(tokenizer))
        self._sentences = OffsetsWriter(folder / "sentence_offsets.npy")
        self._documents = OffsetsWriter(folder / "document_offsets.npy")
        self._unknown_tokens = 0

    def append(self, batch: EncodedDocuments) -> None:
        self._ids.append(batch.ids)
        self._sentences.append(batch.sentences)
        self._documents.append(batch.documents)
        self._unknown_tokens += batch.unknown_tokens

    @property
    def counts(self) -> dict[str, int]:
        """What was written: documents, sentences, tokens, and the number of [UNK] among these."""
        return {
            "documents": self._documents.length - 1,
            "sentences": self._sentences.length - 1,
            "tokens": self._ids.length,
            "unknown_tokens": self._unknown_tokens,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with self._ids, self._sentences, self._documents:
            pass
        _write_counts(self._folder, {"unknown_tokens": self._unknown_tokens, "split_sentences": 0})


def _write(folder: Path, batches: Iterable[EncodedDocuments], tokenizer: Tokenizer) -> None:
    with TokenStoreWriter(folder, tokenizer) as writer:
        for batch in batches:
            writer.append(batch)
        if not writer.counts["tokens"]:
            raise ValueError("the corpus has no token")


def write_offsets(
    folder: Path, sentences: Iterable[np.ndarray], documents: Iterable[np.ndarray], counts: dict[str, Any]
) -> None:
    """Writes offsets from blocks of lengths, tokens of sentences and sentences of documents, for `with_offsets`."""
    for name, blocks in (("sentence", sentences), ("document", documents)):
        with OffsetsWriter(folder / f"{name}_offsets.npy") as offsets:
            for lengths in blocks:
                offsets.append(lengths)
    _write_counts(folder, counts)


def _write_counts(folder: Path, counts: dict[str, Any]) -> None:
    (folder / "counts.json").write_text(json.dumps(counts), encoding="utf-8")
