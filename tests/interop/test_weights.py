"""Weight files of every format, in one file or in shards, give their tensors."""

import json
import subprocess
import sys
from pathlib import Path

import msgpack
import numpy as np
import pytest
from safetensors.numpy import save_file
from weight_files import (
    EXPECTATIONS,
    FLOATS,
    WRITTEN,
    every_format,
    flax_array,
    refusal,
    write_archive,
    write_flax,
    write_safetensors,
)

from bert_jax.interop.formats.weights import open_weights

# Contents


@every_format
def test_every_format_and_dtype_is_read(write, tmp_path):
    write(tmp_path)
    tensors = open_weights(tmp_path)
    assert tensors.keys() == (FLOATS if write is write_flax else WRITTEN).keys()
    for name, tensor in tensors.items():
        got, want = tensor.read(), WRITTEN[name]
        assert (tensor.shape, got.shape, got.dtype) == (want.shape, want.shape, want.dtype)
        assert tensor.dtype == want.dtype.name or want.dtype == int
        np.testing.assert_array_equal(got, want)


def test_pytorch_is_not_needed():
    program = f"""
import sys
from pathlib import Path
from bert_jax.interop.formats.torch import open_torch
for name in ("archive.bin", "legacy.bin"):
    open_torch(Path({str(EXPECTATIONS)!r}) / name)["plain"].read()
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[2])


def test_nested_maps_become_names_with_dots(tmp_path):
    tree = {"bert": {"pooler": {"dense": {"bias": flax_array(WRITTEN["plain"])}}}, "x": flax_array(WRITTEN["half"])}
    (tmp_path / "flax_model.msgpack").write_bytes(msgpack.packb(tree))
    assert open_weights(tmp_path).keys() == {"bert.pooler.dense.bias", "x"}


def test_safetensors_are_preferred_and_a_folder_without_weights_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors, pytorch_model\.bin, flax_model\.msgpack"):
        open_weights(tmp_path)
    write_archive(tmp_path)
    write_safetensors(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"not looked at")
    assert open_weights(tmp_path).keys() == WRITTEN.keys()


# Shards


def write_shards(folder, **changes):
    for number, names in enumerate((("plain", "half"), ("brain",)), start=1):
        save_file({name: WRITTEN[name] for name in names}, folder / f"part-{number}.safetensors")
    places = {"plain": "part-1.safetensors", "half": "part-1.safetensors", "brain": "part-2.safetensors"} | changes
    index = {"metadata": {}, "weight_map": {name: place for name, place in places.items() if place}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def test_shards_are_combined(tmp_path):
    write_shards(tmp_path)
    tensors = open_weights(tmp_path)
    assert tensors.keys() == {"plain", "half", "brain"}
    np.testing.assert_array_equal(tensors["brain"].read(), WRITTEN["brain"])


def test_a_missing_shard_is_named(tmp_path):
    write_shards(tmp_path)
    (tmp_path / "part-2.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"index\.json: its shard part-2\.safetensors is missing"):
        open_weights(tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"half": ""}, "half is in the index or in its shards, not in both"),
        ({"more": "part-2.safetensors"}, "more is in the index or in its shards"),
        ({"brain": "../part-2.safetensors"}, "'../part-2.safetensors' is not the name of a file in its folder"),
        ({"brain": "/etc/passwd"}, "'/etc/passwd' is not the name of a file in its folder"),
        ({"brain": 7}, "expected a weight_map"),
    ],
)
def test_an_index_refers_to_its_own_folder_and_agrees_with_its_shards(changes, message, tmp_path):
    write_shards(tmp_path, **changes)
    assert message in refusal(tmp_path)


def test_a_tensor_in_two_shards_is_named(tmp_path):
    write_shards(tmp_path)
    save_file({"brain": WRITTEN["brain"], "plain": WRITTEN["plain"]}, tmp_path / "part-2.safetensors")
    assert "part-2.safetensors: plain is also in another shard" in refusal(tmp_path)
