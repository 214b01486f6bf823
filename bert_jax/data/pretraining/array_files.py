"""One-dimensional .npy files, written in pieces and memory-mapped.

A file is written in pieces, because the array may be larger than memory. A mapped file keeps no file descriptor, unlike
`np.load(mmap_mode="r")`: a store of 10,000 parts is more files than a process may have open.
"""

from pathlib import Path
from typing import Self

import numpy as np
import pyarrow as pa


class ArrayWriter:
    """A .npy file of integers, to which arrays are appended; use it in a `with` statement."""

    def __init__(self, path: Path, dtype: np.typing.DTypeLike) -> None:
        self._dtype = np.dtype(dtype)
        self._file = path.open("wb")
        self._write_header(0)
        self.length = 0

    def append(self, values: np.ndarray) -> None:
        self._file.write(values.astype(self._dtype, copy=False).tobytes())
        self.length += len(values)

    def _write_header(self, length: int) -> None:
        # NumPy pads the header, so that it can be rewritten when the length is known.
        header = {"descr": self._dtype.newbyteorder("<").str, "fortran_order": False, "shape": (length,)}
        np.lib.format.write_array_header_1_0(self._file, header)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        with self._file:
            self._file.seek(0)
            self._write_header(self.length)


class OffsetsWriter(ArrayWriter):
    """An int64 file of cumulative sums, which begins with 0; lengths are appended."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, np.int64)
        self.last = 0
        super().append(np.zeros(1, np.int64))

    def append(self, values: np.ndarray) -> None:
        if len(values):
            offsets = self.last + np.cumsum(values, dtype=np.int64)
            super().append(offsets)
            self.last = int(offsets[-1])


def map_array(path: Path) -> np.ndarray:
    """Memory-maps a file of integers, read-only.

    Raises:
        ValueError: the file holds something else, or is cut off.
        OSError: it cannot be read.
    """
    with path.open("rb") as file:
        if np.lib.format.read_magic(file) != (1, 0):
            raise ValueError(f"{path}: not an array file of version 1.0")
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        offset = file.tell()
    size = path.stat().st_size
    if len(shape) != 1 or dtype.kind not in "iu" or size != offset + shape[0] * dtype.itemsize:
        raise ValueError(f"{path}: not a whole array of integers")
    with pa.memory_map(str(path)) as mapped:  # the memory stays mapped for as long as the array is used
        return np.ndarray(shape, dtype, buffer=mapped.read_buffer(), offset=offset)
