"""ModernBERT as a model: loops, rematerialization, freezing, outputs, dropout, seeds, devices and packed rows."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import small_bert as small
from gradient_checks import NEGLIGIBLE_IN_FLOAT32, assert_leaves_agree

from bert_jax.interop.heads import parts_of
from bert_jax.interop.names import leaf_shapes, unflatten
from bert_jax.models import BertForMaskedLM, BertForSequenceClassification
from bert_jax.training.devices import parallel
from bert_jax.training.devices.kernel_choice import AttentionInputs, choose_kernel
from bert_jax.training.objectives import masked_lm
from bert_jax.training.optimizers import Depth
from bert_jax.training.state import TrainState, run_key
from bert_jax.training.steps import train_step

L, T = 5, 11
CONFIG = small.config(
    model_type="modernbert",
    num_hidden_layers=L,
    local_attention=4,
    hidden_size=24,
    num_attention_heads=4,
    intermediate_size=20,
    vocab_size=36,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
)
DROPPING = replace(CONFIG, hidden_dropout_prob=0.2, attention_probs_dropout_prob=0.2, mlp_dropout=0.2)
SAME = 1e-5
ROWS = 8
MASK = np.array([[1] * 6 + [2] * 4 + [0], [1] * 11] * (ROWS // 2), np.int32)


def batch(seed=0):
    random = np.random.default_rng(seed)
    starts = np.where(MASK == 2, 6, 0)
    return {
        "input_ids": random.integers(1, 36, (ROWS, T)).astype(np.int32),
        "attention_mask": MASK,
        "token_type_ids": np.zeros((ROWS, T), np.int32),
        "position_ids": (np.arange(T, dtype=np.int32) - starts) * (MASK != 0),
        "masked_positions": random.integers(0, 10, (ROWS, 3)).astype(np.int32),
        "masked_labels": random.integers(1, 36, (ROWS, 3)).astype(np.int32),
        "masked_weights": np.ones((ROWS, 3), np.float32),
    }


@pytest.fixture(scope="module")
def params():
    shapes = unflatten(leaf_shapes(CONFIG, parts_of(BertForMaskedLM, CONFIG)))
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), small.draw(shapes))


def gradient(model, params, rows):
    def loss(params):
        total, weight = masked_lm(model).loss_and_metrics(params, rows, None)["masked_lm_loss"]
        return total / weight

    return jax.jit(jax.grad(loss))(params)


@pytest.fixture(scope="module")
def plain_gradient(params):
    return gradient(BertForMaskedLM(CONFIG), params, batch())


@pytest.mark.parametrize("options", [{"unroll": L}, {"unroll": 2, "remat": "full"}, {"remat": "dots"}], ids=str)
def test_loops_and_rematerialization_give_one_gradient(options, params, plain_gradient):
    got = gradient(BertForMaskedLM(CONFIG, **options), params, batch())
    assert_leaves_agree(got, plain_gradient, SAME, negligible=NEGLIGIBLE_IN_FLOAT32)


def test_the_first_layer_has_no_norm_before_its_attention(plain_gradient):
    slopes = np.abs(plain_gradient["encoder"]["attention"]["norm"]["scale"]).max(axis=-1)
    assert slopes[0] == 0
    assert (slopes[1:] > 0).all()


def test_frozen_layers_receive_no_gradient(params, plain_gradient):
    got = gradient(BertForMaskedLM(CONFIG, frozen=2), params, batch())
    for leaf in jax.tree.leaves(got["encoder"]):
        assert not np.any(leaf[:2])
    assert not np.any(got["embeddings"]["norm"]["scale"])
    upper = jax.tree.map(lambda leaf: leaf[2:], (got["encoder"], plain_gradient["encoder"]))
    assert_leaves_agree(*upper, SAME, negligible=NEGLIGIBLE_IN_FLOAT32)
    factors = Depth(L, decay=0.5, frozen=2)
    assert factors.factor("final_norm") == 1.0
    np.testing.assert_allclose(factors.factor("encoder"), [0, 0, 0.125, 0.25, 0.5])


def test_hidden_states_and_attentions_are_those_of_the_layers(params):
    rows = batch()
    outputs = jax.jit(partial(BertForMaskedLM(CONFIG).apply, output_hidden_states=True, output_attentions=True))(
        {"params": params}, rows["input_ids"], rows["attention_mask"], None, rows["position_ids"]
    )
    assert len(outputs.hidden_states) == L + 1
    np.testing.assert_array_equal(outputs.hidden_states[-1], outputs.last_hidden_state)
    distance = np.abs(np.arange(T)[:, None] - np.arange(T))
    for layer, weights in enumerate(outputs.attentions):
        assert weights.shape == (ROWS, 4, T, T)
        far = np.asarray(weights)[1, :, distance > 2]  # of a row with one sequence
        assert (far.max() > 0) == (layer % 3 == 0)


def test_dropout_depends_on_the_key_alone(params):
    rows = batch()

    def run(key, unroll=1):
        model = BertForMaskedLM(DROPPING, unroll=unroll)
        return model.apply({"params": params}, rows["input_ids"], rngs={"dropout": key}).last_hidden_state

    one, again, other = (jax.jit(run)(jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert np.abs(one - other).max() > 0.1
    np.testing.assert_allclose(jax.jit(partial(run, unroll=L))(jax.random.key(1)), one, atol=1e-4)
    keys = jax.random.split(jax.random.key(3))
    together = jax.jit(jax.vmap(run))(keys)
    np.testing.assert_allclose(together[1], jax.jit(run)(keys[1]), atol=1e-4)


def test_a_step_on_eight_devices_is_that_of_one(params):
    """With dropout. Gradient descent shows the gradient itself, which Adam would divide by its size."""
    optimizer = optax.sgd(1.0)
    start = jax.device_get(params)  # a step donates its state
    found = []
    for options in ({"devices": jax.devices()[:1]}, {"fsdp": 2, "tensor": 2}):
        layout = parallel.make_layout(**options)
        state = TrainState.create(start, optimizer, key=run_key(jax.random.key(7)))
        state = jax.device_put(state, layout.shardings(state))
        step = partial(train_step, objective=masked_lm(BertForMaskedLM(DROPPING)), optimizer=optimizer)
        state, _ = layout.compile_step(step, state)(state, layout.device_put(batch()))
        found.append(jax.tree.map(lambda new, old: np.asarray(new) - old, jax.device_get(state.params), start))
    assert_leaves_agree(found[1], found[0], SAME, negligible=NEGLIGIBLE_IN_FLOAT32)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
def test_packed_sequences_are_classified_as_separate_ones(pooling):
    config = replace(CONFIG, classifier_pooling=pooling, num_labels=3)
    model = BertForSequenceClassification(config)
    weights = jax.tree.map(jnp.asarray, small.draw(unflatten(leaf_shapes(config, parts_of(type(model), config)))))
    rows = {name: values[:1] for name, values in batch().items()}
    apply = jax.jit(partial(model.apply, {"params": weights}))
    order = ("input_ids", "attention_mask", "token_type_ids", "position_ids")
    packed = apply(*(rows[name] for name in order), cls_positions=np.array([[0, 6]])).logits[0]
    for slot, part in enumerate((slice(0, 6), slice(6, 10))):
        alone = apply(rows["input_ids"][:, part]).logits[0]
        np.testing.assert_allclose(packed[slot], alone, atol=1e-4)


def test_kernels_are_refused_because_they_have_no_window():
    inputs = AttentionInputs(np.ones((1, 64), np.int32), packed=True)
    kernel, reason = choose_kernel("auto", CONFIG, inputs, platform="gpu")
    assert kernel is None
    assert "pallas has no local attention, which ModernBERT needs" in reason
    with pytest.raises(ValueError, match="`attention=pallas` has no local attention, which ModernBERT needs"):
        choose_kernel("pallas", CONFIG, inputs, platform="gpu")
    with pytest.raises(ValueError, match="kernel must be None for ModernBERT: pallas has no local attention"):
        jax.eval_shape(BertForMaskedLM(CONFIG, kernel="pallas").init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))


def test_kernels_that_add_to_the_hidden_states_start_smaller():
    config = replace(CONFIG, hidden_size=96, intermediate_size=400, num_hidden_layers=8)
    model = BertForSequenceClassification(config)
    params = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    encoder = params["encoder"]
    usual = np.std(encoder["feed_forward"]["up"]["kernel"])
    for kernel in (encoder["feed_forward"]["down"]["kernel"], encoder["attention"]["output"]["kernel"]):
        assert usual / np.std(kernel) == pytest.approx(4.0, rel=0.05)  # sqrt(2 L)
    assert np.std(params["classifier"]["kernel"]) == pytest.approx(96**-0.5, rel=0.2)
    assert "bias" not in encoder["attention"]["query"]
