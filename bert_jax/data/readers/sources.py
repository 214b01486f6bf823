"""Finds sources by name: files, URLs, datasets on the Hugging Face hub, practice data."""

import codecs
import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import datasets
import datasets.config
import pyarrow as pa
from datasets.exceptions import DatasetsError
from huggingface_hub.errors import HfHubHTTPError

from bert_jax.data.practice.sources import PREFIX, practice_dataset
from bert_jax.data.readers.files import File
from bert_jax.data.readers.hub import may_be_dataset, request_file
from bert_jax.data.readers.remote import find_remote, is_url
from bert_jax.data.readers.tables import Origin
from bert_jax.messages import first_line


def find_origins(sources: Sequence[str], split: str) -> list[Origin]:
    """Returns the files, each once, and the datasets that `sources` name; `split` is one of the datasets'.

    A dataset is a folder of `save_to_disk`, practice data (`practice:id`) or one on the hub.
    """
    origins: dict[str, Origin] = {}
    for source in sources:
        files = find_files(source)
        if files:
            origins.update({str(path): path for path in files})
        else:
            origins[source] = _open_dataset(source, split)
    if not origins:
        raise ValueError("no corpus: name a file, a pattern of files, or a dataset on the hub")
    return list(origins.values())


def find_files(source: str) -> Sequence[File]:
    """Returns the files that a source names; none if it is a folder of `save_to_disk` or the name of a dataset.

    The hub is not asked about the name. The server of a URL is asked about its files.

    Raises:
        OSError: a folder, a pattern that matches no file, no such file, or a server that does not give it.
        ValueError, ImportError: a URL that cannot be read here.
    """
    if is_url(source):
        found = find_remote(source)
        if not isinstance(found, Path):
            return found
        source = str(found)
    path = Path(source).expanduser()
    if path.is_dir():
        if _is_saved(path):
            return []
        raise IsADirectoryError(f"{source} is a folder; name its files, as in {source}/*.txt")
    if path.is_file():
        return [path]
    if glob.has_magic(source):
        found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True)) if Path(name).is_file()]
        if not found:
            raise FileNotFoundError(f"no file matches {source}")
        return found
    if may_be_dataset(source):
        return []
    raise FileNotFoundError(f"no such file: {source}")


def _open_dataset(source: str, split: str) -> datasets.Dataset:
    folder = Path(source).expanduser()
    if folder.is_dir():
        return _from_folder(folder, split)
    return practice_dataset(source, split) if source.startswith(PREFIX) else _from_hub(source, split)


def _is_saved(path: Path) -> bool:
    """Returns whether `save_to_disk` of `datasets` wrote a folder."""
    one = (path / "state.json").is_file() and (path / "dataset_info.json").is_file()
    return one or (path / "dataset_dict.json").is_file()


def _from_folder(path: Path, split: str) -> datasets.Dataset:
    """Opens a folder that `save_to_disk` of `datasets` wrote: one dataset, or one for each split."""
    try:
        found: Any = datasets.load_from_disk(path)
    except (OSError, ValueError, KeyError, TypeError, pa.ArrowException, DatasetsError) as error:
        raise ValueError(f"{path}: not a folder of `save_to_disk` ({first_line(error)})") from None
    is_dict = isinstance(found, datasets.DatasetDict)
    if is_dict:
        if split not in found:
            raise ValueError(f"{path} has no split {split!r}; its splits are {', '.join(map(str, found))}")
        found = found[split]
    found.info.dataset_name = f"{path}[{split}]" if is_dict and found.split is None else str(path)
    return found


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
