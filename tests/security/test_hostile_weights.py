"""Whatever a weight file contains, reading it gives tensors or one line with the reason, and runs no code."""

import os
import pickle
import struct
import tempfile
import tracemalloc
import zipfile
from pathlib import Path

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from weight_files import EXPECTATIONS, WRITTEN, archive, every_format, flax_array, refusal, the_file, write_legacy

from bert_jax.interop.formats.weights import READERS, open_weights
from bert_jax.messages import first_line

SMALL = 1 << 22  # bytes of memory that a hostile file of a few hundred bytes may cause


class Run:
    """Runs a command when it is unpickled."""

    def __init__(self, command):
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


ENDLESS = b"]q\0" + b"](h\0h\0eq\0" * 99  # a list of two lists of two lists ..., and all of it but 99 lists


def view(shape, strides=None, offset=0, size=6, storage="FloatStorage", function="_rebuild_tensor_v2"):
    """Returns a hand-written pickle that describes one tensor, `x`."""

    def name(module, attribute):
        return f"c{module}\n{attribute}\n".encode()

    def ints(values):
        return b"(" + b"".join(pickle.dumps(value, 2)[2:-1] for value in values) + b"t"

    strides = np.cumprod([1, *shape[:0:-1]])[::-1].tolist() if strides is None else strides
    identity = b"(X\x07\0\0\0storage" + name("torch", storage) + b"X\1\0\0\x000X\3\0\0\0cpu"
    identity += pickle.dumps(size, 2)[2:-1] + b"tQ"
    start = offset if isinstance(offset, bytes) else pickle.dumps(offset, 2)[2:-1]
    arguments = b"(" + identity + start + ints(shape) + ints(strides) + b"\x89Nt"
    return b"\x80\2}X\1\0\0\0x" + name("torch._utils", function) + arguments + b"Rs."


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("inside", ["archive", "legacy"])
def test_pickled_code_does_not_run(inside, protocol, tmp_path):
    trace = tmp_path / "trace"
    program = pickle.dumps({"x": Run(f"touch {trace}")}, protocol)
    pickle.loads(program)  # the standard library does run it
    assert trace.exists()
    trace.unlink()
    folder = tmp_path / "model"
    folder.mkdir()
    if inside == "archive":
        archive(folder / "pytorch_model.bin", program)
    else:
        beginning = [0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}]
        bytes_before = b"".join(pickle.dumps(value, 2) for value in beginning)
        (folder / "pytorch_model.bin").write_bytes(bytes_before + program)
    message = refusal(folder)
    assert "'posix.system'" in message or "'nt.system'" in message or protocol == 0
    assert "only tensors and plain containers are allowed" in message
    assert not trace.exists()


NAMES = ("builtins eval", "os system", "torch load", "torch._utils _rebuild_sparse_tensor", "argparse Namespace",
         "numpy.core.multiarray _reconstruct", "collections OrderedDict.fromkeys")  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_refused_name_is_in_the_message(name, tmp_path):
    program = b"\x80\2}X\1\0\0\0xc" + name.replace(" ", "\n").encode() + b"\n)Rs."
    archive(tmp_path / "pytorch_model.bin", program)
    assert repr(name.replace(" ", ".")) in refusal(tmp_path)


@pytest.mark.parametrize(
    ("program", "message"),
    [
        (view((2, 3), offset=1), "x exceeds its storage"),
        (view((2, 3), strides=(4, 1)), "x exceeds its storage"),
        (view((2, 3), size=7), "x exceeds its storage"),
        (view((2, 3), strides=(-3, 1)), "a size, offset or stride of a tensor is -3"),
        (view((2, 3), offset=-1), "a size, offset or stride of a tensor is -1"),
        (view((2, 3), offset=ENDLESS), "a list in the pickle where a int belongs"),
        (b"\x80\4" + ENDLESS + b"h\0\x93.", "a list in the pickle where a str belongs"),
        (view((2, 3), strides=(1,)), "different numbers of sizes and strides"),
        (view((2, 3), storage="QInt8Storage"), "'torch.QInt8Storage'"),
        (view((1 << 40, 1 << 40)), "x exceeds its storage"),
        (pickle.dumps([1, 2], 2), "holds list; expected a dict of tensors"),
        (pickle.dumps({"epoch": 3}, 2), "'epoch' is int; expected names with tensors"),
        (pickle.dumps({"x": {"y": 1}}, 4), "'x' is dict; expected names with tensors"),
        (b"\x80\2}q\0h\0h\0s.", "a dict in the pickle where a str belongs"),
        (b"\x80\2cbuiltins\nlist\n.", "'builtins.list'"),
        (b"\x80\2ctorch\nFloatStorage\n)R.", "the pickle calls torch.FloatStorage"),
        (b"\x80\2ctorch\nFloatStorage\n}b.", "a Name in the pickle where a dict belongs"),
        (b"\x80\2X\xff\xff\xff\xffabc.", "a broken pickle"),
        (b"(S'true'\niposix\nsystem\n.", "the pickle uses STRING; only tensors and plain containers are allowed"),
        (b"(iposix\nsystem\n.", "the pickle uses INST; only"),
        (b"\x80\2}\x82\1.", "the pickle uses EXT1; only"),
        (b"\x80\2}}\x81.", "the pickle uses NEWOBJ; only"),
        (b"\x80\2h\7.", "a broken pickle (KeyError)"),
        (b"\x80\2.", "a broken pickle (IndexError)"),
        (b"\x80\2]", "a broken pickle"),
        (b"", "a broken pickle"),
    ],
)  # fmt: skip
def test_an_inconsistent_pickle_is_refused(program, message, tmp_path):
    archive(tmp_path / "pytorch_model.bin", program, {"data/0": np.arange(6, dtype=np.float32).tobytes()})
    assert message in refusal(tmp_path)


def test_the_hand_written_pickle_is_valid(tmp_path):
    archive(tmp_path / "pytorch_model.bin", view((2, 3)), {"data/0": np.arange(6, dtype=np.float32).tobytes()})
    np.testing.assert_array_equal(open_weights(tmp_path)["x"].read(), np.arange(6).reshape(2, 3))


def test_a_small_file_takes_little_memory(tmp_path):
    huge = b"\x80\2}r\xff\xff\xff\xff" + view((2, 3))[3:]  # the memo's entry 4294967295
    archive(tmp_path / "pytorch_model.bin", huge, {"data/0": np.arange(6, dtype=np.float32).tobytes()})
    tracemalloc.start()
    try:
        open_weights(tmp_path)["x"].read()
        (tmp_path / "pytorch_model.bin").unlink()
        (tmp_path / "model.safetensors").write_bytes(struct.pack("<Q", 1 << 40) + b"{}")
        refusal(tmp_path)
        (tmp_path / "model.safetensors").unlink()
        (tmp_path / "flax_model.msgpack").write_bytes(b"\xdf\xff\xff\xff\xff")
        refusal(tmp_path)
        assert tracemalloc.get_traced_memory()[1] < SMALL
    finally:
        tracemalloc.stop()


def test_a_compressed_archive_is_refused(tmp_path):
    archive(tmp_path / "pytorch_model.bin", view((2, 3)), {"data/0": bytes(1 << 20)}, zipfile.ZIP_DEFLATED)
    assert "is compressed; PyTorch does not compress" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (b"", "header too small"),
        (b"[]", "not a complete safetensors file"),
        (b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', "not a complete safetensors file"),
        (b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}', "not a complete safetensors file"),
        (
            b'{"a":{"dtype":"F32","shape":[18446744073709551615,2],"data_offsets":[0,4]}}',
            "not a complete safetensors file",
        ),
        (b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', "not a complete safetensors file"),
        (b'{"a":{"dtype":"OBJECT","shape":[1],"data_offsets":[0,4]}}', "not a complete safetensors file"),
    ],
)
def test_an_inconsistent_safetensors_header_is_refused(header, message, tmp_path):
    data = struct.pack("<Q", len(header)) + header + bytes(4) if header else b"\0\0"
    (tmp_path / "model.safetensors").write_bytes(data)
    assert message in refusal(tmp_path)


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ({"x": 1}, "x holds int; expected arrays in nested maps"),
        ([1], "the file holds list"),
        ({"x": msgpack.ExtType(2, b"")}, "extension 2 is not an array"),
        ({"x": msgpack.ExtType(1, msgpack.packb([[2], "object", bytes(16)]))}, "an array of 'object'"),
        ({"x": msgpack.ExtType(1, msgpack.packb([[2], "float32", bytes(7)]))}, "7 bytes are not a float32 array"),
        ({"x": msgpack.ExtType(1, msgpack.packb([[-2], "float32", b""]))}, "shape is not a list of sizes"),
        ({"x": msgpack.ExtType(1, msgpack.packb({"a": 1}))}, "an array without shape, dtype and buffer"),
        ({"x": {"y": flax_array(WRITTEN["half"])}, "x.y": flax_array(WRITTEN["half"])}, "x.y occurs twice"),
        ({"x": msgpack.ExtType(1, b"\xc1")}, "not a file of Flax parameters"),
    ],
)
def test_inconsistent_flax_arrays_are_refused(tree, message, tmp_path):
    (tmp_path / "flax_model.msgpack").write_bytes(msgpack.packb(tree))
    assert message in refusal(tmp_path)


def test_a_truncated_legacy_file_is_refused(tmp_path):
    write_legacy(tmp_path)
    path = the_file(tmp_path)
    path.write_bytes(path.read_bytes()[:-3])
    assert "the file is truncated" in refusal(tmp_path)


def test_long_messages_of_other_libraries_become_one_line():
    assert first_line(ValueError("\nwhat is wrong\nand how the library came to say so")) == "what is wrong"
    assert first_line(ValueError()) == "ValueError"


def test_deep_nesting_is_refused(tmp_path):
    (tmp_path / "flax_model.msgpack").write_bytes(b"\x81\xa1a" * 100_000)
    assert "not a file of Flax parameters" in refusal(tmp_path)


@pytest.mark.parametrize("name", READERS)
def test_an_empty_file_and_an_lfs_pointer_are_refused(name, tmp_path):
    (tmp_path / name).write_bytes(b"")
    assert "the file is empty" in refusal(tmp_path)
    (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 90868376\n")
    assert "git lfs pull" in refusal(tmp_path)


# Fuzzing: any change of a file gives tensors or a one-line error


@st.composite
def damage(draw, data):
    """The bytes, truncated or changed in a few places, mostly near the beginning, where the structure is."""
    data = bytearray(data)
    for _ in range(draw(st.integers(1, 5))):
        place = draw(st.integers(0, len(data) - 1) | st.integers(0, min(700, len(data) - 1)))
        piece = draw(st.binary(max_size=9))
        data[place : place + draw(st.integers(0, 9))] = piece
    return bytes(data[: draw(st.just(len(data)) | st.integers(0, len(data)))])


@every_format
@settings(max_examples=200, derandomize=True, database=None)
@given(data=st.data())
def test_a_damaged_file_gives_tensors_or_one_line(write, data):
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder))
        path = the_file(Path(folder))
        path.write_bytes(data.draw(damage(path.read_bytes())))
        check(path)


@settings(max_examples=200, derandomize=True, database=None)
@given(data=st.data())
def test_a_damaged_pickle_gives_tensors_or_one_line(data):
    with zipfile.ZipFile(EXPECTATIONS / "archive.bin") as good:
        entries = {name.removeprefix("archive/"): good.read(name) for name in good.namelist()}
    program = data.draw(damage(entries.pop("data.pkl")) | st.binary())
    with tempfile.TemporaryDirectory() as folder:
        archive(Path(folder) / "pytorch_model.bin", program, entries)
        check(Path(folder) / "pytorch_model.bin")


def check(path):
    try:
        tensors = open_weights(path.parent)
    except ValueError as error:
        (line,) = str(error).splitlines()
        assert line.startswith(f"{path}: ")
        return
    for tensor in tensors.values():
        assert tensor.read().shape == tensor.shape
