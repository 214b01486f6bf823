"""The gradient of a global batch does not depend on how the batch was split, over micro-batches or over devices."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from gradient_checks import NEGLIGIBLE_IN_FLOAT32, assert_leaves_agree
from pretraining_batches import CONFIG, random_batch

from bert_jax.models import BertForPreTraining
from bert_jax.training import parallel
from bert_jax.training.objectives import pretraining
from bert_jax.training.optimizers import make_optimizer, make_schedule
from bert_jax.training.state import TrainState
from bert_jax.training.steps import evaluation_step, means, train_step

SAME_GRADIENT = 2e-5
SAME_PARAMETERS = 1e-5
ROWS = 24  # divisible by 8 devices x 3 micro-batches

MODEL = BertForPreTraining(CONFIG)
# Masks of dropout depend on the part of the batch, so gradients are compared without.
STILL = BertForPreTraining(replace(CONFIG, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))


def gradient_descent():
    """One step of it at rate 1 moves the parameters by the gradient itself."""
    return optax.sgd(1.0)


def initial(optimizer):
    params = jax.jit(MODEL.init)(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    return TrainState.create(params, optimizer, key=jax.random.key(7))


@pytest.fixture(scope="module")
def batch():
    return random_batch(ROWS)


def gradient(state, batch, **options):
    step = jax.jit(partial(train_step, objective=pretraining(STILL), optimizer=gradient_descent(), **options))
    moved, figures = step(state, batch)
    return jax.tree.map(lambda a, b: np.asarray(a - b), state.params, moved.params), figures


def same_gradient(got, wanted):
    assert_leaves_agree(got, wanted, SAME_GRADIENT, negligible=NEGLIGIBLE_IN_FLOAT32)


@pytest.fixture(scope="module")
def start():
    return initial(gradient_descent())


@pytest.fixture(scope="module")
def whole(start, batch):
    return gradient(start, batch)


def test_accumulation_gives_the_gradient_of_the_big_batch(start, batch, whole):
    """Rows hold unequal numbers of predictions, so that the mean of the parts' means would be another gradient."""
    weights = batch["masked_weights"].sum(axis=1)
    assert len(set(weights.tolist())) > 1
    parts, figures = gradient(start, batch, accumulate=3)
    same_gradient(parts, whole[0])
    for name, value in whole[1].items():
        np.testing.assert_allclose(figures[name], value, rtol=SAME_GRADIENT, err_msg=name)


def test_pmap_gives_the_gradient_of_the_big_batch(start, batch, whole):
    devices = jax.device_count()
    assert devices == 8
    step = jax.pmap(
        partial(train_step, axis="data", objective=pretraining(STILL), optimizer=gradient_descent()),
        axis_name="data",
        in_axes=(None, 0),
        out_axes=None,
    )
    split = {name: x.reshape(devices, ROWS // devices, *x.shape[1:]) for name, x in batch.items()}
    moved, figures = step(start, split)
    difference = jax.tree.map(lambda a, b: np.asarray(a) - np.asarray(b), start.params, moved.params)
    same_gradient(difference, whole[0])
    np.testing.assert_allclose(figures["loss"], whole[1]["loss"], rtol=SAME_GRADIENT)


def test_a_row_without_weight_counts_for_nothing(start, batch, whole):
    empty = {name: np.zeros_like(x) for name, x in batch.items()}
    padded = {name: np.concatenate([x, empty[name]]) for name, x in batch.items()}
    same_gradient(gradient(start, padded)[0], whole[0])


def test_figures_are_means_over_what_was_asked(start, batch, whole):
    measures = jax.jit(partial(evaluation_step, objective=pretraining(MODEL)))(start.params, batch)
    np.testing.assert_array_equal(measures["masked_lm_loss"][1], batch["masked_weights"].sum())
    expected = means(measures)
    for name, value in expected.items():
        np.testing.assert_allclose(whole[1][name], value, rtol=SAME_GRADIENT)
    np.testing.assert_allclose(whole[1]["loss"], expected["masked_lm_loss"] + expected["next_sentence_loss"], rtol=1e-6)
    assert whole[1]["tokens"] == batch["attention_mask"].sum()


def five_steps(mesh):
    schedule = make_schedule("linear", peak=3e-3, warmup_steps=2, decay_steps=9)
    optimizer = make_optimizer("bert_adamw", schedule)

    def create(key):
        params = MODEL.init(key, jnp.zeros((1, 2), jnp.int32))["params"]
        return TrainState.create(params, optimizer, key=jax.random.key(7))

    state = parallel.born_sharded(create, jax.random.key(3), mesh)
    step = parallel.compile_step(partial(train_step, objective=pretraining(MODEL), optimizer=optimizer), state, mesh)
    for number in range(5):
        state, _ = step(state, parallel.place(random_batch(ROWS, seed=number), mesh))
    return state


@pytest.fixture(scope="module")
def one_device():
    mesh = jax.make_mesh(
        (1, 1, 1), ("data", "fsdp", "tensor"), (jax.sharding.AxisType.Auto,) * 3, devices=jax.devices()[:1]
    )
    return five_steps(mesh)


@pytest.mark.parametrize("sizes", [{}, {"fsdp": 8}, {"fsdp": 2, "tensor": 2}], ids=str)
def test_any_layout_gives_the_parameters_of_one_device(one_device, sizes):
    """With dropout on: under a mesh its masks do not depend on the devices."""
    state = five_steps(parallel.make_mesh(**sizes))
    assert_leaves_agree(
        jax.device_get(state.params),
        jax.device_get(one_device.params),
        SAME_PARAMETERS,
        negligible=NEGLIGIBLE_IN_FLOAT32,
    )


def test_fsdp_divides_parameters_and_optimizer_state():
    mesh = parallel.make_mesh(fsdp=4)
    optimizer = make_optimizer("lamb", lambda step: 0.1)

    def create(key):
        return TrainState.create(MODEL.init(key, jnp.zeros((1, 2), jnp.int32))["params"], optimizer, key=key)

    state = parallel.born_sharded(create, jax.random.key(0), mesh)
    kernels = [state.params["encoder"]["feed_forward"]["up"]["kernel"]]
    kernels += [leaf for path, leaf in jax.tree_util.tree_leaves_with_path(state.optimizer_state)
                if "'up'" in jax.tree_util.keystr(path) and "kernel" in jax.tree_util.keystr(path)]  # fmt: skip
    assert len(kernels) == 3  # the parameter and its two moments
    for kernel in kernels:
        assert kernel.addressable_shards[0].data.nbytes == kernel.nbytes // 4


def test_batches_that_do_not_divide_are_refused():
    mesh = parallel.make_mesh()
    with pytest.raises(ValueError, match="batch of 12 rows cannot be divided over 8 devices x 1 micro-batches"):
        parallel.check_batch(12, mesh)
    with pytest.raises(ValueError, match="8 devices cannot be divided into fsdp 3 x tensor 1"):
        parallel.make_mesh(fsdp=3)
    with pytest.raises(ValueError, match="batch of 24 rows cannot be divided into 5 micro-batches"):
        jax.eval_shape(
            partial(train_step, objective=pretraining(MODEL), optimizer=gradient_descent(), accumulate=5),
            jax.eval_shape(lambda: initial(gradient_descent())),
            random_batch(ROWS),
        )
