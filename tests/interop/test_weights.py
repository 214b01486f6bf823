"""Weight files of every format, in one file or in shards, give their tensors."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import msgpack
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from small_checkpoints import assert_same_bits
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

import bert_jax
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


# Aliases


EMBEDDING = "bert.embeddings.word_embeddings.weight"
DECODER = "cls.predictions.decoder.weight"


def alias(folder, *, kept, removed):
    """Stores a tensor of a model once, under the other name, with a note on its first name."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    tensors[kept] = tensors.pop(removed)
    save_file(tensors, path, metadata={"format": "pt", removed: kept, "note": "nothing"})


@pytest.mark.parametrize(
    ("kept", "removed"), [(DECODER, EMBEDDING), ("cls.predictions.decoder.bias", "cls.predictions.bias")]
)
def test_a_tensor_that_the_metadata_names_is_found(kept, removed, folder):
    want = bert_jax.load(folder).params
    alias(folder, kept=kept, removed=removed)
    assert {kept, removed} <= open_weights(folder).keys()
    assert "note" not in open_weights(folder)
    assert_same_bits(bert_jax.load(folder).params, want)


def test_layers_that_share_their_weights_are_found(folder):
    path = folder / "model.safetensors"
    tensors = load_file(path)
    layers = {name: name.replace("layer.1.", "layer.0.") for name in tensors if "layer.1." in name}
    save_file({name: array for name, array in tensors.items() if name not in layers}, path, metadata=layers)
    for kernel in jax.tree.leaves(bert_jax.load(folder).params["encoder"]):
        np.testing.assert_array_equal(kernel[0], kernel[1])


def test_an_alias_in_a_shard_may_name_a_tensor_of_another(folder):
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    aliases = {name: name.replace("layer.1.", "layer.0.") for name in tensors if "layer.1." in name}
    shards: dict[str, dict] = {"a.safetensors": {}, "b.safetensors": {}}
    for name in tensors.keys() - aliases.keys():
        shards["b.safetensors" if "layer.0." in name else "a.safetensors"][name] = tensors[name]
    for shard, content in shards.items():
        save_file(content, folder / shard, metadata=aliases if shard.startswith("a") else {"format": "pt"})
    index = {"weight_map": {name: shard for shard, content in shards.items() for name in content}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for kernel in jax.tree.leaves(bert_jax.load(folder).params["encoder"]):
        np.testing.assert_array_equal(kernel[0], kernel[1])
