"""The promises of SECURITY.md: no file runs code, whatever its name, and a small file takes little memory."""

import ast
import io
import os
import pickle
import re
import shutil
import sys
import tracemalloc
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from small_checkpoints import edit_config, make_run, model, refusal, small_tokenizer

import bert_jax
from bert_jax.config import BertConfig
from bert_jax.data.pretraining.token_store import TokenStore, tokenize_corpus
from bert_jax.data.readers.corpus import keep_documents, read_corpus
from bert_jax.interop.loading import model_class, save_config
from bert_jax.training.runs.checkpoints import Checkpoints
from bert_jax.training.runs.folder import recorded_settings
from bert_jax.training.runs.manifests import MANIFEST, checkpoint_files, write_manifest
from bert_jax.training.runs.metrics import read_metrics
from bert_jax.training.state import TrainState

PACKAGE = Path(bert_jax.__file__).parent
RUNS_CODE = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "torch", "yaml"}
seen: list[str] = []


def listen(event, arguments):
    """Python reports when a pickle looks up a function, and when a command is run."""
    if event in ("pickle.find_class", "os.system"):
        seen.append(event)


sys.addaudithook(listen)


@pytest.fixture(autouse=True)
def nothing_runs():
    seen.clear()
    yield
    assert seen == []


class RunsCommand:
    """Runs a command when it is unpickled."""

    def __reduce__(self):
        return os.system, ("true",)


PICKLED = pickle.dumps(RunsCommand())
OBJECTS = b"\x93NUMPY\x01\x00v\x00{'descr': '|O', 'fortran_order': False, 'shape': (), }".ljust(127) + b"\n" + PICKLED
NESTED = b"[" * 100_000
HOSTILE = {"pickle": PICKLED, "objects": OBJECTS, "nested": NESTED, "empty": b""}


def test_the_test_pickle_does_run_code_when_unpickled():
    pickle.loads(PICKLED)
    np.load(io.BytesIO(OBJECTS), allow_pickle=True)
    assert seen == ["pickle.find_class", "os.system"] * 2
    seen.clear()


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize(
    "name",
    ["config.json", "model.safetensors", "pytorch_model.bin", "flax_model.msgpack", "tokenizer.json", "vocab.txt"],
)
def test_no_file_of_a_model_runs_code(folder, name, content):
    small_tokenizer(folder).save(folder)
    if name.endswith((".bin", ".msgpack")):
        (folder / "model.safetensors").unlink()
    if name == "vocab.txt":
        (folder / "tokenizer.json").unlink()
    (folder / name).write_bytes(content)
    assert name in refusal(folder)


def attempt(act):
    """Returns the one-line message of a ValueError, or None if there was none."""
    try:
        act()
    except ValueError as error:
        (line,) = str(error).splitlines()
        return line
    return None


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"), model("BertForPreTraining"))


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_no_file_of_a_run_runs_code(run, tmp_path, content):
    """Replaces each file of a checkpoint in turn, with a manifest that matches."""
    here = shutil.copytree(run, tmp_path / "run")
    checkpoint = here / "checkpoints" / "0"
    refused = 0
    for path in checkpoint_files(checkpoint):
        before = path.read_bytes()
        path.write_bytes(content)
        write_manifest(checkpoint)
        message = attempt(lambda: bert_jax.load(here))  # some of Orbax's files are not needed to load
        refused += message is not None
        path.write_bytes(before)
    assert refused >= 3
    (checkpoint / MANIFEST).write_bytes(content)
    assert "manifest.json cannot be read" in refusal(here)


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_no_record_of_a_run_runs_code(tmp_path, content):
    (tmp_path / "training.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"training\.json: not the settings of a run"):
        recorded_settings(tmp_path)
    if content:
        (tmp_path / "metrics.jsonl").write_bytes(content + b"\n")
        with pytest.raises(ValueError, match=r"metrics\.jsonl:1: not a row of metrics"):
            read_metrics(tmp_path / "metrics.jsonl")


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.tsv", "a.json", "a.jsonl", "a.parquet"])
def test_no_file_of_a_corpus_runs_code(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    message = attempt(lambda: read_corpus([str(tmp_path / name)], cache_dir=tmp_path / "cache"))
    if message is None:
        assert name in ("a.txt", "a.csv", "a.tsv")  # a line of brackets is valid text
    else:
        assert name in message


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
@pytest.mark.parametrize("name", ["ids.npy", "sentence_offsets.npy", "document_offsets.npy"])
def test_no_file_of_a_tokenized_corpus_runs_code(tmp_path, name, content):
    documents = keep_documents(["an owl hooted ; a b", "c d", "e f"], tmp_path / "documents")
    store = tokenize_corpus(documents, small_tokenizer(tmp_path), cache_dir=tmp_path / "cache")
    folder = tmp_path / "cache" / store.fingerprint
    (folder / name).unlink()  # the store has mapped it: a new file, not new bytes in the old one
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match="a tokenized corpus") as caught:
        TokenStore.open(folder)
    assert "\n" not in str(caught.value)


def test_inconsistent_files_of_a_tokenized_corpus_are_refused(tmp_path):
    documents = keep_documents(["an owl hooted ; a b", "c d", "e f"], tmp_path / "documents")
    store = tokenize_corpus(documents, small_tokenizer(tmp_path), cache_dir=tmp_path / "cache")
    folder = tmp_path / "cache" / store.fingerprint
    for offsets in ([0, 1, 1 << 40], [5, 9], [0.0, 9.0], [[0], [9]]):
        (folder / "sentence_offsets.npy").unlink()
        np.save(folder / "sentence_offsets.npy", np.array(offsets))
        with pytest.raises(ValueError, match="delete it"):
            TokenStore.open(folder)


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_no_cached_corpus_runs_code(tmp_path, content):
    keep_documents(["a"], tmp_path / "kept")
    (tmp_path / "kept" / "documents.arrow").unlink()
    (tmp_path / "kept" / "documents.arrow").write_bytes(content)
    with pytest.raises(ValueError, match="not a cached corpus"):
        keep_documents([], tmp_path / "kept")


def test_a_small_checkpoint_that_claims_to_be_large_is_refused_before_allocating(tmp_path):
    """64 MB of zeros take a few kilobytes on disk."""
    config = BertConfig.preset("tiny", vocab_size=125_000)
    bert = model_class("BertModel")(config)
    shapes = jax.eval_shape(bert.init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(TrainState.create(zeros, optax.sgd(1.0), key=jax.random.key(0)), {"row": 0})
    save_config(tmp_path, bert)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(zeros))
    assert f"bytes claim to be {size:,}" in refusal(tmp_path)


@pytest.mark.parametrize(
    "name",
    [
        "vocab_size",
        "hidden_size",
        "num_hidden_layers",
        "intermediate_size",
        "max_position_embeddings",
        "type_vocab_size",
    ],
)
def test_a_config_of_impossible_sizes_is_refused_before_allocating(folder, name):
    edit_config(folder, **{name: 3 * 2**40})
    tracemalloc.start()
    refusal(folder)
    assert tracemalloc.get_traced_memory()[1] < 1 << 24
    tracemalloc.stop()


def test_a_config_with_a_large_new_head_is_refused_before_allocating(folder):
    edit_config(folder, "id2label", "label2id", architectures=["BertForSequenceClassification"], num_labels=10**12)
    assert "number of labels requires 13,000,000,000,000 new parameters" in refusal(folder)


def test_no_source_file_of_the_package_can_run_code_from_data():
    """Checks imports, calls of eval and exec, and options that allow pickles."""
    sources = [*PACKAGE.rglob("*.py"), PACKAGE.parent / "train.py", PACKAGE.parent / "finetune.py"]
    for path in sources:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import | ast.ImportFrom):
                names = [node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
                assert not {(name or "").split(".")[0] for name in names} & RUNS_CODE, path
            if isinstance(node, ast.Call):
                assert getattr(node.func, "id", "") not in ("eval", "exec", "compile", "__import__"), path
                options = {keyword.arg: getattr(keyword.value, "value", None) for keyword in node.keywords}
                assert options.get("allow_pickle") in (None, False), path
                assert "trust_remote_code" not in options, path


def test_the_tests_that_security_md_names_exist():
    text = (PACKAGE.parent / "SECURITY.md").read_text(encoding="utf-8")
    named = re.findall(r"`(tests/[\w/]+\.py)(?:::(\w+))?`", text)
    assert len(named) >= 9
    for path, function in named:
        source = (PACKAGE.parent / path).read_text(encoding="utf-8")
        assert not function or f"def {function}(" in source, f"{path}::{function}"
