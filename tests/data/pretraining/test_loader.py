import dataclasses
import hashlib
import itertools

import numpy as np
import pytest
from token_stores import store_of

from bert_jax.data.pretraining.epoch_plan import plan_rows
from bert_jax.data.pretraining.loader import BatchSettings, PretrainingRows, evaluation_batches, training_batches
from bert_jax.data.pretraining.masking import Vocabulary
from bert_jax.text.layout import Layout

PAD, UNK, CLS, SEP, MASK = 17, 6, 29, 3, 11
SPECIAL = np.array([PAD, UNK, CLS, SEP, MASK], np.int32)
ORDINARY = np.setdiff1d(np.arange(37), SPECIAL)
VOCABULARY = Vocabulary(
    37, PAD, MASK, Layout.bert(CLS, SEP), SPECIAL, np.isin(np.arange(37), ORDINARY[ORDINARY % 3 == 0])
)
SETTINGS = BatchSettings(max_length=19, packing=False, seed=5)


def random_store(documents=31, sentences=13, tokens=11, ids=ORDINARY):
    draw = np.random.default_rng(2)
    return store_of(
        [
            [draw.choice(ids, draw.integers(1, tokens)) for _ in range(draw.integers(1, sentences))]
            for _ in range(documents)
        ]
    )


STORE = random_store()
ROWS = PretrainingRows(STORE, VOCABULARY, SETTINGS)
PACKED = BatchSettings(max_length=67, short_probability=0.5, seed=5)
MLM = dataclasses.replace(SETTINGS, objective="mlm")
PACKED_MLM = dataclasses.replace(PACKED, objective="mlm")
NEXT_SENTENCE = {"cls_positions", "next_sentence_labels", "next_sentence_weights"}
EACH = pytest.mark.parametrize(
    "settings", [SETTINGS, PACKED, MLM, PACKED_MLM], ids=["single", "packed", "mlm", "packed-mlm"]
)


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
    """Returns the ids before masking."""
    ids = batch["input_ids"].copy()
    row, slot = np.nonzero(batch["masked_weights"])
    ids[row, batch["masked_positions"][row, slot]] = batch["masked_labels"][row, slot]
    return ids


def test_a_batch_has_the_documented_arrays():
    (batch,) = train(1, dataclasses.replace(SETTINGS, max_predictions=2))
    found = {name: (values.shape, values.dtype.name) for name, values in batch.items()}
    whole, slots, single = (6, 19), (6, 2), (6, 1)
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
    pairs, _ = ROWS.sequences(np.arange(29 * 6))
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


def test_a_packed_row_holds_several_pairs_each_masked_separately():
    batch, rows = joined(train(5, PACKED)), PretrainingRows(STORE, VOCABULARY, PACKED)
    pairs, in_row = rows.sequences(np.arange(5 * 6))
    assert batch["cls_positions"].shape == batch["next_sentence_weights"].shape == (30, PACKED.slots)
    assert in_row.max() > 1
    ids, remaining = unmasked(batch), iter(pairs.tolist())
    for row, count in enumerate(in_row.tolist()):
        end = 0
        for slot in range(count):
            a_start, b_start, a, b, label = next(remaining)
            here = slice(end, end + a + b + 3)
            assert ids[row, here].tolist() == [CLS, *STORE.span(a_start, a), SEP, *STORE.span(b_start, b), SEP]
            assert batch["token_type_ids"][row, here].tolist() == [0] * (a + 2) + [1] * (b + 1)
            assert (batch["attention_mask"][row, here] == slot + 1).all()
            assert batch["position_ids"][row, here].tolist() == [*range(a + b + 3)]
            assert batch["cls_positions"][row, slot] == end
            assert batch["next_sentence_labels"][row, slot] == label
            positions = batch["masked_positions"][row][batch["masked_weights"][row] == 1]
            asked = ((positions >= end) & (positions < here.stop)).sum()
            assert asked == max(1, round(0.15 * (a + b + 3)))
            end = here.stop
        assert (ids[row, end:] == PAD).all()
        for name in ("token_type_ids", "attention_mask", "position_ids"):
            assert not batch[name][row, end:].any()
        assert batch["next_sentence_weights"][row].tolist() == [1] * count + [0] * (PACKED.slots - count)


@pytest.mark.parametrize("settings", [MLM, PACKED_MLM], ids=["single", "packed"])
def test_without_next_sentences_a_sequence_is_cls_a_sep(settings):
    rows = PretrainingRows(STORE, VOCABULARY, settings)
    numbers = np.arange(rows.per_pass)
    sequences, in_row = rows.sequences(numbers)
    batch = rows(numbers)
    assert batch.keys() == rows(numbers[:1]).keys() == settings.blank(1).keys()
    assert batch.keys() == PretrainingRows(STORE, VOCABULARY, SETTINGS)(numbers[:1]).keys() - NEXT_SENTENCE
    assert not batch["token_type_ids"].any()
    assert (in_row.max() > 1) == settings.packing
    ids, remaining = unmasked(batch), iter(sequences.tolist())
    for row, count in enumerate(in_row.tolist()):
        runs = [next(remaining)[::2][:2] for _ in range(count)]  # start and length of A
        lengths = [length + 2 for _, length in runs]
        padding = settings.max_length - sum(lengths)
        tokens = [token for start, length in runs for token in (CLS, *STORE.span(start, length), SEP)]
        assert ids[row].tolist() == tokens + [PAD] * padding
        assert batch["attention_mask"][row].tolist() == [*np.repeat(np.arange(count) + 1, lengths), *[0] * padding]
        positions = [position for length in lengths for position in range(length)]
        assert batch["position_ids"][row].tolist() == positions + [0] * padding
        assert batch["masked_weights"][row].sum() == sum(max(1, round(0.15 * length)) for length in lengths)


@pytest.mark.parametrize("settings", [MLM, PACKED_MLM], ids=["single", "packed"])
def test_without_next_sentences_a_pass_shows_every_token_exactly_once(settings):
    rows = PretrainingRows(STORE, VOCABULARY, settings)
    ids = unmasked(rows(np.arange(rows.per_pass)))
    shown = np.bincount(ids.ravel(), minlength=37)
    shown[[PAD, CLS, SEP]] = 0
    np.testing.assert_array_equal(shown, np.bincount(STORE.span(0, STORE.num_tokens), minlength=37))
    for number in range(5):
        plan = rows._pass(number).sequences
        assert plan["a_length"].sum() == STORE.num_tokens
        assert len(np.unique(plan["a_start"])) == len(plan)


def test_a_row_has_slots_for_the_predictions_of_the_shortest_runs():
    """Seven runs of 3 tokens with a prediction each, more than a tenth, and one of 107 tokens fill a row."""
    store = store_of([[[ORDINARY[0]]]] * 7 + [[ORDINARY[[0, 1, 2] * 35]]])
    rows = PretrainingRows(store, VOCABULARY, BatchSettings(masked_share=0.1, short_probability=0.0, objective="mlm"))
    batch = rows(np.arange(1))
    assert rows.per_pass == 1
    assert batch["attention_mask"].min() == 1
    assert batch["masked_weights"].sum() == 7 + 11


def test_packing_shows_every_pair_of_a_pass_once_in_fewer_rows():
    rows = PretrainingRows(STORE, VOCABULARY, PACKED)
    shown, _ = rows.sequences(np.arange(rows.per_pass))
    single = PretrainingRows(STORE, VOCABULARY, dataclasses.replace(PACKED, packing=False))
    plan, _ = single.sequences(np.arange(single.per_pass))
    np.testing.assert_array_equal(np.sort(shown), np.sort(plan))
    assert rows.per_pass < 0.7 * single.per_pass


def test_max_predictions_limits_each_pair():
    batch = joined(train(5, dataclasses.replace(PACKED, max_predictions=2)))
    rows = np.arange(30)[:, None]
    owner = batch["attention_mask"][rows, batch["masked_positions"]] * (batch["masked_weights"] == 1)
    asked = [np.bincount(row, minlength=2)[1:] for row in owner]
    assert max(map(max, asked)) == 2
    assert max(row.sum() for row in asked) > 2


def test_the_seed_decides_the_batches():
    first = joined(train(7))
    assert_same(first, joined(train(7)))
    other = joined(train(7, dataclasses.replace(SETTINGS, seed=6)))
    assert not np.array_equal(unmasked(first), unmasked(other))


def test_each_masking_setting_has_an_effect():
    first = joined(train(7))
    for name, value in [("masked_share", 0.4), ("whole_word_masking", True)]:
        other = joined(train(7, dataclasses.replace(SETTINGS, **{name: value})))
        np.testing.assert_array_equal(unmasked(first), unmasked(other))
        assert not np.array_equal(first["input_ids"], other["input_ids"])


@pytest.mark.parametrize(
    ("settings", "digest"), [(SETTINGS, "b3479f99e869f957"), (PACKED, "38808986fb98759a")], ids=["single", "packed"]
)
def test_the_batches_of_a_seed_never_change(settings, digest):
    """A run may be resumed by a later version, which has to continue with the same rows, here of three passes."""
    rows = PretrainingRows(STORE, VOCABULARY, settings)
    found = hashlib.sha256()
    for name, values in sorted(rows(np.arange(3 * rows.per_pass)).items()):
        found.update(f"{name} {values.dtype} {values.shape}".encode() + values.tobytes())
    assert found.hexdigest()[:16] == digest


@EACH
def test_a_row_does_not_depend_on_the_batch_size(settings):
    assert_same(joined(train(14, settings)), joined(train(12, settings, batch_size=7)))


@EACH
def test_training_resumes_at_any_row(settings):
    with training_batches(STORE, VOCABULARY, settings, batch_size=6) as batches:
        assert batches.state() == {"row": 0}
        read = list(itertools.islice(batches, 5))
        state, rest = batches.state(), list(itertools.islice(batches, 60))
    assert state == {"row": 30}
    assert batches.rows_per_pass < 65 * 6  # the second pass is reached
    assert_same(joined(rest), joined(train(60, settings, start_row=state["row"])))
    assert_same(
        {name: values[2:] for name, values in joined(read).items()},
        joined(train(4, settings, start_row=2, batch_size=7)),
    )


@EACH
def test_the_slices_of_all_processes_are_the_global_batch(settings):
    slices = [train(9, settings, process_index=index, process_count=3) for index in range(3)]
    for batch, parts in zip(train(9, settings), zip(*slices, strict=True), strict=True):
        assert_same(batch, joined(parts))


@pytest.mark.parametrize(("settings", "num_workers"), [(SETTINGS, 1), (SETTINGS, 2), (PACKED, 3), (PACKED_MLM, 2)])
def test_worker_processes_make_the_same_batches(settings, num_workers, tmp_path):
    batches = training_batches(
        STORE, VOCABULARY, settings, batch_size=6, start_row=3, num_workers=num_workers, cache_dir=tmp_path
    )
    with batches:
        found = [next(batches) for _ in range(7)]
        assert batches.state() == {"row": 45}
    assert {type(values) for values in found[0].values()} == {np.ndarray}
    assert_same(joined(found), joined(train(7, settings, start_row=3)))


def test_a_pass_shows_every_pair_once():
    plan = plan_rows(STORE, objective="mlm-nsp", max_length=19, seed=5, pass_number=0).sequences
    assert ROWS.per_pass == len(plan)
    shown, _ = ROWS.sequences(np.arange(len(plan)))
    assert not np.array_equal(shown, plan)
    np.testing.assert_array_equal(np.sort(shown), np.sort(plan))


def test_each_pass_has_its_own_plan():
    sizes = set()
    for number in range(1, 7):
        plan = plan_rows(STORE, objective="mlm-nsp", max_length=19, seed=5, pass_number=number).sequences
        shown, _ = ROWS.sequences(ROWS.per_pass * number + np.arange(ROWS.per_pass))
        # Pairs are all different here, so as many are shown as there are rows, or pairs.
        assert len(np.unique(shown)) == min(len(plan), ROWS.per_pass)
        assert np.isin(shown, plan).all()
        sizes.add(np.sign(len(plan) - ROWS.per_pass))
    assert {-1, 1} <= sizes


def test_each_pass_and_seed_has_its_own_order_and_masks():
    documents = 29
    alike = store_of([[[ORDINARY[0]] * 8]] * documents)  # so that pairs differ in nothing else
    first, other = (PretrainingRows(alike, VOCABULARY, dataclasses.replace(SETTINGS, seed=seed)) for seed in (5, 6))
    assert first.per_pass == documents
    rows = np.arange(documents)
    runs = [(first, rows), (first, rows + documents), (other, rows)]
    orders = {tuple(source.sequences(numbers)[0]["a_start"].tolist()) for source, numbers in runs}
    masks = {source(numbers)["masked_positions"].tobytes() for source, numbers in runs}
    assert len(orders) == len(masks) == 3


def test_rows_left_out_of_a_larger_pass_are_random():
    number = next(n for n in range(1, 9) if len(ROWS._pass(n)) > ROWS.per_pass + 1)
    plan = ROWS._pass(number).sequences
    shown, _ = ROWS.sequences(ROWS.per_pass * number + np.arange(ROWS.per_pass))
    missing = np.flatnonzero(~np.isin(plan, shown))
    assert missing.min() < ROWS.per_pass


@EACH
@pytest.mark.parametrize("batch_size", [6, 7, 1000])
def test_evaluation_counts_every_sequence_once(settings, batch_size):
    rows = PretrainingRows(STORE, VOCABULARY, settings)
    batches = evaluate(settings, batch_size=batch_size)
    assert len(batches) == -(-rows.per_pass // batch_size)
    assert {len(batch["input_ids"]) for batch in batches} == {batch_size}
    batch = joined(batches)
    real = batch["attention_mask"][:, 0] == 1
    assert real.sum() == rows.per_pass
    assert_same({name: values[real] for name, values in batch.items()}, rows(np.arange(rows.per_pass)))
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
def test_the_error_names_an_id_that_is_not_in_the_vocabulary(num_workers):
    store = random_store(ids=np.append(ORDINARY, 37))
    with pytest.raises(ValueError, match=r"token id 37 is not in the vocabulary of 37 \(in the pair at tokens \d+"):
        train(20, store=store, num_workers=num_workers)


def test_closed_batches_end():
    batches = training_batches(STORE, VOCABULARY, SETTINGS, batch_size=6)
    next(batches)
    batches.close()
    batches.close()
    assert list(batches) == []
    assert batches.state() == {"row": 6}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 10, "process_count": 3}, "`batch_size` 10 is not divisible by 3 processes"),
        ({"batch_size": 0}, "`batch_size` must be at least 1, got 0"),
        ({"process_index": 2, "process_count": 2}, r"`process_index` must lie in \[0, 2\), got 2"),
        ({"start_row": -1}, "`start_row` must be at least 0, got -1"),
        ({"num_workers": -1}, "`num_workers` must be at least 0, got -1"),
        (
            {"store": random_store(1)},
            "next-sentence prediction needs at least two documents, got 1; `objective=mlm` needs one",
        ),
    ],
)
def test_impossible_arguments_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        train(1, **options)


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("max_length", 4, "`max_length` must be at least 5 to hold a sentence pair, got 4"),
        ("masked_share", 0.0, r"`masked_share` must lie in \(0, 1\], got 0.0"),
        ("max_predictions", 0, "`max_predictions` must be at least 1, got 0"),
        ("objective", "nsp", "`objective` must be mlm-nsp or mlm, got 'nsp'"),
        ("seed", -1, r"`seed` must lie in \[0, 2\*\*32\), got -1"),
    ],
)
def test_settings_out_of_range_are_errors(setting, value, message):
    with pytest.raises(ValueError, match=message):
        BatchSettings(**{setting: value})
    with pytest.raises(ValueError, match="`limit_rows` must be at least 1, got 0"):
        evaluate(limit_rows=0)
