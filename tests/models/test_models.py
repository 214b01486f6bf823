"""Properties of the whole model: padding, packing, scanning and rematerialization do not change results."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_bert as small
from gradient_checks import NEGLIGIBLE_IN_FLOAT32, assert_leaves_agree

from bert_jax import models
from bert_jax.interop.heads import init_parts
from bert_jax.training.objectives import pretraining

CONFIG = small.config(
    hidden_act="gelu_new",
)
EXACT = 1e-6
RELATIVE = 1e-5
B, T, P = 3, 7, 3


@pytest.fixture(scope="module")
def model():
    return models.BertForPreTraining(CONFIG)


@pytest.fixture(scope="module")
def params(model):
    return jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]


@pytest.fixture(scope="module")
def forward(model):
    return jax.jit(lambda params, **inputs: model.apply({"params": params}, **inputs))


def rows(lengths, width=T, seed=1):
    """A batch with one sequence per row, padded to `width`."""
    random = np.random.default_rng(seed)
    size = len(lengths)
    mask = (np.arange(width)[None, :] < np.array(lengths)[:, None]).astype(np.int32)
    return {
        "input_ids": random.integers(5, small.V, (size, width)) * mask,
        "token_type_ids": random.integers(0, 2, (size, width)) * mask,
        "attention_mask": mask,
        "position_ids": np.arange(width)[None, :] * mask,
    }


def labelled(batch, positions):
    size = len(batch["input_ids"])
    random = np.random.default_rng(2)
    return batch | {
        "masked_positions": np.array(positions),
        "masked_labels": random.integers(5, small.V, (size, P)),
        "masked_weights": np.ones((size, P), np.float32),
        "cls_positions": np.zeros((size, 1), np.int32),
        "next_sentence_labels": random.integers(0, 2, (size, 1)),
        "next_sentence_weights": np.ones((size, 1), np.float32),
    }


def loss_and_gradients(model, params, batch, key=None):
    def loss(params, batch):
        measures = pretraining(model).loss_and_metrics(params, batch, key)
        return sum(total / weight for total, weight in (measures["masked_lm_loss"], measures["next_sentence_loss"]))

    return jax.jit(jax.value_and_grad(loss))(params, batch)


@pytest.fixture(scope="module")
def batch():
    return labelled(rows([7, 5, 3]), [[1, 2, 3], [4, 2, 1], [0, 1, 2]])


@pytest.fixture(scope="module")
def dropped(model, params, batch):
    return loss_and_gradients(model, params, batch, jax.random.key(5))


def test_padding_receives_no_gradient(model, params, batch):
    """Padding has its own position here: its embedding is looked up, but receives no gradient."""
    apart = batch | {"position_ids": np.where(batch["attention_mask"] == 1, batch["position_ids"], 9)}
    gradient = np.asarray(loss_and_gradients(model, params, apart)[1]["embeddings"]["position"]["embedding"])
    assert np.abs(gradient[:T]).max(axis=1).min() > 0
    assert not gradient[T:].any()


def test_ids_at_padding_change_nothing(forward, params, batch):
    inputs = {name: batch[name] for name in ("token_type_ids", "attention_mask", "position_ids")}
    real = batch["attention_mask"] == 1
    other = np.where(real, batch["input_ids"], 17)
    one, two = (forward(params, input_ids=ids, **inputs) for ids in (batch["input_ids"], other))
    np.testing.assert_array_equal(np.asarray(one.last_hidden_state)[real], np.asarray(two.last_hidden_state)[real])


def test_packed_rows_equal_separate_rows(forward, params):
    lengths = (4, 3)
    separate = rows(lengths)
    packed = {name: np.concatenate([separate[name][i, :n] for i, n in enumerate(lengths)])[None] for name in separate}
    packed["attention_mask"] = np.repeat([1, 2], lengths)[None]
    alone = forward(params, **separate, cls_positions=np.zeros((2, 1), np.int32))
    together = forward(params, **packed, cls_positions=np.array([[0, 4]]))
    for row, (start, length) in enumerate(((0, 4), (4, 3))):
        np.testing.assert_allclose(
            together.last_hidden_state[0, start : start + length], alone.last_hidden_state[row, :length], atol=EXACT
        )
        np.testing.assert_allclose(
            together.seq_relationship_logits[0, row], alone.seq_relationship_logits[row, 0], atol=EXACT
        )


def test_sequences_of_a_packed_row_do_not_leak(forward, params):
    packed = rows([7])
    packed["attention_mask"] = np.array([[1, 1, 1, 1, 2, 2, 2]])
    changed = packed | {"input_ids": packed["input_ids"].copy()}
    changed["input_ids"][0, 5] = (changed["input_ids"][0, 5] + 1) % small.V
    one, two = (np.asarray(forward(params, **inputs).last_hidden_state) for inputs in (packed, changed))
    np.testing.assert_array_equal(one[0, :4], two[0, :4])
    assert np.abs(one[0, 4:] - two[0, 4:]).min(axis=-1).max() > 0


@pytest.mark.parametrize(
    "options", [{"unroll": small.L}, {"remat": "dots"}, {"unroll": small.L, "remat": "full"}], ids=str
)
def test_remat_and_unroll_change_nothing(params, batch, dropped, options):
    """Scanned or unrolled, rematerialized or stored: same loss, gradients and dropout masks."""
    other = loss_and_gradients(models.BertForPreTraining(CONFIG, **options), params, batch, jax.random.key(5))
    for got, wanted in zip(other, dropped, strict=True):
        assert_leaves_agree(got, wanted, RELATIVE, negligible=NEGLIGIBLE_IN_FLOAT32)


def test_remat_recomputes_matrix_products(params, batch):
    """The option has an effect: the backward pass of a rematerialized layer has more matrix products."""

    def products(remat):
        model = models.BertForPreTraining(CONFIG, remat=remat)

        def loss(params):
            return pretraining(model).loss_and_metrics(params, batch, None)["masked_lm_loss"][0]

        return str(jax.make_jaxpr(jax.grad(loss))(params)).count("dot_general")

    assert products("full") > products("dots") > products("none")
    assert products("auto") == products("dots")


@pytest.mark.parametrize(("unroll", "barriers"), [(1, False), (small.L, True)])
def test_recomputation_is_kept_where_xla_could_replace_it_by_stored_results(params, batch, unroll, barriers):
    model = models.BertForPreTraining(CONFIG, remat="full", unroll=unroll)

    def loss(params):
        return pretraining(model).loss_and_metrics(params, batch, None)["masked_lm_loss"][0]

    assert ("optimization_barrier" in jax.jit(jax.grad(loss)).lower(params).as_text()) == barriers


def test_masked_positions_select_from_the_logits_of_all_tokens(forward, params, batch):
    inputs = {name: batch[name] for name in ("input_ids", "token_type_ids", "attention_mask", "position_ids")}
    everywhere = forward(params, **inputs).prediction_logits
    picked = forward(params, **inputs, masked_positions=batch["masked_positions"]).prediction_logits
    assert everywhere.shape == (B, T, small.V)
    np.testing.assert_allclose(
        picked, np.take_along_axis(np.asarray(everywhere), batch["masked_positions"][..., None], axis=1), atol=EXACT
    )


def test_hidden_states_and_attentions_of_all_layers_are_returned(model, params):
    inputs = rows([7, 5])
    outputs = model.apply({"params": params}, **inputs, output_hidden_states=True, output_attentions=True)
    assert len(outputs.hidden_states) == small.L + 1
    assert len(outputs.attentions) == small.L
    np.testing.assert_array_equal(outputs.hidden_states[-1], outputs.last_hidden_state)
    for weights in outputs.attentions:
        assert weights.shape == (2, small.N, 7, 7)
        np.testing.assert_allclose(weights.sum(axis=-1), 1.0, atol=EXACT)
        assert not np.asarray(weights)[1, :, :5, 5:].any()


def test_dropout_is_determined_by_its_key(model, params, batch):
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}

    @jax.jit
    def run(key):
        return model.apply({"params": params}, **inputs, rngs={"dropout": key}).last_hidden_state

    one, again, other = run(jax.random.key(1)), run(jax.random.key(1)), run(jax.random.key(2))
    np.testing.assert_array_equal(one, again)
    assert jnp.abs(one - other).max() > 0.01


def test_bfloat16_computes_in_bfloat16_with_float32_parameters(params, forward, batch):
    config = dataclasses.replace(CONFIG, dtype="bfloat16")
    model = models.BertForPreTraining(config)
    fresh = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    assert {leaf.dtype for leaf in jax.tree.leaves(fresh)} == {jnp.dtype("float32")}
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    low = model.apply({"params": params}, **inputs)
    assert low.last_hidden_state.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        low.last_hidden_state.astype(jnp.float32), forward(params, **inputs).last_hidden_state, atol=0.1
    )


@pytest.mark.parametrize(
    ("name", "answers"),
    [
        ("PreTraining", ("prediction_logits", "seq_relationship_logits")),
        ("TokenClassification", ("logits",)),
        ("QuestionAnswering", ("start_logits", "end_logits")),
    ],
)
def test_logits_of_a_bfloat16_model_are_not_rounded(name, answers, batch):
    model = getattr(models, f"BertFor{name}")(dataclasses.replace(CONFIG, dtype="bfloat16"))
    variables = model.init(jax.random.key(0), batch["input_ids"])
    outputs = model.apply(variables, batch["input_ids"], batch["attention_mask"])
    for logits in map(outputs.get, answers):
        assert logits.dtype == jnp.float32
        assert (logits != logits.astype(jnp.bfloat16).astype(jnp.float32)).mean() > 0.9


def test_sinusoidal_positions_have_no_table_and_no_maximum():
    config = dataclasses.replace(CONFIG, position_embedding_type="sinusoidal")
    model = models.Bert(config)
    ids = np.full((1, small.POSITIONS + 2), 7)
    variables = model.init(jax.random.key(0), ids)
    assert "position" not in variables["params"]["embeddings"]
    states = np.asarray(model.apply(variables, ids).last_hidden_state)[0]
    assert np.abs(np.diff(states, axis=0)).max(axis=1).min() > 1e-4  # the same word differs between positions


def test_rows_beyond_the_position_table_are_refused(model, params):
    with pytest.raises(ValueError, match=r"rows of 12 tokens exceed max_position_embeddings 11"):
        model.apply({"params": params}, np.ones((1, 12), np.int32))


def test_multiple_choice_scores_each_choice_independently():
    model = models.BertForMultipleChoice(dataclasses.replace(CONFIG, num_labels=1))
    ids = np.random.default_rng(0).integers(5, small.V, (2, 3, T))
    variables = model.init(jax.random.key(0), ids)
    logits = model.apply(variables, ids).logits
    assert logits.shape == (2, 3)
    np.testing.assert_allclose(model.apply(variables, ids[:, 1:2]).logits[:, 0], logits[:, 1], atol=EXACT)


def test_fine_tuning_heads_start_from_an_untruncated_normal_distribution():
    config = dataclasses.replace(CONFIG, hidden_size=510, num_labels=64, initializer_range=0.05)
    drawn = init_parts(config, {"pooler", "classifier", "span"}, "float32", seed=3)
    pooler, classifier, span = (np.asarray(drawn[part]["kernel"]) for part in ("pooler", "classifier", "span"))
    assert np.abs(pooler).max() <= 0.1  # two standard deviations
    assert pooler.std() == pytest.approx(0.88 * 0.05, rel=0.01)
    assert np.abs(classifier).max() > 0.15
    assert classifier.std() == pytest.approx(0.05, rel=0.02)
    assert np.abs(span).max() > 0.15
    assert not any(part["bias"].any() for part in drawn.values())


def test_logical_axes_cover_every_leaf_and_refuse_unknown_ones(params):
    axes = models.logical_axes(params)
    jax.tree.map(lambda leaf, names: None if len(names) == leaf.ndim else pytest.fail(str(names)), params, axes)
    with pytest.raises(KeyError, match="embeddings/colour"):
        models.logical_axes({"embeddings": {"colour": np.zeros(3)}})


def test_an_unknown_output_is_refused_with_the_names_of_the_known(forward, params):
    with pytest.raises(AttributeError, match=r"last_hidden_state.*not logits"):
        _ = forward(params, input_ids=np.ones((1, 3), np.int32)).logits
