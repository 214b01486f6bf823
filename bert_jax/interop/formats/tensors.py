"""Tensors in files, and the simplest format of such files, safetensors.

A format's reader returns `Tensors`: for each name, what is known before the numbers are read. The numbers are read
tensor by tensor, so that a model is never in memory twice.
"""

import mmap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

DTYPES = {  # the dtypes that parameters may have
    "float64": np.dtype(np.float64),
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": np.dtype(ml_dtypes.bfloat16),
}
SAFETENSORS_DTYPES = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@dataclass(frozen=True)
class Tensor:
    """A tensor in a file.

    Attributes:
        shape: as stored in the file.
        dtype: its name; parameters have one of `DTYPES`.
        read: reads the array from the file.
    """

    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], np.ndarray]


Tensors = dict[str, Tensor]


def map_file(path: Path) -> mmap.mmap:
    """Returns the bytes of a file, mapped into memory."""
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def open_safetensors(path: Path) -> Tensors:
    """Opens a safetensors file. The library checks header, sizes and offsets before anything is read.

    Raises:
        ValueError: the file is truncated, or its header is invalid.
    """
    try:
        file = safe_open(path, framework="np")
        return {name: _tensor_from_slice(file, name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except SafetensorError as error:
        raise ValueError(f"not a complete safetensors file ({error})") from None


def read_aliases(path: Path) -> dict[str, str]:
    """Returns the names of tensors that a safetensors file does not repeat, because another tensor is the same one.

    They are in its metadata, beside other notes: {"cls.predictions.decoder.weight": the name of the embedding}.
    """
    return safe_open(path, framework="np").metadata() or {}


def _tensor_from_slice(file: Any, name: str) -> Tensor:
    view = file.get_slice(name)
    dtype = view.get_dtype()
    return Tensor(tuple(view.get_shape()), SAFETENSORS_DTYPES.get(dtype, str(dtype)), lambda: file.get_tensor(name))
