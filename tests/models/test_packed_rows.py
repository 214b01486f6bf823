"""Packed rows from the pretraining pipeline give the results of separate rows, without leaks between sequences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_bert as small
from gradient_checks import NEGLIGIBLE_IN_FLOAT32, assert_leaves_agree
from token_stores import store_of

from bert_jax import models
from bert_jax.data.pretraining.loader import BatchSettings, PretrainingRows
from bert_jax.data.pretraining.masking import Vocabulary
from bert_jax.text.layout import Layout
from bert_jax.training.objectives import pretraining

PAD, UNK, CLS, SEP, MASK = range(5)
T, ROWS = 59, 5
SETTINGS = BatchSettings(max_length=T, masked_share=0.3, short_probability=0.5, seed=3)
CONFIG = small.config(
    max_position_embeddings=T,
    initializer_range=0.2,
)
RELATIVE = 1e-5
BY_SEQUENCE = ("cls_positions", "next_sentence_labels", "next_sentence_weights")
BY_PREDICTION = ("masked_positions", "masked_labels", "masked_weights")
BY_TOKEN = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


@pytest.fixture(scope="module")
def batch():
    """Packed rows of documents of random words."""
    draw = np.random.default_rng(0)
    documents = [
        [draw.integers(5, small.V, draw.integers(1, 7)) for _ in range(draw.integers(1, 5))] for _ in range(23)
    ]
    vocabulary = Vocabulary(small.V, PAD, MASK, Layout.bert(CLS, SEP), np.arange(5), np.zeros(small.V, bool))
    batch = PretrainingRows(store_of(documents), vocabulary, SETTINGS)(np.arange(ROWS))
    assert (batch["attention_mask"].max(axis=1) > 1).all()
    return batch


@pytest.fixture(scope="module")
def model():
    return models.BertForPreTraining(CONFIG)


@pytest.fixture(scope="module")
def params(model):
    return jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]


@pytest.fixture(scope="module")
def measured(model):
    """(params, batch) -> (pretraining loss, last hidden state), gradients; compiled once per shape."""

    def loss(params, batch):
        measures = pretraining(model).loss_and_metrics(params, batch, None)
        losses = (measures["masked_lm_loss"], measures["next_sentence_loss"])
        outputs = model.apply({"params": params}, *(batch[name] for name in BY_TOKEN))
        return sum(total / weight for total, weight in losses), outputs.last_hidden_state

    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def owners(batch):
    """The sequence number of each prediction, int [B, P], 0 for unused slots."""
    numbers = np.take_along_axis(batch["attention_mask"], batch["masked_positions"], axis=1)
    return np.where(batch["masked_weights"] > 0, numbers, 0)


def separated(batch):
    """Each sequence in a separate row."""
    rows = []
    for row, slot in np.argwhere(batch["next_sentence_weights"] > 0):
        here, asked = batch["attention_mask"][row] == slot + 1, owners(batch)[row] == slot + 1
        one = {name: np.zeros(T, np.int32) for name in BY_TOKEN}
        for name in BY_TOKEN:
            one[name][: here.sum()] = batch[name][row, here]
        one["attention_mask"] = (one["attention_mask"] != 0).astype(np.int32)
        one["position_ids"] = np.arange(T) * one["attention_mask"]
        for name in BY_PREDICTION:
            one[name] = np.zeros_like(batch[name][row])
            one[name][: asked.sum()] = batch[name][row, asked]
        one["masked_positions"][: asked.sum()] -= batch["cls_positions"][row, slot]
        one |= {name: batch[name][row, slot : slot + 1] for name in BY_SEQUENCE}
        one["cls_positions"] = np.zeros(1, np.int32)
        rows.append(one)
    return {name: np.stack([row[name] for row in rows]) for name in batch}


def test_packed_and_separate_rows_have_the_same_loss_and_gradients(params, measured, batch):
    apart = separated(batch)
    assert len(apart["input_ids"]) > 2 * ROWS
    assert (apart["input_ids"][:, 0] == CLS).all()
    ((one, _), gradients), ((other, _), separate) = (measured(params, rows) for rows in (batch, apart))
    np.testing.assert_allclose(one, other, rtol=RELATIVE)
    assert_leaves_agree(gradients, separate, RELATIVE, negligible=NEGLIGIBLE_IN_FLOAT32)


@pytest.mark.parametrize("changed", [1, 2])
def test_changing_a_sequence_leaves_the_others_bitwise_unchanged(params, measured, batch, changed):
    """Changes one sequence of each row and sets the weights of its labels to 0: all other results stay the same."""
    mask, numbers = batch["attention_mask"], np.arange(SETTINGS.slots) + 1
    quiet = batch | {
        "masked_weights": batch["masked_weights"] * (owners(batch) != changed),
        "next_sentence_weights": batch["next_sentence_weights"] * (numbers != changed)[None, :],
    }
    other = quiet | {
        "input_ids": np.where(mask == changed, 5 + (batch["input_ids"] + 7) % (small.V - 5), batch["input_ids"]),
        "token_type_ids": np.where(mask == changed, 1 - batch["token_type_ids"], batch["token_type_ids"]),
    }
    ((one, states), gradients), ((two, moved), gradients_moved) = (measured(params, rows) for rows in (quiet, other))
    assert one == two
    states, moved = np.asarray(states), np.asarray(moved)
    np.testing.assert_array_equal(states[(mask != changed) & (mask != 0)], moved[(mask != changed) & (mask != 0)])
    assert np.abs(states - moved)[mask == changed].max(axis=-1).min() > 0
    jax.tree.map(np.testing.assert_array_equal, gradients, gradients_moved)
