"""`flax_model.msgpack`, written by the Flax classes of transformers 4: nested maps with arrays as leaves.

An array is a msgpack extension of type 1 whose bytes are msgpack again: shape, dtype name, buffer. Nothing but maps and
such arrays is accepted.

References: Flax, `flax/serialization.py`; https://github.com/msgpack/msgpack/blob/master/spec.md.
"""

import math
from pathlib import Path
from typing import Any

import msgpack
import numpy as np

from bert_jax.interop.formats.tensors import DTYPES, Tensor, Tensors, map_file
from bert_jax.messages import first_line

NDARRAY = 1


def open_msgpack(path: Path) -> Tensors:
    """Opens the file; the names in nested maps are joined with dots, like PyTorch's."""
    try:
        tree = msgpack.unpackb(map_file(path), ext_hook=_read_array)
    except ValueError as error:
        raise ValueError(f"not a file of Flax parameters ({first_line(error)})") from None
    tensors: Tensors = {}
    # A stack and not recursion: the nesting of a hostile file may be deeper than Python's stack.
    pending = [("", tree)]
    while pending:
        name, value = pending.pop()
        if name in tensors:
            raise ValueError(f"{name} occurs twice")
        if isinstance(value, Tensor):
            tensors[name] = value
        elif isinstance(value, dict):
            start = f"{name}." if name else ""
            pending += [(f"{start}{key}", child) for key, child in value.items()]
        else:
            raise ValueError(f"{name or 'the file'} holds {type(value).__name__}; expected arrays in nested maps")
    return tensors


def _read_array(code: int, data: bytes) -> Tensor:
    """Reads a msgpack extension as an array, without copying its buffer."""
    if code != NDARRAY:
        raise ValueError(f"extension {code} is not an array")
    fields: Any = msgpack.unpackb(data, raw=True, strict_map_key=False)
    if not isinstance(fields, list) or len(fields) != 3:
        raise ValueError("an array without shape, dtype and buffer")
    shape, dtype, buffer = fields
    if not isinstance(shape, list) or not all(type(size) is int and size >= 0 for size in shape):
        raise ValueError("an array whose shape is not a list of sizes")
    if not isinstance(dtype, bytes) or not isinstance(buffer, bytes):
        raise ValueError("an array without dtype or buffer")
    name = dtype.decode("ascii")
    if name not in DTYPES:
        raise ValueError(f"an array of {name!r:.80}; parameters are {', '.join(DTYPES)}")
    if len(buffer) != math.prod(shape) * DTYPES[name].itemsize:
        raise ValueError(f"{len(buffer)} bytes are not a {name} array of shape {tuple(shape)!s:.80}")
    return Tensor(tuple(shape), name, lambda: np.frombuffer(buffer, DTYPES[name]).reshape(shape))
