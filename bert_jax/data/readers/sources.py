"""Finds sources by name, files and datasets on the Hugging Face hub, and streams the documents in them.

Error messages are one line, with the file and its line number.
"""

import codecs
import glob
import re
from collections.abc import Generator, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import datasets
import datasets.config
from datasets.exceptions import DatasetsError
from huggingface_hub.errors import HfHubHTTPError

from bert_jax.data.readers.files import format_of, open_text
from bert_jax.data.readers.hub import request_file
from bert_jax.data.readers.tables import LONGEST_FIELD, TABLES, Origin, read_rows, text_of
from bert_jax.messages import first_line

LONGEST_DOCUMENT = LONGEST_FIELD  # characters; a longer one is a corpus without blank lines
_HUB_NAME = re.compile(r"[\w-][\w.-]*(/[\w.-]+)?(:[\w.-]+)?")
_FILE_SUFFIX = re.compile(r"\.(txt|text|csv|tsv|jsonl?|ndjson|parquet|gz|zip|xz|bz2|zst|lz4)$")


def find_origins(sources: Sequence[str], split: str) -> list[Origin]:
    """Returns the files, each once, and the datasets that `sources` name."""
    origins: dict[str, Origin] = {}
    for source in sources:
        files = find_files(source)
        origins.update({str(path): path for path in files} or {source: _from_hub(source, split)})
    if not origins:
        raise ValueError("no corpus: name a file, a pattern of files, or a dataset on the hub")
    return list(origins.values())


def find_files(source: str) -> list[Path]:
    """Returns the files that a source names; none if it is the name of a dataset on the hub, which is not looked up.

    Raises:
        OSError: a folder, a pattern that matches no file, or no such file.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        raise IsADirectoryError(f"{source} is a folder; name its files, as in {source}/*.txt")
    if path.is_file():
        return [path]
    if glob.has_magic(source):
        found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True)) if Path(name).is_file()]
        if not found:
            raise FileNotFoundError(f"no file matches {source}")
        return found
    if _HUB_NAME.fullmatch(source) and not _FILE_SUFFIX.search(source):
        return []
    raise FileNotFoundError(f"no such file: {source}")


def _from_hub(source: str, split: str) -> datasets.Dataset:
    name, _, config = source.partition(":")
    failure = request_file(name, "README.md", repo_type="dataset")
    was_offline = datasets.config.HF_HUB_OFFLINE
    try:
        if failure is not None and not isinstance(failure, HfHubHTTPError):
            datasets.config.HF_HUB_OFFLINE = True  # reads the cache at once, without retries
        return datasets.load_dataset(name, config or None, split=split)
    except (OSError, ValueError, DatasetsError) as error:
        # The hub's answer about README.md is no reason: a dataset may have none.
        reason = first_line(error if isinstance(failure, HfHubHTTPError | None) else failure)
        raise OSError(f"no such file: {source}, and no such dataset on the hub: {reason}") from None
    finally:
        datasets.config.HF_HUB_OFFLINE = was_offline


def read_documents(origin: Origin, text_column: str, encoding: str) -> Generator[str, None, None]:
    """Yields the texts of one file or dataset, without empty ones."""
    if isinstance(origin, datasets.Dataset) or format_of(origin) in TABLES:
        rows = read_rows(origin, [text_column], encoding=encoding)
        texts = (text_of(row, text_column, where) for where, row in rows)
    else:
        texts = _read_text(origin, encoding)
    for text in texts:
        if text and not text.isspace():
            yield text


def _read_text(path: Path, encoding: str) -> Iterator[str]:
    with open_text(path, encoding) as file:
        number = 1
        for blank, group in groupby(file, key=str.isspace):
            lines = []
            size = 0
            first = number
            for line in group:
                number += 1
                if not blank:
                    lines.append(line)
                    size += len(line)
                if size > LONGEST_DOCUMENT:
                    raise ValueError(
                        f"{path}:{first}: a document of more than {LONGEST_DOCUMENT} characters; "
                        "blank lines separate documents"
                    )
            yield "".join(lines).rstrip("\n")


def codec(encoding: str) -> str:
    """Returns the canonical name of an encoding; for UTF-8 the variant that skips a byte order mark."""
    try:
        name = codecs.lookup(encoding).name
    except LookupError:
        raise ValueError(f"no such encoding: {encoding}") from None
    return "utf-8-sig" if name == "utf-8" else name


class Texts:
    """Iterates over the column `text` of a dataset, any number of times, with a few documents in memory.

    Nulls are empty texts.
    """

    def __init__(self, documents: datasets.Dataset) -> None:
        self._documents: Any = documents.select_columns("text").with_format("arrow")

    def __len__(self) -> int:
        return len(self._documents)

    def __iter__(self) -> Iterator[str]:
        for table in self._documents.iter(batch_size=64):
            for text in table["text"].to_pylist():
                yield text or ""
