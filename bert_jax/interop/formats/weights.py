"""The weight files of a folder: three formats, in order of preference, each in one file or in shards.

Opening a file never runs anything in it. Every error is one line that starts with the file's path.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bert_jax.interop.formats.flax import open_msgpack
from bert_jax.interop.formats.tensors import Tensors, open_safetensors, read_aliases
from bert_jax.interop.formats.torch import open_torch
from bert_jax.messages import first_line

READERS: dict[str, Callable[[Path], Tensors]] = {
    "model.safetensors": open_safetensors,
    "pytorch_model.bin": open_torch,
    "flax_model.msgpack": open_msgpack,
}
INDEX = ".index.json"  # model.safetensors.index.json names the shards
# Files of weights besides the one that is written, model.safetensors.
OTHER_WEIGHTS = (*list(READERS)[1:], *(name + INDEX for name in READERS))
LFS_POINTER = b"version https://git-lfs"
JSON_TYPE_NAMES = {dict: "object", list: "list"}
JSON_LIMIT = 1 << 26  # bytes


def open_weights(folder: str | Path) -> Tensors:
    """Opens the weights in a folder.

    Raises:
        FileNotFoundError: there are none, or a shard is missing.
        ValueError: a file that is damaged, of another format, or that asks for more than tensors.
    """
    folder = Path(folder)
    for name, reader in READERS.items():
        if (folder / name).is_file():
            return _with_aliases(_open_file(folder / name, reader), [folder / name])
        index = folder / (name + INDEX)
        if index.is_file():
            return _with_aliases(_open_shards(index, reader), [folder / shard for shard in shard_names(index)])
    raise FileNotFoundError(f"{folder} has no weights: expected one of {', '.join(READERS)}, or its shards")


def _open_shards(index: Path, reader: Callable[[Path], Tensors]) -> Tensors:
    """Opens the shards that an index names, which must have exactly the tensors that it lists."""
    tensors: Tensors = {}
    for name in shard_names(index):
        path = index.parent / name
        if not path.is_file():
            raise FileNotFoundError(f"{index}: its shard {name} is missing")
        shard = _open_file(path, reader)
        if duplicates := tensors.keys() & shard.keys():
            raise ValueError(f"{path}: {min(duplicates)} is also in another shard")
        tensors |= shard
    if different := tensors.keys() ^ read_json(index)["weight_map"].keys():
        raise ValueError(f"{index}: {min(different)} is in the index or in its shards, not in both")
    return tensors


def _with_aliases(tensors: Tensors, files: Iterable[Path]) -> Tensors:
    """Returns the tensors also under the names that the metadata of safetensors files gives them."""
    for file in files:
        aliases = read_aliases(file) if file.suffix == ".safetensors" else {}
        tensors |= {alias: tensors[name] for alias, name in aliases.items() if name in tensors and alias not in tensors}
    return tensors


def shard_names(index: Path) -> list[str]:
    """Returns the names of the files that an index refers to, all of them in its folder."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        raise ValueError(f"{index}: expected a weight_map from tensors to files")
    names = sorted(set(weight_map.values()))
    for name in names:
        if name != Path(name).name or "\\" in name or not name.isprintable():
            raise ValueError(f"{index}: {name!r:.200} is not the name of a file in its folder")
    return names


def _open_file(path: Path, reader: Callable[[Path], Tensors]) -> Tensors:
    """Opens a weight file; errors start with its path."""
    with path.open("rb") as file:
        beginning = file.read(len(LFS_POINTER))
    if not beginning:
        raise ValueError(f"{path}: the file is empty")
    if beginning == LFS_POINTER:
        raise ValueError(f"{path}: only a Git LFS pointer; `git lfs pull` downloads the file itself")
    with name_file_in_errors(path):
        return reader(path)


def read_json(path: str | Path, kind: type = dict, *, content: bytes | None = None) -> Any:
    """Reads a file with one JSON object, or with `kind=list` a list.

    Args:
        content: of the file, if it has been read already.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it contains something else.
    """
    path = Path(path)
    size = path.stat().st_size if content is None else len(content)
    if size > JSON_LIMIT:
        raise ValueError(f"{path}: {size} bytes, at most {JSON_LIMIT} are allowed")
    with name_file_in_errors(path, RecursionError):
        values = json.loads((path.read_bytes() if content is None else content).decode())
    if not isinstance(values, kind):
        raise ValueError(f"{path}: expected a JSON {JSON_TYPE_NAMES[kind]}, got {type(values).__name__}")
    return values


@contextmanager
def name_file_in_errors(path: str | Path, *errors: type[Exception]) -> Iterator[None]:
    """Turns a ValueError, and the given errors, into a ValueError of one line that starts with the path."""
    try:
        yield
    except (ValueError, *errors) as error:
        line = first_line(error)
        raise ValueError(line if line.startswith(str(path)) else f"{path}: {line}") from None
