"""`pytorch_model.bin` read without PyTorch: a pickle of names and shapes, and the numbers outside the pickle.

Since PyTorch 1.6 the file is a zip archive, in which the pickle and each storage are separate entries. Before, it was a
sequence of pickles followed by the storages. The numbers are mapped into memory and read when they are used.

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
from bert_jax.interop.formats.tensors import DTYPES, Tensor, Tensors, map_file
from bert_jax.messages import first_line

NUMPY_DTYPES = {name: np.dtype(name) for name in STORAGES.values() if name not in DTYPES} | DTYPES
ZIP_MAGIC = b"PK\x03\x04"
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C


def open_torch(path: Path) -> Tensors:
    """Opens a file that `torch.save(model.state_dict(), path)` wrote, in either format."""
    data = map_file(path)
    try:
        return _open_archive(path, data) if data[:4] == ZIP_MAGIC else _open_legacy(data)
    except (zipfile.BadZipFile, struct.error, OSError, EOFError, LookupError, OverflowError, RuntimeError) as error:
        raise ValueError(f"not a complete PyTorch file ({first_line(error)})") from None


def _open_archive(path: Path, data: mmap.mmap) -> Tensors:
    """Opens a zip archive: the pickle in NAME/data.pkl, and each storage, uncompressed, in NAME/data/KEY."""
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename.partition("/")[2]: entry for entry in archive.infolist()}
        if "data.pkl" not in entries:
            raise ValueError("a zip archive without data.pkl: not a PyTorch file")
        for name, entry in entries.items():
            if entry.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{name} is compressed; PyTorch does not compress")
        if entries["data.pkl"].file_size > LIMIT:
            raise ValueError(f"data.pkl has {entries['data.pkl'].file_size} bytes, more than {LIMIT}")
        if "byteorder" in entries and archive.read(entries["byteorder"]) != b"little":
            raise ValueError("written on a big-endian machine, which is not supported")
        views = Machine(archive.read(entries["data.pkl"])).run()

    def find_storage(storage: Storage) -> np.ndarray:
        entry = entries.get(f"data/{storage.key}")
        if entry is None:
            raise ValueError(f"the storage {storage.key!r} is missing")
        # The archive's directory gives the offset of the entry's local header: 30 bytes, of which the last four are the
        # lengths of the name and of the extra field that follow. The storage begins after those.
        name_length, extra_length = struct.unpack_from("<HH", data, entry.header_offset + 26)
        start = entry.header_offset + 30 + name_length + extra_length
        return np.frombuffer(data, np.uint8)[start : start + entry.file_size]

    return _to_tensors(views, find_storage)


def _open_legacy(data: mmap.mmap) -> Tensors:
    """Opens the format before PyTorch 1.6.

    Five pickles: a magic number, the protocol, facts about the machine, the state dict, the keys of the storages. Then
    each storage: its number of elements, int64, and the elements.
    """
    if Machine(data).run() != LEGACY_MAGIC:
        raise ValueError("neither a zip archive nor a file of PyTorch before 1.6")
    Machine(data).run()  # the protocol
    system = Machine(data).run()
    if not isinstance(system, dict) or not system.get("little_endian"):
        raise ValueError("written on a big-endian machine, which is not supported")
    views = Machine(data).run()
    keys = Machine(data).run()
    itemsizes = {view.storage.key: NUMPY_DTYPES[view.storage.dtype].itemsize for view in _check_views(views).values()}
    storages = {}
    start = data.tell()
    for key in keys if isinstance(keys, list) else ():
        if not isinstance(key, str) or key not in itemsizes:
            raise ValueError("the storages are not those of the tensors")
        (count,) = struct.unpack_from("<q", data, start)
        stop = start + 8 + count * itemsizes[key]
        if count < 0 or stop > len(data):
            raise ValueError("the file is truncated")
        storages[key] = np.frombuffer(data, np.uint8)[start + 8 : stop]
        start = stop

    def find_storage(storage: Storage) -> np.ndarray:
        if storage.key not in storages:
            raise ValueError(f"the storage {storage.key!r} is missing")
        return storages[storage.key]

    return _to_tensors(views, find_storage)


def _check_views(views: Any) -> dict[str, View]:
    """Returns the result of a pickle after checking that it is a dict of tensors."""
    if not isinstance(views, dict):
        raise ValueError(f"holds {type(views).__name__}; expected a dict of tensors")
    for name, view in views.items():
        if not isinstance(name, str) or not isinstance(view, View):
            raise ValueError(f"{name!r:.80} is {type(view).__name__}; expected names with tensors")
    return views


def _to_tensors(views: Any, find_storage: Callable[[Storage], np.ndarray]) -> Tensors:
    """Returns the views as tensors; `find_storage` returns the bytes of a storage."""
    return {name: _to_tensor(name, view, find_storage(view.storage)) for name, view in _check_views(views).items()}


def _to_tensor(name: str, view: View, data: np.ndarray) -> Tensor:
    """Returns a view as a tensor after checking that it stays within its storage."""
    storage, offset, shape, strides = view
    dtype = NUMPY_DTYPES[storage.dtype]
    size = dtype.itemsize
    # The highest index that the view reads: shape (2, 3) with strides (3, 1) at offset 4 reads up to 4 + 3 + 2 = 9.
    last = offset + sum((length - 1) * stride for length, stride in zip(shape, strides, strict=True))
    if math.prod(shape) and (last >= storage.size or storage.size * size > data.size):
        raise ValueError(f"{name} exceeds its storage")

    def read() -> np.ndarray:
        flat = data[offset * size : (last + 1) * size].view(dtype)
        # An axis of length 1 is never stepped along, so its stride may be anything in the file.
        byte_strides = [stride * size if length > 1 else 0 for length, stride in zip(shape, strides, strict=True)]
        return np.lib.stride_tricks.as_strided(flat, shape, byte_strides, writeable=False)

    return Tensor(shape, storage.dtype, read)
