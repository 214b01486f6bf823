"""A corpus as token ids on disk: documents -> sentences -> tokens, in flat arrays.

Splitting and tokenizing a corpus takes minutes to hours and is the same for every pass, so it is done once, on all
cores, and memory-mapped afterwards. For two documents of two and one sentences with 3, 2 and 4 tokens:
    ids.arrow             [i i i i i i i i i]   the ids of all tokens
    sentence_offsets.npy  [0 3 5 9]             tokens before each sentence
    document_offsets.npy  [0 2 3]               sentences before each document
    counts.json           {"unknown_tokens": 1, "split_sentences": 0}
A corpus may be larger than memory: processes that read it share it, and the process that writes it holds a few
megabytes at a time.
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
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import datasets
import numpy as np
import pyarrow as pa
from tqdm import tqdm

from bert_jax.data.readers.cache import new_folder
from bert_jax.data.readers.sources import Texts
from bert_jax.text.sentences import split_sentences
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.vocabulary import text_batches

FORMAT = 2  # part of the fingerprint; increase it when the same corpus gives other sentences
MIN_BYTES_FOR_PROCESSES = 1 << 25  # of text; one process tokenizes less before others have started


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
        chunks: Sequence[np.ndarray],
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
            with pa.memory_map(str(folder / "ids.arrow")) as file:
                chunks = [chunk.to_numpy() for chunk in pa.ipc.open_stream(file).read_all()["ids"].chunks]
            content = json.loads((offsets / "counts.json").read_text(encoding="utf-8"))
            counts = [int(content[name]) for name in ("unknown_tokens", "split_sentences")]
            sentences, documents = (
                np.load(offsets / f"{name}_offsets.npy", mmap_mode="r", allow_pickle=False)
                for name in ("sentence", "document")
            )
        except (pa.ArrowException, KeyError, TypeError, ValueError, EOFError, OSError) as error:
            raise ValueError(f"{folder}: not a tokenized corpus ({error!r:.200}); delete it") from None
        for array, end in ((documents, len(sentences) - 1), (sentences, sum(map(len, chunks)))):
            whole = array.ndim == 1 and array.dtype == np.int64 and len(array) > 1
            if not (whole and array[0] == 0 and array[-1] == end):
                raise ValueError(f"{folder}: the files of this tokenized corpus do not match; delete it")
        return cls(chunks, sentences, documents, offsets.name, (folder, offsets), *counts)

    def with_offsets(self, offsets: Path) -> "TokenStore":
        """Returns the same tokens with the sentences of another folder, which `write_offsets` has filled."""
        assert self._folders is not None
        return TokenStore.open(self._folders[0], offsets)

    def __reduce__(self) -> tuple[Any, ...]:
        # Another process maps the files again: the corpus itself is not sent.
        if self._folders is not None:
            return TokenStore.open, self._folders
        return TokenStore, (self._chunks, self.sentence_offsets, self.document_offsets, self.fingerprint)

    def span(self, start: int, length: int) -> np.ndarray:
        """Returns the ids [length] of the tokens from `start` on, within one document, as a read-only view."""
        chunk = bisect_right(self._starts, start) - 1
        first = start - self._starts[chunk]
        return self._chunks[chunk][first : first + length]

    @property
    def num_documents(self) -> int:
        return len(self.document_offsets) - 1

    @property
    def num_sentences(self) -> int:
        return len(self.sentence_offsets) - 1

    @property
    def num_tokens(self) -> int:
        return int(self.sentence_offsets[-1])


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


def _encode_documents(texts: list[str], tokenizer: Tokenizer, language: str) -> EncodedDocuments:
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
    encode = partial(_encode_documents, tokenizer=tokenizer, language=language)
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
    _encode_here[:] = [partial(_encode_documents, tokenizer=loaded, language=language)]


def _work(texts: list[str]) -> EncodedDocuments:
    return _encode_here[0](texts)


def _process_count(documents: datasets.Dataset) -> int:
    """Returns one process per core, or 1 for a small corpus."""
    table = documents.data
    size = table.nbytes / max(table.num_rows, 1) * len(documents)
    if size < MIN_BYTES_FOR_PROCESSES:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _write(folder: Path, batches: Iterable[EncodedDocuments], tokenizer: Tokenizer) -> None:
    schema = pa.schema({"ids": pa.from_numpy_dtype(_id_type(tokenizer))})
    counts = {"unknown_tokens": 0, "split_sentences": 0}
    with (
        pa.OSFile(str(folder / "ids.arrow"), "wb") as file,
        pa.ipc.new_stream(file, schema) as ids_file,
        _OffsetsFile(folder / "sentence_offsets.npy") as sentence_offsets,
        _OffsetsFile(folder / "document_offsets.npy") as document_offsets,
    ):
        for batch in batches:
            if len(batch.ids):
                ids_file.write_batch(pa.record_batch([pa.array(batch.ids)], schema))
                sentence_offsets.append(batch.sentences)
                document_offsets.append(batch.documents)
                counts["unknown_tokens"] += batch.unknown_tokens
        if not document_offsets.last:
            raise ValueError("the corpus has no token")
    _write_counts(folder, counts)


def write_offsets(
    folder: Path, sentences: Iterable[np.ndarray], documents: Iterable[np.ndarray], counts: dict[str, int]
) -> None:
    """Writes offsets from blocks of lengths, tokens of sentences and sentences of documents, for `with_offsets`."""
    for name, blocks in (("sentence", sentences), ("document", documents)):
        with _OffsetsFile(folder / f"{name}_offsets.npy") as offsets:
            for lengths in blocks:
                offsets.append(lengths)
    _write_counts(folder, counts)


def _write_counts(folder: Path, counts: dict[str, int]) -> None:
    (folder / "counts.json").write_text(json.dumps(counts), encoding="utf-8")


class _OffsetsFile:
    """An int64 .npy file of cumulative sums, written in pieces."""

    def __init__(self, path: Path) -> None:
        self.last = 0
        self._file = path.open("wb")
        self._write_header(0)
        self._file.write(np.zeros(1, np.int64).tobytes())

    def append(self, lengths: np.ndarray) -> None:
        offsets = self.last + np.cumsum(lengths, dtype=np.int64)
        self._file.write(offsets.tobytes())
        self.last = int(offsets[-1])

    def _write_header(self, length: int) -> None:
        # NumPy pads the header, so that it can be rewritten when the length is known.
        header = {"descr": "<i8", "fortran_order": False, "shape": (length,)}
        np.lib.format.write_array_header_1_0(self._file, header)
        self._begin = self._file.tell()

    def __enter__(self) -> "_OffsetsFile":
        return self

    def __exit__(self, *error: object) -> None:
        length = (self._file.tell() - self._begin) // 8
        self._file.seek(0)
        self._write_header(length)
        self._file.close()
