"""`pytorch_model.bin` read without PyTorch: a pickle of names and shapes, and the numbers outside it.

Since PyTorch 1.6 the file is a zip archive, with the pickle and each storage as an entry of its own; before, it was a
row of pickles followed by the storages. The numbers are mapped into memory, not read, until they are asked for.

References: PyTorch, `torch/serialization.py` (`_load` and `_legacy_load`).
"""

import math
import mmap
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax.interop.formats.pickles import LIMIT, STORAGES, Machine, Storage, View
from bert_jax.interop.formats.tensors import DTYPES, Tensor, Tensors, mapped, one_line

NUMPY_DTYPES = {name: np.dtype(name) for name in STORAGES.values() if name not in DTYPES} | DTYPES
ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def open_torch(path: Path) -> Tensors:
    """Opens what `torch.save(model.state_dict(), path)` wrote, in either of its formats."""
    data = mapped(path)
    try:
        return open_archive(path, data) if data[:4] == ZIP_MAGIC else open_legacy(data)
    except (zipfile.BadZipFile, struct.error, OSError, EOFError, LookupError, OverflowError, RuntimeError) as error:
        raise ValueError(f"not a whole PyTorch file ({one_line(error)})") from None


def open_archive(path: Path, data: mmap.mmap) -> Tensors:
    """Opens a zip archive: NAME/data.pkl, and the storage KEY in NAME/data/KEY, stored as it is."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
        if "data.pkl" not in entries:
            raise ValueError("a zip archive without data.pkl: not a PyTorch file")
        for name, entry in entries.items():
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{name} is compressed, which PyTorch does not do")
        if entries["data.pkl"].file_size > LIMIT:
            raise ValueError(f"data.pkl has {entries['data.pkl'].file_size} bytes, more than {LIMIT}")
        if "byteorder" in entries and archive.read(entries["byteorder"]) != b"little":
            raise ValueError("written on a big-endian machine, which is not supported")
        views = Machine(archive.read(entries["data.pkl"])).run()

    def locate(storage: Storage) -> np.ndarray:
        entry = entries.get(f"data/{storage.key}")
        if entry is None:
            raise ValueError(f"the storage {storage.key!r} is missing")
        # The archive's directory knows the local header, and only that one knows where the bytes after it begin.
        names, extras = struct.unpack_from("<HH", data, entry.header_offset + 26)
        start = entry.header_offset + 30 + names + extras
        return np.frombuffer(data, np.uint8)[start : start + entry.file_size]

    return tensors(views, locate)


def open_legacy(data: mmap.mmap) -> Tensors:
    """Opens the format before 1.6: five pickles, then each storage as its count, int64, and its numbers."""
    if Machine(data).run() != LEGACY_MAGIC:
        raise ValueError("neither a zip archive nor a file of an older PyTorch")
    _protocol, system = Machine(data).run(), Machine(data).run()
    if not isinstance(system, dict) or not system.get("little_endian"):
        raise ValueError("written on a big-endian machine, which is not supported")
    views, keys = Machine(data).run(), Machine(data).run()
    sizes = {view.storage.key: NUMPY_DTYPES[view.storage.dtype].itemsize for view in state_dict(views).values()}
    found, start = {}, data.tell()
    for key in keys if isinstance(keys, list) else ():
        if not isinstance(key, str) or key not in sizes:
            raise ValueError("the storages are not those that the tensors speak of")
        (count,) = struct.unpack_from("<q", data, start)
        stop = start + 8 + count * sizes[key]
        if count < 0 or stop > len(data):
            raise ValueError("the file ends early")
        found[key] = np.frombuffer(data, np.uint8)[start + 8 : stop]
        start = stop

    def locate(storage: Storage) -> np.ndarray:
        if storage.key not in found:
            raise ValueError(f"the storage {storage.key!r} is missing")
        return found[storage.key]

    return tensors(views, locate)


def state_dict(views: Any) -> dict[str, View]:
    """Returns what a pickle came to, once it is known to be a dict of tensors."""
    if not isinstance(views, dict):
        raise ValueError(f"holds {type(views).__name__}; wanted a dict of tensors")
    for name, view in views.items():
        if not isinstance(name, str) or not isinstance(view, View):
            raise ValueError(f"{name!r:.80} is {type(view).__name__}; wanted names with tensors")
    return views


def tensors(views: Any, locate: Callable[[Storage], np.ndarray]) -> Tensors:
    """Returns the tensors that views on storages are; `locate` finds a storage's bytes."""
    return {name: from_view(name, view, locate(view.storage)) for name, view in state_dict(views).items()}


def from_view(name: str, view: View, numbers: np.ndarray) -> Tensor:
    """Returns a view as a tensor, once it is known to stay within its storage."""
    storage, offset, shape, strides = view
    size = NUMPY_DTYPES[storage.dtype].itemsize
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    if math.prod(shape) and (last >= storage.size or storage.size * size > numbers.size):
        raise ValueError(f"{name} reaches beyond its storage")

    def read() -> np.ndarray:
        flat = numbers[offset * size : (last + 1) * size].view(NUMPY_DTYPES[storage.dtype])
        steps = [stride * size if length > 1 else 0 for length, stride in zip(shape, strides, strict=True)]
        return np.lib.stride_tricks.as_strided(flat, shape, steps, writeable=False)

    return Tensor(shape, storage.dtype, read)
