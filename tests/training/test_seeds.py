"""Several seeds as one program: each as if it were alone, and the best of each kept."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pretraining_batches import CONFIG

from bert_jax.models import BertForSequenceClassification
from bert_jax.training import seeds
from bert_jax.training.objectives import classification
from bert_jax.training.optimizers import Depth, make_optimizer, make_schedule
from bert_jax.training.state import TrainState, run_key
from bert_jax.training.steps import prediction_step, train_step

SAME_AFTER_STEPS = 2e-5
SEEDS, STEPS, B, T, S = (3, 5, 7), 4, 6, 11, 2
MODEL = BertForSequenceClassification(replace(CONFIG, hidden_dropout_prob=0.2, num_labels=3))
OBJECTIVE = classification(MODEL, problem_type="single_label_classification")
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
    """Parameters of the three seeds after some steps together; the embeddings, which do not learn, are one."""
    frozen = {"embeddings": parameters(0)["embeddings"]}
    learning = [{name: part for name, part in parameters(seed).items() if name != "embeddings"} for seed in SEEDS]
    together = seeds.create(stacked(learning), OPTIMIZER, seeds=SEEDS, frozen=frozen)
    step, figures = jax.jit(seeds.together(STEP)), []
    for number in range(STEPS):
        batches = [batch(seed, number) for seed in SEEDS]
        together, row = step(together, {name: np.stack([one[name] for one in batches], 1) for name in batches[0]})
        figures.append(row)
    return frozen, learning, together, figures


def test_each_seed_is_as_if_it_were_alone_with_dropout(trained):
    frozen, learning, together, figures = trained
    step = jax.jit(STEP)
    for place, seed in enumerate(SEEDS):
        state = TrainState.create(learning[place], OPTIMIZER, key=run_key(jax.random.key(seed)), frozen=frozen)
        for number in range(STEPS):
            state, row = step(state, batch(seed, number))
            np.testing.assert_allclose(figures[number]["loss"][place], row["loss"], rtol=SAME_AFTER_STEPS)
        alone, one = state.params, seeds.of_seed(together.params, set(together.params), place)
        jax.tree.map(partial(np.testing.assert_allclose, atol=SAME_AFTER_STEPS), one, alone)
    assert together.step == STEPS
    losses = np.array([row["loss"] for row in figures])
    assert len(set(losses[0].tolist())) == len(SEEDS)


def test_one_seed_by_the_other_generator_is_as_if_there_were_no_others(trained):
    frozen, learning, _, _ = trained
    state = seeds.create(stacked(learning[:1]), OPTIMIZER, seeds=SEEDS[:1], frozen=frozen, random_bits="rbg")
    assert str(jax.random.key_impl(state.key)) == "rbg"
    given = batch(SEEDS[0], 0)
    after, figures = jax.jit(seeds.together(STEP))(state, {name: x[:, None] for name, x in given.items()})
    alone = TrainState.create(learning[0], OPTIMIZER, key=run_key(jax.random.key(SEEDS[0]), "rbg"), frozen=frozen)
    wanted, row = jax.jit(STEP)(alone, given)
    np.testing.assert_allclose(figures["loss"], [row["loss"]], rtol=SAME_AFTER_STEPS)
    one = seeds.of_seed(after.params, set(after.params), 0)
    jax.tree.map(partial(np.testing.assert_allclose, atol=SAME_AFTER_STEPS), one, wanted.params)
    assert row["loss"] != trained[3][0]["loss"][0]  # other masks


def test_a_seed_whose_update_is_skipped_does_not_hold_up_the_others(trained):
    frozen, learning, _, _ = trained
    state = seeds.create(stacked(learning), OPTIMIZER, seeds=SEEDS, frozen=frozen)
    batches = [batch(seed, 0) for seed in SEEDS]
    batches[1]["weights"] = batches[1]["weights"] * np.float32(np.nan)
    joined = {name: np.stack([one[name] for one in batches], 1) for name in batches[0]}
    after, figures = jax.jit(seeds.together(STEP))(state, joined)
    assert figures["skipped"].tolist() == [0, 1, 0]
    moved = jnp.abs(after.params["pooler"]["kernel"] - state.params["pooler"]["kernel"]).max(axis=(1, 2)) > 0
    assert moved.tolist() == [True, False, True]


def test_all_seeds_answer_the_same_question(trained):
    frozen, _, together, _ = trained
    asked = batch(1, 1)
    answer = seeds.answers_of_all(partial(prediction_step, objective=OBJECTIVE), set(together.params))
    answers, _ = jax.jit(answer)({**frozen, **together.params}, asked)
    assert answers["logits"].shape == (len(SEEDS), B, S, 3)
    one = {**frozen, **seeds.of_seed(together.params, set(together.params), 2)}
    alone, _ = jax.jit(partial(prediction_step, objective=OBJECTIVE))(one, asked)
    np.testing.assert_allclose(answers["logits"][2], alone["logits"], atol=SAME_AFTER_STEPS)


def select(selection, values):
    return [selection.improved(step, {"eval_f1": np.array(row)}).tolist() for step, row in enumerate(values, 1)]


def test_each_seed_keeps_its_own_best():
    selection = seeds.Selection("eval_f1", 2)
    found = select(selection, [(0.1, 0.5), (0.3, 0.4), (0.3, 0.6), (0.2, 0.1)])
    assert found == [[True, True], [True, False], [False, True], [False, False]]
    assert selection.best.tolist() == [0.3, 0.6]
    assert selection.step.tolist() == [2, 3]
    assert not selection.done.any()


def test_patience_ends_a_seed_and_what_comes_after_does_not_count():
    selection = seeds.Selection("eval_f1", 2, patience=2)
    select(selection, [(0.5, 0.1), (0.4, 0.2), (0.5, 0.3), (0.9, 0.4)])
    assert selection.done.tolist() == [True, False]
    assert selection.best.tolist() == [0.5, 0.4]
    select(selection, [(0.9, 0.0), (0.9, 0.0)])
    assert selection.done.all()
    assert selection.step.tolist() == [1, 4]


def test_what_is_no_number_is_never_the_best():
    selection = seeds.Selection("eval_f1", 2, patience=2)
    assert select(selection, [(np.nan, 0.1), (np.nan, np.nan)]) == [[False, True], [False, False]]
    assert selection.best.tolist() == [-np.inf, 0.1]
    assert selection.done.tolist() == [True, False]


@pytest.mark.parametrize(
    ("frozen", "decay", "wanted"),
    [(None, 0.5, [0.125, 0.25, 0.5, 1.0]), (0, 0.5, [0, 0.25, 0.5, 1]), (1, 1.0, [0, 0, 1, 1]), (2, 1.0, [0, 0, 0, 1])],
)
def test_rates_fall_from_the_head_to_the_embeddings(frozen, decay, wanted):
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
