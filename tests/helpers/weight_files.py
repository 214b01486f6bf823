"""The same tensors in a file of every format, and the error message of a refused file."""

import zipfile
from pathlib import Path

import ml_dtypes
import msgpack
import numpy as np
import pytest
from safetensors.numpy import save_file

from bert_jax.interop.formats.weights import open_weights

EXPECTATIONS = Path(__file__).parents[1] / "expectations"

WRITTEN = {  # by `expectations/make.py`
    "plain": np.arange(15, dtype=np.float32).reshape(3, 5),
    "transposed": np.arange(35, dtype=np.float32).reshape(5, 7).T,
    "part": np.arange(77, dtype=np.float32).reshape(7, 11)[2:5, 3:10:2],
    "expanded": np.array([[2, 2, 2], [3, 3, 3]], np.float32),
    "same": np.arange(15, dtype=np.float32).reshape(3, 5),
    "parameter": np.arange(3, dtype=np.float32),
    "half": np.arange(7, dtype=np.float16) / np.float16(4),
    "brain": np.array([0, 0.25, 0.5, 0.75, 1], ml_dtypes.bfloat16),
    "double": np.arange(2, dtype=np.float64) / 3,
    "long": np.arange(3).reshape(1, 3),
    "scalar": np.array(1.5, np.float32),
    "empty": np.zeros((0, 3), np.float32),
}
FLOATS = {name: array for name, array in WRITTEN.items() if array.dtype != int}


def write_safetensors(folder):
    save_file({name: np.array(array, order="C") for name, array in WRITTEN.items()}, folder / "model.safetensors")


def write_archive(folder):
    (folder / "pytorch_model.bin").write_bytes((EXPECTATIONS / "archive.bin").read_bytes())


def write_legacy(folder):
    (folder / "pytorch_model.bin").write_bytes((EXPECTATIONS / "legacy.bin").read_bytes())


def flax_array(array):
    fields = (array.shape, array.dtype.name, np.ascontiguousarray(array).tobytes())
    return msgpack.ExtType(1, msgpack.packb(fields))


def write_flax(folder):
    tree = {name: flax_array(array) for name, array in FLOATS.items()}
    (folder / "flax_model.msgpack").write_bytes(msgpack.packb(tree))


WRITERS = {"safetensors": write_safetensors, "archive": write_archive, "legacy": write_legacy, "flax": write_flax}
every_format = pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)


def the_file(folder):
    (path,) = folder.iterdir()
    return path


def refusal(folder):
    """The one line with which a folder's weights are refused; it names the file."""
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the callers look at the message)
        open_weights(folder)
    assert str(folder) in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def archive(path, program, entries=(), compression=zipfile.ZIP_STORED):
    """A zip archive as PyTorch writes it, around any pickle."""
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("archive/data.pkl", program)
        for name, data in dict(entries).items():
            file.writestr(f"archive/{name}", data)
