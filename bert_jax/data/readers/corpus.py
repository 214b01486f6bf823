"""A corpus: documents as one memory-mapped dataset, larger than memory if need be.

Whatever it is read from, a corpus is a `datasets.Dataset` with the one column `text`, a document a row. It is read as
a stream and kept as Arrow. Its fingerprint is a hash of its texts: the same corpus has the same one on another machine
and under another name.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import datasets
import numpy as np
import pyarrow as pa
from datasets.table import MemoryMappedTable
from tqdm import tqdm

from bert_jax.data.readers.cache import new_folder
from bert_jax.data.readers.sources import Texts, codec, find_origins, read_documents
from bert_jax.text.vocabulary import text_batches

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

FORMAT = 1  # part of the fingerprint: to be raised when the same files are to give other documents


def read_corpus(
    sources: str | Sequence[str],
    *,
    text_column: str = "text",
    encoding: str = "utf-8",
    split: str = "train",
    cache_dir: str | os.PathLike[str],
) -> datasets.Dataset:
    """Reads documents, or finds them in `cache_dir` where they were read before.

    Args:
        sources: files, patterns of files ("wiki/**/*.txt"), datasets on the hub ("org/name", "name:config"), or all of
            them. The name's end tells the kind: .csv; .tsv (without quoting); .jsonl, .ndjson or .json, an object a
            line; .parquet; anything else is text, in which blank lines separate documents.
        text_column: where the text is, for the kinds that have columns. Empty texts are left out.
        encoding: of the files; a byte order mark is no part of the text.
        split: of the datasets on the hub.

    Raises:
        OSError, ValueError: with a line that says what was wanted, what came, and where.
    """
    sources = [sources] if isinstance(sources, str) else sources
    origins, encoding = find_origins(sources, split), codec(encoding)

    def documents() -> Iterator[str]:
        found = False
        for origin in origins:
            for text in read_documents(origin, text_column, encoding):
                found = True
                yield text
        if not found:
            raise ValueError(f"no document in {', '.join(sources)}")

    folder = Path(cache_dir) / corpus_fingerprint(origins, text_column, encoding)
    if not folder.is_dir():
        for origin in origins:
            with closing(read_documents(origin, text_column, encoding)) as texts:
                next(texts, None)
    return keep_documents(documents(), folder)


def keep_documents(texts: Iterable[str], folder: Path) -> datasets.Dataset:
    """Maps the documents kept in a folder; where there is none, writes it from `texts`, which are else not touched."""
    if not folder.is_dir():
        with new_folder(folder) as unfinished:
            texts = tqdm(texts, "reading", unit=" documents", disable=None)
            digest = _write(unfinished / "documents.arrow", texts)
            (unfinished / "fingerprint").write_text(digest)
    try:
        table = MemoryMappedTable.from_file(str(folder / "documents.arrow"))
        return datasets.Dataset(table, fingerprint=(folder / "fingerprint").read_text(encoding="utf-8"))
    except (pa.ArrowException, ValueError, OSError) as error:
        raise ValueError(f"{folder}: not a corpus that was read here ({error!r:.200}); delete it") from None


def split_documents(
    documents: datasets.Dataset, held_out: int | float, seed: int
) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Splits documents in two by a hash of their texts, so that copies of one text fall on the same side.

    Args:
        held_out: how many, or, as a float, which share; copies may make it a few more.
        seed: another one holds out others.

    Returns:
        The documents to train on and those held out, each in the order they were in.

    Raises:
        ValueError: fewer than two documents on a side.
    """
    if held_out <= 0 or (isinstance(held_out, float) and held_out >= 1):
        raise ValueError(f"held_out must be a number of documents or a share of them, found {held_out}")
    wanted = max(1, round(held_out * len(documents))) if isinstance(held_out, float) else held_out
    salt = seed.to_bytes(8, "little", signed=True)
    hashes = np.zeros(len(documents), np.uint64)
    for row, text in enumerate(Texts(documents)):
        digest = hashlib.blake2b(text.encode(), digest_size=8, salt=salt).digest()
        hashes[row] = int.from_bytes(digest, "little")
    held = hashes <= np.sort(hashes)[min(wanted, len(hashes)) - 1] if len(hashes) else hashes > 0
    sides = (np.flatnonzero(~held), np.flatnonzero(held))
    for name, rows in zip(("to train on", "held out"), sides, strict=True):
        if len(rows) < 2:
            raise ValueError(f"next-sentence prediction needs at least two documents, found {len(rows)} {name}")
    made_from = [documents._fingerprint, wanted, seed]
    train, test = (
        documents.select(rows, keep_in_memory=True, new_fingerprint=_hash_of([*made_from, side]))
        for side, rows in enumerate(sides)
    )
    return train, test


def _hash_of(content: list[Any]) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def corpus_fingerprint(origins: Sequence[Path | datasets.Dataset], text_column: str, encoding: str) -> str:
    """Names what `read_corpus` would read, at the price of a look at each file's entry.

    It is made from paths, sizes and times of change, not from the content, so it takes no time, and it changes when a
    file is written anew with the same content. What the texts are is told by the fingerprint of the dataset read.
    """
    described = []
    for origin in origins:
        if isinstance(origin, Path):
            entry = origin.stat()
            described.append([str(origin.absolute()), entry.st_size, entry.st_mtime_ns])
        else:
            described.append(origin._fingerprint)
    return _hash_of([FORMAT, described, text_column, encoding])


def _write(path: Path, texts: Iterable[str]) -> str:
    """Writes documents as an Arrow stream, and returns their hash."""
    digest, schema = hashlib.sha256(), pa.schema({"text": pa.large_string()})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, schema) as writer:
        for batch in text_batches(texts):
            # Half of a surrogate pair, which JSON can name, is no text.
            encoded = [text.encode(errors="replace") for text in batch]
            for text in encoded:
                digest.update(len(text).to_bytes(8, "little") + text)
            writer.write_batch(pa.record_batch([pa.array(encoded, pa.large_string())], schema))
    return digest.hexdigest()
