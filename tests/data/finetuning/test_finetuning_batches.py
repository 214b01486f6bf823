"""Fine-tuning batches have each token at its position and each example once, and packing changes nothing."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pretraining_batches import CONFIG

from bert_jax import models
from bert_jax.data.finetuning.batches import BatchShape, Features, RowFormat, TrainingBatches, evaluation_batches
from bert_jax.data.finetuning.sequences import Sequences, offsets_of
from bert_jax.training import objectives

SAME_IN_FLOAT32 = 2e-5
PAD = 1
INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


def features(lengths, *, group=1, seed=0):
    """Sequences of random tokens, with targets of every kind."""
    random, lengths = np.random.default_rng(seed), np.asarray(lengths)
    n, tokens = len(lengths), int(lengths.sum())
    sequences = Sequences(
        random.integers(4, CONFIG.vocab_size, tokens).astype(np.int32),
        offsets_of(lengths),
        random.integers(1, lengths + 1).astype(np.int32),
    )
    return Features(
        sequences,
        {"labels": np.arange(n, dtype=np.int32) % 3, "weights": random.uniform(0.5, 2, n).astype(np.float32)},
        {"tags": np.arange(tokens, dtype=np.int32)},
        {"start_positions": random.integers(0, lengths).astype(np.int32)},
        group=group,
    )


def row_format(some, *, batch_size=4, packed=True, shards=1):
    return RowFormat.choose([some], batch_size=batch_size, packed=packed, pad_id=PAD, shards=shards)


@settings(max_examples=30)
@given(st.lists(st.integers(1, 13), min_size=1, max_size=12), st.integers(0, 99))
def test_a_batch_holds_each_token_and_target_at_its_position(lengths, seed):
    some = features(lengths, seed=seed)
    packing = RowFormat(29, 3, 1, PAD)
    rows = packing.assign_rows(some.sequences.lengths)
    batch, placement = packing.build(some, rows, BatchShape(len(rows) + 2, 29))
    assert sorted(placement.sequences.tolist()) == list(range(len(lengths)))
    seen = np.zeros((len(rows) + 2, 29), bool)
    for number, row, slot in zip(placement.sequences, placement.rows, placement.slots, strict=True):
        start = batch["cls_positions"][row, slot]
        here = slice(start, start + lengths[number])
        tokens = slice(some.sequences.offsets[number], some.sequences.offsets[number + 1])
        within = np.arange(lengths[number])
        assert not seen[row, here].any()
        seen[row, here] = True
        np.testing.assert_array_equal(batch["input_ids"][row, here], some.sequences.ids[tokens])
        np.testing.assert_array_equal(batch["tags"][row, here], some.of_tokens["tags"][tokens])
        np.testing.assert_array_equal(batch["position_ids"][row, here], within)
        np.testing.assert_array_equal(batch["token_type_ids"][row, here], within >= some.sequences.second[number])
        assert (batch["attention_mask"][row, here] == slot + 1).all()
        assert batch["labels"][row, slot] == some.of_sequences["labels"][number]
        assert batch["start_positions"][row, slot] - start == some.positions["start_positions"][number]
    assert (batch["input_ids"][~seen] == PAD).all()
    assert not batch["attention_mask"][~seen].any()
    taken = np.zeros((len(rows) + 2, 3), bool)
    taken[placement.rows, placement.slots] = True
    assert not batch["weights"][~taken].any()
    np.testing.assert_array_equal(batch["tags"][placement.token_rows, placement.token_columns], placement.tokens)


LENGTHS = np.random.default_rng(3).integers(3, 12, 23)


@pytest.mark.parametrize(("packed", "group"), [(True, 1), (False, 1), (False, 3)])
def test_every_example_is_trained_on_once_per_epoch(packed, group):
    some = features(np.random.default_rng(3).integers(3, 90, 23 * group), group=group)
    some.of_sequences["labels"] = np.repeat(np.arange(23, dtype=np.int32), group)
    batches = TrainingBatches(some, row_format(some, packed=packed), 4, 5)
    orders = []
    for epoch in range(2):
        first = epoch * batches.steps_per_epoch
        made = [batches(first + step) for step in range(batches.steps_per_epoch)]
        chosen = [batch["labels"][batch["weights"] > 0].tolist() for batch in made]
        assert sorted(number for numbers in chosen for number in numbers) == list(range(23))
        assert sorted(map(len, chosen)) == [3, 4, 4, 4, 4, 4]  # one batch has the rest
        orders.append([tuple(numbers) for numbers in chosen])
    assert orders[0] != orders[1]


@pytest.mark.parametrize(("packed", "group"), [(True, 1), (False, 1), (False, 3)])
def test_the_batch_of_the_rest_has_other_examples_in_each_epoch(packed, group):
    """Its few examples weigh more than others, so they must not be the longest ones every time."""
    some = features(np.repeat(np.arange(3, 3 + 33 * 7, 7), group), group=group)
    batches = TrainingBatches(some, row_format(some, batch_size=32, packed=packed), 32, 5)
    rests = []
    for epoch in range(40):
        chosen = [batches.sequences(2 * epoch + step)[::group] // group for step in (0, 1)]
        rests.append(int(min(chosen, key=len)[0]))
    assert len(set(rests)) > 15
    assert 10 < np.mean(rests) < 22  # of the lengths 0 to 32
    some = features(np.arange(3, 34))
    few = TrainingBatches(some, row_format(some, batch_size=32, packed=packed), 32, 5)  # less than one whole batch
    assert sorted(few.sequences(3).tolist()) == list(range(31))


@pytest.mark.parametrize("packed", [True, False])
def test_seeds_differ_in_their_examples_and_a_larger_shape_adds_only_padding(packed):
    some = features(np.random.default_rng(3).integers(3, 90, 31))
    one, other = (TrainingBatches(some, row_format(some, packed=packed), 4, seed) for seed in (7, 8))
    for index in range(2 * one.steps_per_epoch):
        rows = one.rows(index)
        shape = one.shape(rows)
        assert shape.row_length == other.shape(other.rows(index)).row_length
        batch, larger = one(index), one.build(rows, shape._replace(num_rows=shape.num_rows + 2))
        for name, values in batch.items():
            np.testing.assert_array_equal(larger[name][: len(values)], values, err_msg=name)
        assert not larger["attention_mask"][len(batch["labels"]) :].any()
        assert not larger["weights"][len(batch["labels"]) :].any()
        assert not np.array_equal(one.sequences(index), other.sequences(index))


@pytest.mark.parametrize("packed", [True, False])
def test_shapes_are_few(packed):
    lengths = np.random.default_rng(3).integers(3, 120, 400)
    some = features(lengths)
    batches = TrainingBatches(some, row_format(some, batch_size=16, packed=packed, shards=2), 16, 0)
    shapes = {batches(index)["input_ids"].shape for index in range(3 * batches.steps_per_epoch)}
    assert len(shapes) <= 4
    assert all(rows % 2 == 0 for rows, *_ in shapes)


def test_packing_leaves_little_padding():
    some = features(np.random.default_rng(3).integers(5, 60, 400))
    batches = TrainingBatches(some, row_format(some, batch_size=32), 32, 0)
    masks = [batches(index)["attention_mask"] != 0 for index in range(batches.steps_per_epoch - 1)]
    assert sum(mask.sum() for mask in masks) / sum(mask.size for mask in masks) > 0.86


def test_a_batch_of_the_rest_has_the_shape_of_a_whole_one():
    some = features(np.random.default_rng(3).integers(5, 60, 33))
    batches = TrainingBatches(some, row_format(some, batch_size=32), 32, 0)
    whole, rest = batches(0), batches(1)
    assert rest["weights"].astype(bool).sum() == 1
    assert rest["input_ids"].shape == whole["input_ids"].shape


def test_groups_fill_whole_shards():
    """Three choices on eight devices: each device has whole examples."""
    some = features(LENGTHS[:21], group=3)
    batches = TrainingBatches(some, row_format(some, batch_size=4, shards=8), 4, 0)
    assert batches(0)["input_ids"].shape[:2] == (8, 3)
    assert batches(0)["labels"].shape == (8,)


@pytest.mark.parametrize(("packed", "group"), [(True, 1), (False, 1), (False, 3)])
def test_an_evaluation_contains_every_sequence_once(packed, group):
    some = features(np.random.default_rng(3).integers(3, 90, 33), group=group)
    found = []
    for batch, placement in evaluation_batches(some, row_format(some, packed=packed), num_rows=6):
        assert len(batch["input_ids"]) == 6 // group
        found += placement.sequences.tolist()
    assert sorted(found) == list(range(33))
    if group > 1:  # choices stay together, in order
        assert all(found[i] % group == i % group for i in range(33))


def rows_alone_and_packed(some):
    """The same sequences, one per row and packed."""
    lengths = some.sequences.lengths
    single, packing = RowFormat(12, 1, 1, PAD), RowFormat(29, 4, 1, PAD)
    alone, _ = single.build(some, single.assign_rows(lengths), BatchShape(len(lengths), 12))
    rows = packing.assign_rows(lengths)
    assert max(map(len, rows)) > 2
    packed, placement = packing.build(some, rows, BatchShape(len(rows) + 1, 29))
    return alone, packed, placement


def losses(objective, batch):
    params = jax.jit(objective.model.init)(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]

    def loss(params):
        total, weight = objective.loss_and_metrics(params, batch, None)["loss"]
        return total / weight

    value, gradients = jax.jit(jax.value_and_grad(loss))(params)
    outputs = jax.jit(lambda params: objective.apply(params, batch, None))(params)
    return outputs, value, gradients


def assert_same_learning(one, two):
    np.testing.assert_allclose(one[1], two[1], rtol=SAME_IN_FLOAT32)
    for a, b in zip(jax.tree.leaves(one[2]), jax.tree.leaves(two[2]), strict=True):
        np.testing.assert_allclose(a, b, atol=SAME_IN_FLOAT32)


def test_packing_does_not_change_classification():
    some = features(LENGTHS)
    alone, packed, placement = rows_alone_and_packed(some)
    model = models.BertForSequenceClassification(replace(CONFIG, num_labels=3))
    objective = objectives.classification(model, problem_type="single_label_classification", smoothing=0.1)
    one, two = losses(objective, alone), losses(objective, packed)
    logits = np.asarray(two[0].logits)[placement.rows, placement.slots]
    np.testing.assert_allclose(logits, one[0].logits[placement.sequences, 0], atol=SAME_IN_FLOAT32)
    assert_same_learning(one, two)


def test_packing_does_not_change_tagging():
    some = features(LENGTHS)
    tokens = len(some.sequences.ids)
    targets = {"labels": np.arange(tokens, dtype=np.int32) % 3, "weights": np.arange(tokens) % 2 * np.float32(1)}
    alone, packed, placement = rows_alone_and_packed(Features(some.sequences, of_tokens=targets))
    objective = objectives.tagging(models.BertForTokenClassification(replace(CONFIG, num_labels=3)), smoothing=0.1)
    one, two = losses(objective, alone), losses(objective, packed)
    logits = np.zeros((tokens, 3), np.float32)
    logits[placement.tokens] = np.asarray(two[0].logits)[placement.token_rows, placement.token_columns]
    wanted = np.concatenate([row[:length] for row, length in zip(one[0].logits, LENGTHS, strict=True)])
    np.testing.assert_allclose(logits, wanted, atol=SAME_IN_FLOAT32)
    assert_same_learning(one, two)


def test_packing_does_not_change_question_answering():
    some = features(LENGTHS)
    positions = dict.fromkeys(("start_positions", "end_positions"), some.positions["start_positions"])
    weights = {"weights": some.of_sequences["weights"]}
    alone, packed, _ = rows_alone_and_packed(Features(some.sequences, weights, positions=positions))
    objective = objectives.question_answering(models.BertForQuestionAnswering(CONFIG))
    assert_same_learning(losses(objective, alone), losses(objective, packed))


def test_unused_slots_have_finite_metrics():
    """A slot without a sequence points at the first token, with weight 0."""
    some = features([5])
    batch, _ = RowFormat(29, 4, 1, PAD).build(some, [[0]], BatchShape(3, 29))
    batch["end_positions"] = batch["start_positions"]
    objective = objectives.question_answering(models.BertForQuestionAnswering(CONFIG))
    _, value, gradients = losses(objective, batch)
    assert np.isfinite(value)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradients))
