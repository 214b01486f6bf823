"""The weight files of a folder: three formats, in the order in which they are looked for, whole or in parts.

Whatever such a file holds, opening it runs nothing, and what is wrong with it is said in one line that names the file.
"""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bert_jax.interop.formats.flax import open_msgpack
from bert_jax.interop.formats.tensors import Tensors, one_line, open_safetensors
from bert_jax.interop.formats.torch import open_torch

READERS: dict[str, Callable[[Path], Tensors]] = {
    "model.safetensors": open_safetensors,
    "pytorch_model.bin": open_torch,
    "flax_model.msgpack": open_msgpack,
}
LFS_POINTER = b"version https://git-lfs"
INDEX = ".index.json"
JSON_TYPE_NAMES = {dict: "object", list: "list"}
JSON_LIMIT = 1 << 26  # bytes


def open_weights(folder: str | Path) -> Tensors:
    """Opens the weights in a folder.

    Raises:
        FileNotFoundError: there are none, or a part is missing.
        ValueError: a file that is not what its name says, or that holds what may not be read.
    """
    folder = Path(folder)
    for name, reader in READERS.items():
        if (folder / name).is_file():
            return opened(folder / name, reader)
        if (folder / (name + INDEX)).is_file():
            return open_parts(folder / (name + INDEX), reader)
    raise FileNotFoundError(f"{folder} holds no weights: wanted {', '.join(READERS)}, whole or in parts")


def open_parts(index: Path, reader: Callable[[Path], Tensors]) -> Tensors:
    """Opens the files that an index names, and finds in them what it says, no more and no less."""
    tensors: Tensors = {}
    for name in parts(index):
        path = index.parent / name
        if not path.is_file():
            raise FileNotFoundError(f"{index}: its part {name} is missing")
        part = opened(path, reader)
        if both := tensors.keys() & part.keys():
            raise ValueError(f"{path}: {min(both)} is in another part as well")
        tensors |= part
    if apart := tensors.keys() ^ read_json(index)["weight_map"].keys():
        raise ValueError(f"{index}: {min(apart)} is in the index or in its parts, not in both")
    return tensors


def parts(index: Path) -> list[str]:
    """Returns the names of the files that an index speaks of, all of them beside it."""
    places = read_json(index).get("weight_map")
    if not isinstance(places, dict) or not all(isinstance(name, str) for name in places.values()):
        raise ValueError(f"{index}: wanted a weight_map from tensors to files")
    names = sorted(set(places.values()))
    for name in names:
        if name != Path(name).name or "\\" in name or not name.isprintable():
            raise ValueError(f"{index}: {name!r:.200} is not the name of a file beside it")
    return names


def opened(path: Path, reader: Callable[[Path], Tensors]) -> Tensors:
    """Opens a file and puts its name in front of what is wrong with it."""
    with path.open("rb") as file:
        beginning = file.read(len(LFS_POINTER))
    if not beginning:
        raise ValueError(f"{path}: the file is empty")
    if beginning == LFS_POINTER:
        raise ValueError(f"{path}: only a pointer of Git LFS; `git lfs pull` fetches the file itself")
    with blame(path):
        return reader(path)


def read_json(path: str | Path, kind: type = dict) -> Any:
    """Reads a file that holds one JSON object, or a list.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds something else.
    """
    path = Path(path)
    if path.stat().st_size > JSON_LIMIT:
        raise ValueError(f"{path}: {path.stat().st_size} bytes, where at most {JSON_LIMIT} are expected")
    with blame(path, RecursionError):
        values = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(values, kind):
        raise ValueError(f"{path}: wanted a JSON {JSON_TYPE_NAMES[kind]}, got {type(values).__name__}")
    return values


@contextmanager
def blame(path: str | Path, *errors: type[Exception]) -> Iterator[None]:
    """Turns a ValueError, and these errors, into one whose one line begins with the path, if it does not yet."""
    try:
        yield
    except (ValueError, *errors) as error:
        line = one_line(error)
        raise ValueError(line if line.startswith(str(path)) else f"{path}: {line}") from None
