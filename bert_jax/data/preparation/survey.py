"""Stage 1: the words and the hashes of a part, from which the vocabulary and the duplicates of all parts are found.

It is left out if a tokenizer is given and duplicates are kept.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
from pyarrow import feather

from bert_jax.data.preparation.manifest import Manifest, naming_part, part_name
from bert_jax.data.preparation.reading import HeldOut, PartReader
from bert_jax.data.preparation.sealed import Content, make_once
from bert_jax.data.pretraining.array_files import ArrayWriter
from bert_jax.data.readers.duplicates import HASH_BYTES, document_hash
from bert_jax.text.word_counts import count_words

WORDS = "words.arrow"
HASHES = "hashes.npy"  # uint64, two for each document
HASHES_AT_ONCE = 1 << 10


def survey_part(store: Path, number: int) -> Content:
    """Counts the words of a part and hashes its documents, unless that is done; may be called by any process.

    Words are those of the documents to train on, duplicates included.

    Returns:
        `number`, `documents`, and `files`, the SHA-256 of each file.

    Raises:
        ValueError: as `prepare_part`.
    """
    with naming_part(number):
        manifest = Manifest.load(store)
        return make_once(survey_folder(store, number), [manifest.digest, number], _Survey(manifest, number).write)


def survey_folder(store: Path, number: int) -> Path:
    """Returns where the survey of a part is."""
    return store / "words" / part_name(number)


class _Survey:
    def __init__(self, manifest: Manifest, number: int) -> None:
        self._manifest = manifest
        self._number = number

    def write(self, folder: Path) -> Content:
        reader = PartReader(self._manifest, self._number)
        return {"number": self._number, "documents": reader.write(partial(self._write, folder, reader))}

    def _write(self, folder: Path, reader: PartReader) -> int:
        """Writes the files of the survey; returns the number of documents."""
        self._documents = 0
        if self._manifest.settings.drop_duplicates:
            with ArrayWriter(folder / HASHES, np.uint64) as hashes:
                self._count(folder, self._hashed(reader, hashes))
        else:
            self._count(folder, self._texts(reader))
        return self._documents

    def _count(self, folder: Path, texts: Iterator[str]) -> None:
        if self._manifest.tokenizer is None:
            is_held_out = HeldOut.of(self._manifest)
            split_chinese = self._manifest.settings.tokenizer_kind == "wordpiece"
            words = count_words((text for text in texts if not is_held_out(text)), split_chinese=split_chinese)
            feather.write_feather(words, str(folder / WORDS), compression="uncompressed")  # to be mapped
        else:
            for _ in texts:
                pass

    def _texts(self, reader: PartReader) -> Iterator[str]:
        for document in reader.read():
            self._documents += 1
            yield document.text

    def _hashed(self, reader: PartReader, hashes: ArrayWriter) -> Iterator[str]:
        pending = bytearray()
        for text in self._texts(reader):
            pending += document_hash(text)
            if len(pending) >= HASHES_AT_ONCE * HASH_BYTES:
                hashes.append(np.frombuffer(bytes(pending), np.uint64))
                pending.clear()
            yield text
        hashes.append(np.frombuffer(bytes(pending), np.uint64))
