import dataclasses
import itertools

import numpy as np
import pytest

from bert_jax.data.loader import PretrainingSettings, Rows, evaluation_batches, training_batches
from bert_jax.data.masking import Vocabulary
from bert_jax.data.pairs import plan_pairs
from bert_jax.data.store import TokenStore

PAD, UNK, CLS, SEP, MASK = 17, 6, 29, 3, 11
SPECIAL = np.array([PAD, UNK, CLS, SEP, MASK], np.int32)
ORDINARY = np.setdiff1d(np.arange(37), SPECIAL)
VOCABULARY = Vocabulary(37, PAD, CLS, SEP, MASK, SPECIAL, np.isin(np.arange(37), ORDINARY[ORDINARY % 3 == 0]))
SETTINGS = PretrainingSettings(max_length=19, seed=5)


def random_store(documents=31, sentences=13, tokens=11, ids=ORDINARY):
    draw = np.random.default_rng(2)
    return TokenStore.from_documents(
        [
            [draw.choice(ids, draw.integers(1, tokens)) for _ in range(draw.integers(1, sentences))]
            for _ in range(documents)
        ]
    )


STORE = random_store()
ROWS = Rows(STORE, VOCABULARY, SETTINGS)


def train(count, settings=SETTINGS, store=STORE, **options):
    with training_batches(store, VOCABULARY, settings, **{"batch_size": 6, **options}) as batches:
        return list(itertools.islice(batches, count))


def evaluate(settings=SETTINGS, **options):
    with evaluation_batches(STORE, VOCABULARY, settings, **{"batch_size": 6, **options}) as batches:
        return list(batches)


def joined(batches):
    return {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}


def assert_same(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name in ours:
        np.testing.assert_array_equal(ours[name], theirs[name], err_msg=name, strict=True)


def unmasked(batch):
    """The ids before masking."""
    ids = batch["input_ids"].copy()
    row, slot = np.nonzero(batch["masked_weights"])
    ids[row, batch["masked_positions"][row, slot]] = batch["masked_labels"][row, slot]
    return ids


def test_a_batch_has_the_documented_arrays():
    (batch,) = train(1, dataclasses.replace(SETTINGS, max_predictions=4))
    found = {name: (values.shape, values.dtype.name) for name, values in batch.items()}
    whole, slots, single = (6, 19), (6, 4), (6, 1)
    assert found == {
        "input_ids": (whole, "int32"),
        "token_type_ids": (whole, "int32"),
        "attention_mask": (whole, "int32"),
        "position_ids": (whole, "int32"),
        "masked_positions": (slots, "int32"),
        "masked_labels": (slots, "int32"),
        "masked_weights": (slots, "float32"),
        "cls_positions": (single, "int32"),
        "next_sentence_labels": (single, "int32"),
        "next_sentence_weights": (single, "float32"),
    }


def test_a_row_is_cls_a_sep_b_sep_and_padding():
    batch = joined(train(29))
    pairs = ROWS.pairs(np.arange(29 * 6))
    ids, masked = unmasked(batch), (batch["input_ids"] == MASK).any(axis=1)
    assert masked.mean() > 0.5
    for row, (a_start, b_start, a, b, label) in enumerate(pairs.tolist()):
        padding = 19 - a - b - 3
        tokens = [CLS, *STORE.span(a_start, a), SEP, *STORE.span(b_start, b), SEP, *[PAD] * padding]
        assert ids[row].tolist() == tokens
        assert batch["token_type_ids"][row].tolist() == [0] * (a + 2) + [1] * (b + 1) + [0] * padding
        assert batch["attention_mask"][row].tolist() == [1] * (a + b + 3) + [0] * padding
        assert batch["position_ids"][row].tolist() == [*range(a + b + 3), *[0] * padding]
        assert batch["next_sentence_labels"][row] == label
    assert not batch["cls_positions"].any()
    assert batch["next_sentence_weights"].all()


def test_the_same_seed_gives_the_same_batches_and_another_seed_others():
    first = joined(train(7))
    assert_same(first, joined(train(7)))
    other = joined(train(7, dataclasses.replace(SETTINGS, seed=6)))
    assert not np.array_equal(unmasked(first), unmasked(other))


def test_each_setting_of_masking_counts():
    first = joined(train(7))
    for name, value in [("masked_share", 0.4), ("whole_word_masking", True)]:
        other = joined(train(7, dataclasses.replace(SETTINGS, **{name: value})))
        np.testing.assert_array_equal(unmasked(first), unmasked(other))
        assert not np.array_equal(first["input_ids"], other["input_ids"])


def test_a_row_does_not_depend_on_the_batch_size():
    assert_same(joined(train(14)), joined(train(12, batch_size=7)))


def test_training_resumes_at_any_row():
    with training_batches(STORE, VOCABULARY, SETTINGS, batch_size=6) as batches:
        assert batches.state() == {"row": 0}
        read = list(itertools.islice(batches, 5))
        state, rest = batches.state(), list(itertools.islice(batches, 60))
    assert state == {"row": 30}
    assert batches.rows_per_pass < 65 * 6  # the second pass is reached
    assert_same(joined(rest), joined(train(60, start_row=state["row"])))
    assert_same(
        {name: values[2:] for name, values in joined(read).items()}, joined(train(4, start_row=2, batch_size=7))
    )


def test_slices_of_the_processes_make_up_the_global_batch():
    slices = [train(9, process_index=index, process_count=3) for index in range(3)]
    for batch, parts in zip(train(9), zip(*slices, strict=True), strict=True):
        assert_same(batch, joined(parts))


@pytest.mark.parametrize("num_workers", [1, 2, 3])
def test_worker_processes_make_the_same_batches(num_workers, tmp_path):
    batches = training_batches(
        STORE, VOCABULARY, SETTINGS, batch_size=6, start_row=3, num_workers=num_workers, cache_dir=tmp_path
    )
    with batches:
        found = [next(batches) for _ in range(7)]
        assert batches.state() == {"row": 45}
    assert {type(values) for values in found[0].values()} == {np.ndarray}
    assert_same(joined(found), joined(train(7, start_row=3)))


def test_a_pass_shows_every_pair_once():
    plan = plan_pairs(STORE, max_length=19, seed=5, pass_number=0)
    assert ROWS.per_pass == len(plan)
    shown = ROWS.pairs(np.arange(len(plan)))
    assert not np.array_equal(shown, plan)
    np.testing.assert_array_equal(np.sort(shown), np.sort(plan))


def test_later_passes_are_made_of_plans_of_their_own():
    sizes = set()
    for number in range(1, 7):
        plan = plan_pairs(STORE, max_length=19, seed=5, pass_number=number)
        shown = ROWS.pairs(ROWS.per_pass * number + np.arange(ROWS.per_pass))
        # Pairs are all different here, so as many are shown as there are rows, or pairs.
        assert len(np.unique(shown)) == min(len(plan), ROWS.per_pass)
        assert np.isin(shown, plan).all()
        sizes.add(np.sign(len(plan) - ROWS.per_pass))
    assert {-1, 1} <= sizes


def test_passes_and_seeds_have_orders_and_masks_of_their_own():
    documents = 29
    alike = TokenStore.from_documents([[[ORDINARY[0]] * 8]] * documents)  # so that pairs differ in nothing else
    first, other = (Rows(alike, VOCABULARY, dataclasses.replace(SETTINGS, seed=seed)) for seed in (5, 6))
    assert first.per_pass == documents
    rows = np.arange(documents)
    runs = [(first, rows), (first, rows + documents), (other, rows)]
    orders = {tuple(source.pairs(numbers)["a_start"].tolist()) for source, numbers in runs}
    masks = {source(numbers)["masked_positions"].tobytes() for source, numbers in runs}
    assert len(orders) == len(masks) == 3


def test_what_is_left_out_of_a_larger_pass_is_random():
    number = next(n for n in range(1, 9) if len(ROWS._pass(n)[0]) > ROWS.per_pass + 1)
    plan = ROWS._pass(number)[0]
    shown = ROWS.pairs(ROWS.per_pass * number + np.arange(ROWS.per_pass))
    missing = np.flatnonzero(~np.isin(plan, shown))
    assert missing.min() < ROWS.per_pass


@pytest.mark.parametrize("batch_size", [6, 7, 1000])
def test_evaluation_counts_every_pair_once(batch_size):
    batches = evaluate(batch_size=batch_size)
    assert len(batches) == -(-ROWS.per_pass // batch_size)
    assert {len(batch["input_ids"]) for batch in batches} == {batch_size}
    batch = joined(batches)
    real = batch["next_sentence_weights"][:, 0] == 1
    assert real.sum() == ROWS.per_pass
    assert_same({name: values[real] for name, values in batch.items()}, ROWS(np.arange(ROWS.per_pass)))
    assert (batch["input_ids"][~real] == PAD).all()
    for name in batch.keys() - {"input_ids"}:
        assert not batch[name][~real].any()


def test_evaluation_is_the_same_each_time_limited_or_sliced():
    whole = joined(evaluate(limit_rows=20))
    assert whole["next_sentence_weights"].sum() == 20
    assert_same(
        {name: values[:20] for name, values in whole.items()}, {n: v[:20] for n, v in joined(evaluate()).items()}
    )
    slices = [evaluate(limit_rows=20, process_index=index, process_count=3) for index in range(3)]
    assert len(slices[2]) == 4
    assert not slices[2][3]["attention_mask"].any()
    assert_same(whole, joined([joined(parts) for parts in zip(*slices, strict=True)]))


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_id_beyond_the_vocabulary_is_named(num_workers):
    store = random_store(ids=np.append(ORDINARY, 37))
    with pytest.raises(ValueError, match=r"token id 37 is beyond the vocabulary of 37 \(in the pair at tokens \d+"):
        train(20, store=store, num_workers=num_workers)


def test_batches_that_are_closed_end():
    batches = training_batches(STORE, VOCABULARY, SETTINGS, batch_size=6)
    next(batches)
    batches.close()
    batches.close()
    assert list(batches) == []
    assert batches.state() == {"row": 6}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 10, "process_count": 3}, "batch_size 10 is not divisible by process_count 3"),
        ({"batch_size": 0}, "batch_size must be at least 1, found 0"),
        ({"process_index": 2, "process_count": 2}, "process_index 2 is not one of 2 processes"),
        ({"start_row": -1}, "start_row must not be negative, found -1"),
        ({"num_workers": -1}, "num_workers must not be negative, found -1"),
        ({"store": random_store(1)}, "next-sentence prediction needs at least two documents, found 1"),
    ],
)
def test_what_cannot_be_loaded_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        train(1, **options)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("max_length", 4, "max_length must be at least 5 to hold a pair, found 4"),
        ("masked_share", 0.0, r"masked_share must lie in \(0, 1\], found 0.0"),
        ("max_predictions", 0, "max_predictions must be at least 1, found 0"),
        ("seed", -1, r"seed must lie in \[0, 2\*\*32\), found -1"),
    ],
)
def test_settings_out_of_range_are_refused(setting, value, message):
    with pytest.raises(ValueError, match=message):
        PretrainingSettings(**{setting: value})
    with pytest.raises(ValueError, match="limit_rows must be at least 1, found 0"):
        evaluate(limit_rows=0)
