"""Each tensor of a file is used once or named in an error, and alternative names give the same parameters."""

import numpy as np
import pytest
from small_checkpoints import assert_same_bits, edit_weights, model, refusal

import bert_jax

PRETRAINED = model("BertForPreTraining")


@pytest.fixture
def folder(tmp_path):
    """A pretrained model in Hugging Face's layout."""
    PRETRAINED.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def renamed(old, new):
    def edit(tensors):
        tensors[new] = tensors.pop(old)

    return edit


def copied(old, new):
    def edit(tensors):
        tensors[new] = tensors[old].copy()

    return edit


WORD = "bert.embeddings.word_embeddings.weight"
UP = "bert.encoder.layer.1.intermediate.dense"


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda t: t | {"bert.x": t[WORD], "y": t[WORD]}, "BERT has no tensors called bert.x, y"),
        (lambda t: t | {f"x{i}": np.ones(1) for i in range(9)}, "called x0, x1, x2, x3, x4 and 4 more"),
        (lambda t: t | {"a\nb" * 999: np.ones(1)}, r"BERT has no tensors called 'a\nba\nba"),
        (copied(WORD, "embeddings.word_embeddings.weight"), "are the same parameter"),
        (copied("bert.pooler.dense.bias", "bert.encoder.layer.2.output.dense.bias"), "the config has no place for b"),
        (lambda t: {name: t[name] for name in t if name != f"{UP}.bias"}, f"missing from the file: {UP}.bias"),
        (lambda t: {name: t[name] for name in t if ".1." not in name}, "and 11 more"),
        (lambda t: {name: t[name] for name in t if not name.startswith("bert")}, "from the file: bert.embeddings"),
        (lambda t: t | {f"{UP}.weight": t[f"{UP}.weight"][:-1].copy()},
         f"{UP}.weight has shape (19, 12), the config requires (20, 12)"),
        (lambda t: t | {WORD: t[WORD].astype(np.int8)}, f"{WORD} is stored as I8; parameters are float64, float32"),
        (lambda t: t | {"cls.predictions.decoder.weight": t[WORD] + 1}, "an untied decoder is not supported"),
        (lambda t: t | {"cls.predictions.decoder.weight": t[WORD][:-1].copy()}, "an untied decoder"),
        (lambda t: t | {"cls.predictions.decoder.bias": t["cls.predictions.bias"] + 1}, "an untied decoder"),
        (renamed("bert.pooler.dense.bias", "bert.pooler.dense.beta"), "no tensors called bert.pooler.dense.beta"),
    ],
)  # fmt: skip
def test_a_tensor_that_is_not_used_exactly_once_is_named(edit, message, folder):
    edit_weights(folder, edit)
    line = refusal(folder)
    assert line.startswith(f"{folder}: ")
    assert message in line


@pytest.mark.parametrize(
    "edit",
    [
        lambda t: {name.removeprefix("bert."): t[name] for name in t},
        lambda t: {name.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): t[name] for name in t},
        copied(WORD, "cls.predictions.decoder.weight"),
        copied("cls.predictions.bias", "cls.predictions.decoder.bias"),
        renamed("cls.predictions.bias", "cls.predictions.decoder.bias"),
        lambda t: t | {"bert.embeddings.position_ids": np.arange(11)[None]},
    ],
    ids=["no prefix", "gamma and beta", "decoder", "decoder bias too", "decoder bias alone", "buffer"],
)
def test_alternative_names_give_the_same_parameters(edit, folder):
    edit_weights(folder, edit)
    assert_same_bits(bert_jax.load(folder).params, PRETRAINED.params)
