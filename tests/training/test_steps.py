"""The gradient of a global batch does not depend on how the batch was split."""

import re
from dataclasses import replace
from functools import partial
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradient_checks import NEGLIGIBLE_IN_FLOAT32, assert_leaves_agree
from pretraining_batches import CONFIG, packed_batch, random_batch

from bert_jax.models import BertForPreTraining
from bert_jax.training.objectives import pretraining
from bert_jax.training.optimizers import make_optimizer, make_schedule
from bert_jax.training.state import TrainState
from bert_jax.training.steps import evaluation_step, means, train_step

SAME_GRADIENT = 2e-5
ROWS = 24

MODEL = BertForPreTraining(CONFIG)
# Dropout masks depend on the micro-batch, so gradients are compared without dropout.
STILL = BertForPreTraining(replace(CONFIG, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))


def gradient_descent():
    """One step with learning rate 1 changes the parameters by the gradient."""
    return optax.sgd(1.0)


def initial(optimizer):
    params = jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    return TrainState.create(params, optimizer, key=jax.random.key(7))


@pytest.fixture(scope="module")
def batch():
    return random_batch(ROWS)


def gradient(state, batch, **options):
    step = jax.jit(partial(train_step, objective=pretraining(STILL), optimizer=gradient_descent(), **options))
    moved, metrics = step(state, batch)
    return jax.tree.map(lambda a, b: np.asarray(a - b), state.params, moved.params), metrics


def same_gradient(got, wanted):
    assert_leaves_agree(got, wanted, SAME_GRADIENT, negligible=NEGLIGIBLE_IN_FLOAT32)


@pytest.fixture(scope="module")
def start():
    return initial(gradient_descent())


@pytest.fixture(scope="module")
def whole(start, batch):
    return gradient(start, batch)


def test_accumulation_gives_the_gradient_of_the_big_batch(start, batch, whole):
    """Rows have unequal numbers of predictions, so the mean of the micro-batches' means would be another gradient."""
    weights = batch["masked_weights"].sum(axis=1)
    assert len(set(weights.tolist())) > 1
    accumulated, metrics = gradient(start, batch, accumulate=3)
    same_gradient(accumulated, whole[0])
    for name, value in whole[1].items():
        np.testing.assert_allclose(metrics[name], value, rtol=SAME_GRADIENT, err_msg=name)


def test_a_row_without_weight_does_not_change_the_gradient(start, batch, whole):
    empty = {name: np.zeros_like(x) for name, x in batch.items()}
    padded = {name: np.concatenate([x, empty[name]]) for name, x in batch.items()}
    same_gradient(gradient(start, padded)[0], whole[0])


def test_metrics_are_weighted_means(start, batch, whole):
    pairs = jax.jit(partial(evaluation_step, objective=pretraining(MODEL)))(start.params, batch)
    np.testing.assert_array_equal(pairs["masked_lm_loss"][1], batch["masked_weights"].sum())
    expected = means(pairs)
    for name, value in expected.items():
        np.testing.assert_allclose(whole[1][name], value, rtol=SAME_GRADIENT)
    np.testing.assert_allclose(whole[1]["loss"], expected["masked_lm_loss"] + expected["next_sentence_loss"], rtol=1e-6)
    assert whole[1]["tokens"] == batch["attention_mask"].sum()
    np.testing.assert_allclose(whole[1]["row_efficiency"], batch["attention_mask"].mean(), rtol=1e-6)


def test_a_skipped_update_changes_nothing_but_its_count():
    """The batches good, bad, good give the same parameters, moments and learning rate as good, good."""
    schedule = make_schedule("linear", peak=0.1, warmup_steps=3, decay_steps=9)
    optimizer = make_optimizer("adamw", schedule)
    square: Any = SimpleNamespace(
        loss_and_metrics=lambda params, batch, key: {
            "loss": (((params["w"] * batch["x"]).sum() - 1) ** 2, jnp.float32(1))
        },
        losses={"loss": "attention_mask"},
    )
    step = jax.jit(partial(train_step, objective=square, optimizer=optimizer, schedule=schedule, skip=True))

    def after(*rows):
        state, metrics = TrainState.create({"w": jnp.ones(3)}, optimizer, key=jax.random.key(0)), {}
        for x in rows:
            state, metrics = step(state, {"x": jnp.float32(x), "attention_mask": jnp.ones((1, 1))})
        return state, metrics

    skipped, got = after([1, 2, 3], [1, np.nan, 3], [3, 1, 2])
    plain, wanted = after([1, 2, 3], [3, 1, 2])
    jax.tree.map(np.testing.assert_array_equal, skipped.params, plain.params)
    jax.tree.map(np.testing.assert_array_equal, skipped.optimizer_state, plain.optimizer_state)
    assert (int(skipped.step), int(skipped.skipped)) == (3, 1)
    assert got == wanted | {"skipped": 1}


def test_a_batch_that_is_not_divisible_into_micro_batches_is_an_error():
    with pytest.raises(ValueError, match="batch of 24 rows cannot be divided into 5 micro-batches"):
        jax.eval_shape(
            partial(train_step, objective=pretraining(MODEL), optimizer=gradient_descent(), accumulate=5),
            jax.eval_shape(lambda: initial(gradient_descent())),
            random_batch(ROWS),
        )


def test_no_sum_depends_on_the_order_of_a_gpus_threads(start):
    """There, a scatter whose indices may be equal adds in the order in which threads arrive. On CPUs there are some."""
    step = partial(train_step, objective=pretraining(MODEL), optimizer=gradient_descent(), accumulate=2)
    traced = jax.jit(step).trace(start, packed_batch(ROWS))

    def unique_indices(platform):
        program = traced.lower(lowering_platforms=(platform,)).as_text()
        return set(re.findall(r"stablehlo\.scatter.*?unique_indices = (\w+)", program, re.DOTALL))

    assert unique_indices("cuda") == {"true"}
    assert "false" in unique_indices("cpu")
