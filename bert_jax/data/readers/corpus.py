"""A corpus: documents as one memory-mapped dataset, which may be larger than memory.

From any source, a corpus becomes a `datasets.Dataset` with one column `text` and one document per row. It is read as a
stream and stored as Arrow. Its fingerprint is a hash of its texts, so it does not depend on the machine or file names.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from datasets.table import MemoryMappedTable
from tqdm import tqdm

from bert_jax.data.readers.cache import new_folder
from bert_jax.data.readers.documents import DocumentUnit, read_documents
from bert_jax.data.readers.duplicates import without_duplicates
from bert_jax.data.readers.remote import RemoteFile
from bert_jax.data.readers.report import ReadReport
from bert_jax.data.readers.sources import Texts, codec, find_origins
from bert_jax.data.readers.tables import Origin
from bert_jax.text.vocabulary import text_batches

REPORT = "report.json"  # what was counted while the documents were read
FORMAT = 1  # part of the fingerprint; increase it when the same files give other documents
NEEDS = {1: "masked words need at least one document", 2: "next-sentence prediction needs at least two documents"}


def read_corpus(
    sources: str | Sequence[str],
    *,
    text_column: str = "text",
    encoding: str = "utf-8",
    split: str = "train",
    document: DocumentUnit = "paragraphs",
    drop_duplicates: bool = False,
    report: ReadReport | None = None,
    cache_dir: str | os.PathLike[str],
) -> datasets.Dataset:
    """Reads documents, or opens them in `cache_dir` if they were read before.

    Args:
        sources: files, patterns of files ("wiki/**/*.txt"), URLs or patterns of them ("s3://bucket/*.txt.gz"), datasets
            on the hub ("org/name", "name:config"), or several of these. The suffix decides the format: .csv; .tsv
            (without quoting); .jsonl, .ndjson or .json, one object per line; .parquet; anything else is text.
        text_column: the column of the text, for formats with columns. Empty texts are skipped.
        encoding: of the files; a byte order mark is skipped.
        split: of the datasets on the hub.
        document: what a document of a text file is: the paragraphs between two blank lines, or a line.
        drop_duplicates: drop documents that repeat an earlier one of any source; see `without_duplicates`.
        report: counts the documents that are found, skipped and dropped, also if they were read before.

    Raises:
        OSError, ValueError: no such source or column, or an invalid file; the message has file and line.
        ImportError: the package that reads a URL is missing.
    """
    sources = [sources] if isinstance(sources, str) else sources
    origins = find_origins(sources, split)
    encoding = codec(encoding)
    counted = ReadReport("corpus", unit="documents")

    def documents() -> Iterator[tuple[str, str]]:
        for origin in origins:
            yield from read_documents(origin, text_column, encoding, document, counted)
        if not counted.used:
            raise ValueError(f"no document in {', '.join(sources)}")

    folder = Path(cache_dir) / corpus_fingerprint(origins, text_column, encoding, document, drop_duplicates)
    if not folder.is_dir():
        for origin in origins:  # finds a missing column in the last file before the first one is read
            unused = ReadReport(str(origin))
            with closing(read_documents(origin, text_column, encoding, document, unused)) as texts:
                next(texts, None)
        for origin in origins:
            if isinstance(origin, RemoteFile) and origin.version is None:
                counted.change("remote files without ETag or date, whose changes go unnoticed", str(origin))
    found = without_duplicates(documents(), counted) if drop_duplicates else documents()
    kept = keep_documents((text for _, text in found), folder, counted)
    if report is not None:
        report.add(counted.as_dict())
    return kept


def keep_documents(texts: Iterable[str], folder: Path, report: ReadReport | None = None) -> datasets.Dataset:
    """Memory-maps the documents in a folder, which is written from `texts` if it does not exist.

    Args:
        report: what is counted while `texts` are read; it is kept in the folder, and read from there.
    """
    is_kept = folder.is_dir()
    if not is_kept:
        with new_folder(folder) as unfinished:
            texts = tqdm(texts, "reading", unit=" documents", disable=None)
            digest = _write(unfinished / "documents.arrow", texts)
            (unfinished / "fingerprint").write_text(digest)
            if report is not None:
                (unfinished / REPORT).write_text(json.dumps(report.as_dict()))
    try:
        table = MemoryMappedTable.from_file(str(folder / "documents.arrow"))
        if is_kept and report is not None:
            kept = folder / REPORT
            if kept.exists():
                report.add(json.loads(kept.read_text(encoding="utf-8")))
            else:  # an older version counted nothing
                report.rows += table.num_rows
        return datasets.Dataset(table, fingerprint=(folder / "fingerprint").read_text(encoding="utf-8"))
    except (pa.ArrowException, ValueError, OSError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{folder}: not a cached corpus ({error!r:.200}); delete it") from None


def split_documents(
    documents: datasets.Dataset, held_out: int | float, seed: int, *, fewest: int = 2
) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Splits documents in two by a hash of their texts, so that copies of one text fall on the same side.

    Args:
        held_out: number of held-out documents, or, as a float, their fraction; copies of a text may add a few.
        seed: decides which documents are held out.
        fewest: required number of documents on either side: 2 for next-sentence prediction, whose random sentences come
            from another document, and 1 without it.

    Returns:
        The training documents and the held-out documents, each in their original order.

    Raises:
        ValueError: fewer than `fewest` documents on either side.
    """
    if held_out <= 0 or (isinstance(held_out, float) and held_out >= 1):
        raise ValueError(f"`held_out` must be a number of documents or a fraction of them, got {held_out}")
    wanted = max(1, round(held_out * len(documents))) if isinstance(held_out, float) else held_out
    hashes = np.zeros(len(documents), np.uint64)
    for row, text in enumerate(Texts(documents)):
        hashes[row] = side_hash(text, seed)
    held = hashes <= np.sort(hashes)[min(wanted, len(hashes)) - 1] if len(hashes) else hashes > 0
    sides = (np.flatnonzero(~held), np.flatnonzero(held))
    for name, rows in zip(("to train on", "held out"), sides, strict=True):
        if len(rows) < fewest:
            raise ValueError(f"{NEEDS[fewest]}, got {len(rows)} {name}")
    made_from = [documents._fingerprint, wanted, seed]
    train, test = (
        documents.select(rows, keep_in_memory=True, new_fingerprint=_hash_of([*made_from, side]))
        for side, rows in enumerate(sides)
    )
    return train, test


def side_hash(text: str, seed: int) -> int:
    """Returns the hash of a text, below 2^64, that decides whether it is held out; copies of a text share it."""
    digest = hashlib.blake2b(text.encode(), digest_size=8, salt=seed.to_bytes(8, "little", signed=True)).digest()
    return int.from_bytes(digest, "little")


def _hash_of(content: list[Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def corpus_fingerprint(
    origins: Sequence[Origin],
    text_column: str,
    encoding: str,
    document: DocumentUnit = "paragraphs",
    drop_duplicates: bool = False,
) -> str:
    """Returns a fingerprint of what `read_corpus` would read, without reading it.

    It is a hash of paths, sizes and modification times (of URLs: ETags, checksums or dates), so it also changes if a
    file is rewritten with the same content. The fingerprint of the dataset that was read is a hash of the content.
    """
    described = []
    for origin in origins:
        if isinstance(origin, Path):
            entry = origin.stat()
            described.append([str(origin.absolute()), entry.st_size, entry.st_mtime_ns])
        elif isinstance(origin, RemoteFile):
            described.append([origin.url, origin.size, origin.version])
        else:
            assert isinstance(origin, datasets.Dataset)
            described.append(origin._fingerprint)
    options = ["drop_duplicates"] if drop_duplicates else []
    return _hash_of([FORMAT, described, text_column, encoding, document, *options])


def _write(path: Path, texts: Iterable[str]) -> str:
    """Writes documents as an Arrow stream and returns their hash."""
    digest = hashlib.sha256()
    schema = pa.schema({"text": pa.large_string()})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for batch in text_batches(texts):
            # JSON can hold half of a surrogate pair, which UTF-8 cannot encode.
            encoded = [text.encode(errors="replace") for text in batch]
            for text in encoded:
                digest.update(len(text).to_bytes(8, "little") + text)
            writer.write_batch(pa.record_batch([pa.array(encoded, pa.large_string())], schema))
    return digest.hexdigest()
