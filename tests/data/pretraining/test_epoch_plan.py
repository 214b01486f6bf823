"""The plan of a pass holds each planned pair once, in rows that real documents fill."""

import csv
from pathlib import Path

import numpy as np
import pytest
from token_stores import store_of

from bert_jax.data.packing import slots_per_row
from bert_jax.data.pretraining import sequence_planning
from bert_jax.data.pretraining.epoch_plan import plan_rows
from bert_jax.data.pretraining.sequence_planning import plan_sequences
from bert_jax.data.pretraining.sequences import sequence_lengths
from bert_jax.data.readers.movie_reviews import movie_reviews
from bert_jax.text.sentences import split_sentences

SST2 = Path(__file__).parents[4] / "shared/data/sst2/train.tsv"
T, SLOTS, FULL = 41, 5, 0.98


def random_store(documents=53):
    draw = np.random.default_rng(0)
    return store_of([[[7] * draw.integers(1, 31) for _ in range(draw.integers(1, 13))] for _ in range(documents)])


STORE = random_store()


def plan(slots=SLOTS, pass_number=0, seed=7, store=STORE, **options):
    return plan_rows(
        store, objective="mlm-nsp", max_length=T, slots=slots, seed=seed, pass_number=pass_number, **options
    )


def rows_of(plan):
    return [plan.take(np.array([row]))[0] for row in range(len(plan))]


def test_rows_hold_the_pairs_of_the_plan_each_once(monkeypatch):
    monkeypatch.setattr(sequence_planning, "BLOCK_DOCUMENTS", 7)
    planned = np.concatenate([*plan_sequences(STORE, objective="mlm-nsp", max_length=T, seed=7, pass_number=0)])
    np.testing.assert_array_equal(plan(slots=1).sequences, planned)
    packed = rows_of(plan())
    np.testing.assert_array_equal(np.sort(np.concatenate(packed)), np.sort(planned))
    assert max(sequence_lengths(row).sum() for row in packed) <= T
    assert 1 < max(map(len, packed)) <= SLOTS
    assert len(packed) < len(planned)


def test_rows_are_taken_in_any_order():
    whole = plan()
    found, in_row = whole.take(np.array([5, 2, 5]))
    rows = rows_of(whole)
    np.testing.assert_array_equal(found, np.concatenate([rows[5], rows[2], rows[5]]))
    assert in_row.tolist() == [len(rows[5]), len(rows[2]), len(rows[5])]


def test_pairs_share_rows_at_random_in_each_pass():
    """All pairs have the same length here, so only the random order decides which ones share a row."""
    store = store_of([[[7] * 8]] * 31)
    runs = [
        plan(store=store, pass_number=n, seed=seed).sequences["a_start"] for n, seed in [(0, 7), (0, 7), (1, 7), (0, 8)]
    ]
    np.testing.assert_array_equal(runs[0], runs[1])
    assert len({run.tobytes() for run in runs}) == 3
    assert np.abs(np.diff(runs[0])).mean() > 3 * 8  # neighbours in a row are not neighbours in the corpus


@pytest.mark.parametrize("slots", [1, SLOTS])
def test_a_plan_on_disk_equals_one_in_memory_and_leaves_no_files(tmp_path, monkeypatch, slots):
    monkeypatch.setattr(sequence_planning, "BLOCK_DOCUMENTS", 7)
    mapped, held = plan(slots, cache_dir=tmp_path / "cache"), plan(slots)
    assert isinstance(mapped.sequences, np.memmap)
    assert isinstance(mapped.offsets, np.memmap)
    np.testing.assert_array_equal(mapped.sequences, held.sequences)
    np.testing.assert_array_equal(mapped.offsets, held.offsets)
    assert not [*(tmp_path / "cache").iterdir()]


@pytest.fixture(scope="module", params=["reviews", "sst2"])
def real(request, tmp_path_factory):
    """Documents as lists of the number of words of each sentence, which is close to the number of tokens."""
    if request.param == "reviews":
        texts = movie_reviews(tmp_path_factory.mktemp("cache"))[::9]["text"]
    elif SST2.exists():
        with SST2.open(encoding="utf-8", newline="") as file:
            texts = [row["sentence"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    else:
        pytest.skip(f"{SST2} is not there")
    return store_of([[[7] * len(sentence.split()) for sentence in split_sentences(text)] for text in texts])


@pytest.mark.parametrize("max_length", [128, 512])
def test_real_documents_fill_their_rows(real, max_length):
    slots = slots_per_row(max_length)
    found = plan_rows(real, objective="mlm-nsp", max_length=max_length, slots=slots, seed=0, pass_number=0)
    assert sequence_lengths(found.sequences).sum() >= FULL * max_length * len(found)
