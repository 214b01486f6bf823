"""Small checkpoints: to write, damage, compare bitwise and refuse."""

import json

import jax
import optax
import parity
import pytest
import small_bert as small
from gradient_checks import leaves
from safetensors.numpy import load_file, save_file

import bert_jax
from bert_jax.interop.loading import save_config
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training.runs.checkpoints import Checkpoints
from bert_jax.training.state import TrainState

WORDS = "[PAD] [UNK] [CLS] [SEP] [MASK] an owl hooted ; nobody answered it , or so they say a b c d e f g h i j ##ing"


def model(head):
    """A model whose parameters have no zero bias and no scale of 1."""
    return parity.model(parity.Case(head))


def small_tokenizer(folder):
    """A tokenizer with the vocabulary size of the small models."""
    words = [*WORDS.split(), "##ed", "##s", "!"]
    assert len(words) == small.V
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    return Tokenizer.load(folder)


def make_run(folder, bert):
    """Writes a run folder with one checkpoint."""
    state = TrainState.create(bert.params, optax.sgd(1.0), key=jax.random.key(0))
    with Checkpoints(folder / "checkpoints") as checkpoints:
        checkpoints.save(state, {"row": 0})
    save_config(folder, bert.model)
    return folder


def edit_config(folder, *without, **changes):
    path = folder / "config.json"
    values = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in values.items() if name not in without}))


def edit_weights(folder, edit):
    """Rewrites model.safetensors with a changed dict of arrays."""
    path = folder / "model.safetensors"
    tensors = load_file(path)
    save_file(edit(tensors) or tensors, path)


def assert_same_bits(got, want):
    got = dict(leaves(got))
    want = dict(leaves(want))
    assert got.keys() == want.keys()
    for path in want:
        assert got[path].dtype == want[path].dtype, path
        assert got[path].tobytes() == want[path].tobytes(), path


def refusal(source, error=ValueError, **options):
    with pytest.raises(error) as caught:
        bert_jax.load(source, **options)
    (line,) = str(caught.value).splitlines()
    return line
