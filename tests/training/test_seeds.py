"""Several seeds as one program: each learns what it learns alone, and its best evaluation is tracked."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pretraining_batches import CONFIG

from bert_jax.models import BertForSequenceClassification
from bert_jax.training.objectives import classification
from bert_jax.training.optimizers import Depth, make_optimizer, make_schedule
from bert_jax.training.seeds import SeedEnsemble, Selection
from bert_jax.training.state import TrainState, run_key
from bert_jax.training.steps import prediction_step, train_step

SAME_AFTER_STEPS = 2e-5
SEEDS, STEPS, B, T, S = (3, 5, 7), 4, 6, 11, 2
MODEL = BertForSequenceClassification(replace(CONFIG, hidden_dropout_prob=0.2, num_labels=3))
OBJECTIVE = classification(MODEL, problem_type="single_label_classification")
PARTS = {"embeddings", "encoder", "pooler", "classifier"}
TRAINED = frozenset(PARTS - {"embeddings"})
ENSEMBLE = SeedEnsemble(SEEDS, TRAINED)
# Epsilon keeps Adam from making steps of rounding errors.
OPTIMIZER = make_optimizer("bert_adamw", make_schedule("constant", peak=1e-3, warmup_steps=0, decay_steps=9))
STEP = partial(train_step, objective=OBJECTIVE, optimizer=OPTIMIZER, skip=True)


def batch(seed, step):
    random = np.random.default_rng((seed, step))
    return {
        "input_ids": random.integers(4, CONFIG.vocab_size, (B, T)).astype(np.int32),
        "attention_mask": np.repeat([[1] * 5 + [2] * 6], B, axis=0).astype(np.int32),
        "token_type_ids": np.zeros((B, T), np.int32),
        "position_ids": np.repeat([[*range(5), *range(6)]], B, axis=0).astype(np.int32),
        "cls_positions": np.repeat([[0, 5]], B, axis=0).astype(np.int32),
        "labels": random.integers(3, size=(B, S)).astype(np.int32),
        "weights": np.ones((B, S), np.float32),
    }


def parameters(seed):
    return jax.jit(MODEL.init)(jax.random.key(seed), jnp.zeros((1, 2), jnp.int32))["params"]


def stacked(trees):
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


@pytest.fixture(scope="module")
def trained():
    """Parameters of three seeds after some steps together; the embeddings are frozen and shared."""
    frozen = {"embeddings": parameters(0)["embeddings"]}
    learning = [{name: part for name, part in parameters(seed).items() if name != "embeddings"} for seed in SEEDS]
    together = ENSEMBLE.create(stacked(learning), OPTIMIZER, frozen=frozen)
    step, metrics = jax.jit(ENSEMBLE.step(STEP)), []
    for number in range(STEPS):
        together, row = step(together, ENSEMBLE.stack_batches([batch(seed, number) for seed in SEEDS]))
        metrics.append(row)
    return frozen, learning, together, metrics


def test_each_seed_learns_what_it_learns_alone_with_dropout(trained):
    frozen, learning, together, metrics = trained
    step = jax.jit(STEP)
    for place, seed in enumerate(SEEDS):
        state = TrainState.create(learning[place], OPTIMIZER, key=run_key(jax.random.key(seed)), frozen=frozen)
        for number in range(STEPS):
            state, row = step(state, batch(seed, number))
            np.testing.assert_allclose(metrics[number]["loss"][place], row["loss"], rtol=SAME_AFTER_STEPS)
        alone, one = state.params, ENSEMBLE.select(together.params, place)
        jax.tree.map(partial(np.testing.assert_allclose, atol=SAME_AFTER_STEPS), one, alone)
    assert together.step == STEPS
    losses = np.array([row["loss"] for row in metrics])
    assert len(set(losses[0].tolist())) == len(SEEDS)


def test_one_seed_with_the_hardware_generator_is_an_ordinary_training(trained):
    frozen, learning, _, _ = trained
    ensemble = SeedEnsemble(SEEDS[:1], TRAINED)
    state = ensemble.create(stacked(learning[:1]), OPTIMIZER, frozen=frozen, random_bits="rbg")
    assert str(jax.random.key_impl(state.key)) == "rbg"
    given = batch(SEEDS[0], 0)
    after, metrics = jax.jit(ensemble.step(STEP))(state, ensemble.stack_batches([given]))
    alone = TrainState.create(learning[0], OPTIMIZER, key=run_key(jax.random.key(SEEDS[0]), "rbg"), frozen=frozen)
    wanted, row = jax.jit(STEP)(alone, given)
    np.testing.assert_allclose(metrics["loss"], [row["loss"]], rtol=SAME_AFTER_STEPS)
    one = ensemble.select(after.params, 0)
    jax.tree.map(partial(np.testing.assert_allclose, atol=SAME_AFTER_STEPS), one, wanted.params)
    assert row["loss"] != trained[3][0]["loss"][0]  # other masks


def test_a_skipped_update_of_one_seed_does_not_affect_the_others(trained):
    frozen, learning, _, _ = trained
    state = ENSEMBLE.create(stacked(learning), OPTIMIZER, frozen=frozen)
    batches = [batch(seed, 0) for seed in SEEDS]
    batches[1]["weights"] = batches[1]["weights"] * np.float32(np.nan)
    after, metrics = jax.jit(ENSEMBLE.step(STEP))(state, ENSEMBLE.stack_batches(batches))
    assert metrics["skipped"].tolist() == [0, 1, 0]
    moved = jnp.abs(after.params["pooler"]["kernel"] - state.params["pooler"]["kernel"]).max(axis=(1, 2)) > 0
    assert moved.tolist() == [True, False, True]


def test_all_seeds_are_evaluated_on_the_same_batch(trained):
    frozen, _, together, _ = trained
    asked = batch(1, 1)
    answer = ENSEMBLE.evaluate(partial(prediction_step, objective=OBJECTIVE))
    answers, _ = jax.jit(answer)({**frozen, **together.params}, asked)
    assert answers["logits"].shape == (len(SEEDS), B, S, 3)
    one = ENSEMBLE.select({**frozen, **together.params}, 2)
    alone, _ = jax.jit(partial(prediction_step, objective=OBJECTIVE))(one, asked)
    np.testing.assert_allclose(answers["logits"][2], alone["logits"], atol=SAME_AFTER_STEPS)


def select(selection, values):
    return [selection.improved(step, {"eval_f1": np.array(row)}).tolist() for step, row in enumerate(values, 1)]


def test_the_best_evaluation_of_each_seed_is_tracked():
    selection = Selection("eval_f1", 2)
    found = select(selection, [(0.1, 0.5), (0.3, 0.4), (0.3, 0.6), (0.2, 0.1)])
    assert found == [[True, True], [True, False], [False, True], [False, False]]
    assert selection.best.tolist() == [0.3, 0.6]
    assert selection.step.tolist() == [2, 3]
    assert not selection.done.any()


def test_evaluations_of_a_seed_without_patience_left_do_not_count():
    selection = Selection("eval_f1", 2, patience=2)
    select(selection, [(0.5, 0.1), (0.4, 0.2), (0.5, 0.3), (0.9, 0.4)])
    assert selection.done.tolist() == [True, False]
    assert selection.best.tolist() == [0.5, 0.4]
    select(selection, [(0.9, 0.0), (0.9, 0.0)])
    assert selection.done.all()
    assert selection.step.tolist() == [1, 4]


def test_nan_is_never_the_best():
    selection = Selection("eval_f1", 2, patience=2)
    assert select(selection, [(np.nan, 0.1), (np.nan, np.nan)]) == [[False, True], [False, False]]
    assert selection.best.tolist() == [-np.inf, 0.1]
    assert selection.done.tolist() == [True, False]


@pytest.mark.parametrize(
    ("frozen", "decay", "wanted"),
    [(None, 0.5, [0.125, 0.25, 0.5, 1.0]), (0, 0.5, [0, 0.25, 0.5, 1]), (1, 1.0, [0, 0, 1, 1]), (2, 1.0, [0, 0, 0, 1])],
)
def test_learning_rates_decay_from_the_head_to_the_embeddings(frozen, decay, wanted):
    """Adam's first step is the rate, and weight decay leaves frozen layers alone too."""
    params = {
        "embeddings": {"word": {"embedding": jnp.ones((5, 2))}},
        "encoder": {"up": {"kernel": jnp.ones((2, 3, 3))}},
        "classifier": {"kernel": jnp.ones((3, 2))},
    }
    schedule = make_schedule("constant", peak=0.1, warmup_steps=0, decay_steps=9)
    optimizer = make_optimizer("adamw", schedule, weight_decay=0.1, clip_norm=None, depth=Depth(2, decay, frozen))
    updates, _ = optimizer.update(params, optimizer.init(params), params)
    found = [updates["embeddings"]["word"]["embedding"], *updates["encoder"]["up"]["kernel"]]
    sizes = [-float(np.unique(np.round(leaf, 6)).item()) for leaf in [*found, updates["classifier"]["kernel"]]]
    np.testing.assert_allclose(sizes, [0.1 * 1.1 * factor for factor in wanted], rtol=1e-4)
