"""`flax_model.msgpack`, as the Flax classes of older transformers wrote it: nested maps with arrays at the leaves.

An array is an extension of type 1 whose bytes are msgpack again: shape, name of the dtype, buffer. Only maps and such
arrays are let through.

References: Flax, `flax/serialization.py`; https://github.com/msgpack/msgpack/blob/master/spec.md.
"""

import math
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from bert_jax.interop.formats.tensors import DTYPES, Tensor, Tensors, mapped, one_line

NDARRAY = 1


def open_msgpack(path: Path) -> Tensors:
    """Reads the file; names are joined by dots, as PyTorch's are."""
    try:
        tree = msgpack.unpackb(mapped(path), ext_hook=array)
    except ValueError as error:
        raise ValueError(f"not a file of Flax parameters ({one_line(error)})") from None
    tensors: Tensors = {}
    pending = [("", tree)]
    while pending:
        name, value = pending.pop()
        if name in tensors:
            raise ValueError(f"{name} is there twice")
        if isinstance(value, Tensor):
            tensors[name] = value
        elif isinstance(value, dict):
            start = f"{name}." if name else ""
            pending += [(f"{start}{key}", child) for key, child in value.items()]
        else:
            raise ValueError(f"{name or 'the file'} holds {type(value).__name__}; wanted arrays in nested maps")
    return tensors


def array(code: int, data: bytes) -> Tensor:
    """Reads an extension of msgpack: an array, without copying it."""
    if code != NDARRAY:
        raise ValueError(f"extension {code} is not an array")
    fields: Any = msgpack.unpackb(data, raw=True, strict_map_key=False)
    if not isinstance(fields, list) or len(fields) != 3:
        raise ValueError("an array without shape, dtype and buffer")
    shape, dtype, buffer = fields
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError("an array whose shape is not a list of sizes")
    if not isinstance(dtype, bytes) or not isinstance(buffer, bytes):
        raise ValueError("an array whose dtype or buffer is missing")
    name = dtype.decode("ascii")
    if name not in DTYPES:
        raise ValueError(f"an array of {name!r:.80}; parameters are {', '.join(DTYPES)}")
    if len(buffer) != math.prod(shape) * DTYPES[name].itemsize:
        raise ValueError(f"{len(buffer)} bytes do not make a {name} array of shape {tuple(shape)!s:.80}")
    return Tensor(tuple(shape), name, lambda: np.frombuffer(buffer, DTYPES[name]).reshape(shape))
