"""Saving and loading is bitwise, and transformers and this project read each other's files."""

import json
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import msgpack
import numpy as np
import parity
import pytest
from safetensors.numpy import load_file
from small_checkpoints import assert_same_bits, make_run, model, refusal
from torch_extra import of_torch_extra

import bert_jax
from bert_jax.config import BertConfig
from bert_jax.interop.heads import MODELS, model_class
from bert_jax.interop.loading import LoadedBert
from bert_jax.interop.names import locate_tensor
from bert_jax.models import BertForPreTraining

EXPECTATIONS = Path(__file__).parents[1] / "expectations"
TOLERANCE = 2e-5
PRETRAINED = model("BertForPreTraining")


# Round trips


@pytest.mark.parametrize("head", MODELS)
def test_saving_and_loading_every_head_is_bitwise(head, tmp_path):
    bert = model(head)
    bert.save_pretrained(tmp_path)
    loaded = bert_jax.load(tmp_path)
    assert type(loaded.model) is model_class(head)
    assert loaded.config == bert.config or head == "BertForQuestionAnswering"
    assert_same_bits(loaded.params, bert.params)


def test_orbax_to_hugging_face_to_orbax_is_bitwise(tmp_path, tokenizer):
    run = make_run(tmp_path / "run", PRETRAINED)
    tokenizer.save(run)
    first = bert_jax.load(run)
    first.save_pretrained(tmp_path / "out")
    there = bert_jax.load(tmp_path / "out")
    back = bert_jax.load(make_run(tmp_path / "back", there))
    assert_same_bits(back.params, PRETRAINED.params)
    assert type(back.model) is BertForPreTraining
    assert there.tokenizer.fingerprint == first.tokenizer.fingerprint == tokenizer.fingerprint


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_converted_to_float32_or_kept(dtype, tmp_path):
    kind = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}[dtype]
    PRETRAINED.save_pretrained(tmp_path, dtype=dtype)
    assert {array.dtype for array in load_file(tmp_path / "model.safetensors").values()} == {np.dtype(kind)}
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == dtype
    loaded = bert_jax.load(tmp_path)
    rounded = jax.tree.map(lambda leaf: np.asarray(leaf).astype(kind).astype(np.float32), PRETRAINED.params)
    assert_same_bits(loaded.params, rounded)
    assert loaded.config.dtype == "float32"


def test_dtype_sets_parameters_and_computation(folder):
    loaded = bert_jax.load(folder, dtype="bfloat16")
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded.params)} == {jnp.dtype("bfloat16")}
    outputs = loaded([[1, 2, 3]])
    assert outputs.last_hidden_state.dtype == jnp.bfloat16
    assert outputs.prediction_logits.dtype == jnp.float32
    loaded.save_pretrained(folder)
    assert_same_bits(bert_jax.load(folder, dtype="bfloat16").params, loaded.params)
    assert "dtype must be one of" in refusal(folder, dtype="int8")
    assert "needs jax_enable_x64" in refusal(folder, dtype="float64")


@pytest.mark.skipif(sys.platform == "win32", reason="files have no limit there")
def test_a_full_disk_gives_one_line_and_leaves_no_partial_file(tmp_path):
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match=r"model\.safetensors: not written \(.*File too large"):
            PRETRAINED.save_pretrained(tmp_path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json"}


def test_sinusoidal_positions_are_written_as_a_table(tmp_path):
    sizes = BertConfig(**{**vars(PRETRAINED.config), "position_embedding_type": "sinusoidal"})
    embeddings = {name: leaf for name, leaf in PRETRAINED.params["embeddings"].items() if name != "position"}
    bert = LoadedBert(BertForPreTraining(sizes), {**PRETRAINED.params, "embeddings": embeddings})
    bert.save_pretrained(tmp_path)
    rows = parity.inputs(parity.Case("BertForPreTraining"))
    want, got = bert(**rows), bert_jax.load(tmp_path)(**rows)
    np.testing.assert_allclose(got.prediction_logits, want.prediction_logits, atol=TOLERANCE)


# Files of transformers, and files for it


def test_files_of_the_old_flax_classes_are_read():
    bert = bert_jax.load(EXPECTATIONS / "flax")
    with np.load(EXPECTATIONS / "flax" / "answer.npz") as stored:
        names = ("input_ids", "token_type_ids", "attention_mask")
        answer = bert(**{name: stored[name] for name in names})
        tokens = stored["attention_mask"] == 1
        want = stored["prediction_logits"]
        np.testing.assert_allclose(answer.prediction_logits[tokens], want[tokens], atol=TOLERANCE)
        np.testing.assert_allclose(answer.seq_relationship_logits, stored["seq_relationship_logits"], atol=TOLERANCE)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors.index.json", "modules.json"])
def test_a_model_is_not_mixed_with_the_files_of_another(name, tmp_path):
    PRETRAINED.save_pretrained(tmp_path)
    PRETRAINED.save_pretrained(tmp_path)
    (tmp_path / name).write_text("[]")
    before = (tmp_path / "model.safetensors").stat().st_mtime_ns
    with pytest.raises(FileExistsError, match=rf"{name} of another model"):
        PRETRAINED.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_mtime_ns == before
    PRETRAINED.save_pretrained(tmp_path, overwrite=True)
    assert not (tmp_path / name).exists()
    assert_same_bits(bert_jax.load(tmp_path).params, PRETRAINED.params)


def write_flax(bert, path):
    """`flax_model.msgpack` with the names that the Flax classes use."""
    tensors = {}
    bert.save_pretrained(path)
    for name, array in load_file(path / "model.safetensors").items():
        location = locate_tensor(name)
        stored = np.ascontiguousarray(array.T if location.transposed else array)
        fields = (stored.shape, "float32", stored.tobytes())
        tensors[name.rpartition(".")[0] + "." + location.path.rpartition("/")[2]] = msgpack.ExtType(
            1, msgpack.packb(fields)
        )
    (path / "model.safetensors").unlink()
    (path / "flax_model.msgpack").write_bytes(msgpack.packb(tensors))


@pytest.mark.parametrize("head", MODELS)
def test_every_head_is_read_from_a_flax_file(head, tmp_path):
    write_flax(model(head), tmp_path)
    assert_same_bits(bert_jax.load(tmp_path).params, model(head).params)


@pytest.fixture(scope="module")
def pytorch(tmp_path_factory):
    """transformers' models, loaded from ours."""
    of_torch_extra("torch")
    of_torch_extra("transformers")
    place = tmp_path_factory.mktemp("pytorch")

    def build(head):
        if not (place / head).exists():
            model(head).save_pretrained(place / head)
        return parity.from_pretrained(head, place / head)

    return build


@pytest.mark.parametrize("head", MODELS)
def test_folders_written_by_transformers_are_read(head, pytorch, tmp_path):
    theirs = pytorch(head)
    theirs.save_pretrained(tmp_path)
    loaded = bert_jax.load(tmp_path)
    assert type(loaded.model) is model_class(head)
    assert_same_bits(loaded.params, model(head).params)


def test_shards_written_by_transformers_are_read(pytorch, tmp_path):
    pytorch("BertForPreTraining").save_pretrained(tmp_path, max_shard_size="3KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert_same_bits(bert_jax.load(tmp_path).params, model("BertForPreTraining").params)


@pytest.mark.parametrize("archive", [True, False], ids=["archive", "legacy"])
def test_pytorch_model_bin_is_read(archive, pytorch, tmp_path):
    import torch

    theirs = pytorch("BertForPreTraining")  # its state dict repeats the decoder, weight and bias
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=archive)
    theirs.config.save_pretrained(tmp_path)
    assert_same_bits(bert_jax.load(tmp_path).params, model("BertForPreTraining").params)


def test_transformers_reads_our_labels_and_vocabulary(pytorch, tokenizer, tmp_path):
    import transformers

    names = ("anger", "joy", "fear", "trust", "awe")
    bert = model("BertForSequenceClassification")
    config = BertConfig(**{**vars(bert.config), "label_names": names})
    LoadedBert(type(bert.model)(config), bert.params, tokenizer).save_pretrained(tmp_path)
    theirs = parity.from_pretrained("AutoModelForSequenceClassification", tmp_path)
    assert theirs.config.architectures == ["BertForSequenceClassification"]
    assert tuple(theirs.config.id2label.values()) == names
    assert theirs.config.label2id["fear"] == 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reader = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = ["An owl hooted!", "they answered, or so it says"]
    assert reader(texts)["input_ids"] == [encoding.ids for encoding in tokenizer.encode_batch(texts)]
    assert bert_jax.load(tmp_path).config.label_names == names
