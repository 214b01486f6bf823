"""A tensor that lies in a file, and the plainest format of such files, safetensors.

A reader of a format returns a `Tensors`: names with what is known of each tensor before its numbers are read. They are
read one by one, so that a model is never in memory twice.
"""

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

DTYPES = {  # of parameters
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
SAFETENSORS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class Tensor:
    """A tensor of a file.

    Attributes:
        shape: as it lies in the file.
        dtype: its name; parameters have one of DTYPES.
        read: returns the array, from the file.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]


Tensors = dict[str, Tensor]


def mapped(path: Path) -> mmap.mmap:
    """Returns a file's bytes, mapped into memory."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def open_safetensors(path: Path) -> Tensors:
    """Opens a safetensors file. Header, sizes and offsets are checked by the library before anything is read.

    Raises:
        ValueError: the file is cut off, or its header says what cannot be.
    """
    try:
        file = safe_open(path, framework="np")
        return {name: from_slice(file, name) for name in file.keys()}  # noqa: SIM118 (it is no dict)
    except SafetensorError as error:
        raise ValueError(f"not a whole safetensors file ({error})") from None


def from_slice(file: Any, name: str) -> Tensor:
    """Returns a tensor of an open file."""
    view = file.get_slice(name)
    dtype = view.get_dtype()
    return Tensor(tuple(view.get_shape()), SAFETENSORS.get(dtype, str(dtype)), lambda: file.get_tensor(name))


def one_line(error: Exception) -> str:
    """Returns the first line of a message, or the error's name: some libraries write whole pages, and some nothing."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
