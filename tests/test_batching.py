"""Whatever rows come in, each comes out once with its own result, from a few compiled shapes."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_jax.pipelines.batching import Batcher, Row, bucket_lengths

LONGEST, BUDGET = 37, 64  # batches of 4 x 16, 2 x 24, 2 x 32 and 1 x 37


def report(params, batch):
    """What a row was, seen through its padding."""
    inside = jnp.arange(batch.ids.shape[1])[None, :] < batch.lengths[:, None]
    return {"sum": jnp.where(inside, batch.ids, 0).sum(axis=1), "length": batch.lengths, "second": batch.second}


def row(length, places=0):
    return Row(np.arange(1, length + 1, dtype=np.int32), length // 2, np.arange(places, dtype=np.int32))


SHARED = Batcher(report, None, max_length=LONGEST, batch_tokens=BUDGET)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, LONGEST), max_size=40))
def test_each_row_comes_out_once_with_its_own_result(lengths):
    found = dict(SHARED.run(enumerate(map(row, lengths))))
    assert sorted(found) == list(range(len(lengths)))
    for number, length in enumerate(lengths):
        result = {name: int(value) for name, value in found[number].items()}
        assert result == {"sum": length * (length + 1) // 2, "length": length, "second": length // 2}


def test_a_bucket_is_compiled_once_for_many_rows_and_once_for_one():
    batcher = Batcher(report, None, max_length=LONGEST, batch_tokens=BUDGET)
    for lengths in ([3] * 9, [16] * 5, [3], [17, 20, 32, 24], list(range(1, LONGEST + 1)), [30] * 7, [LONGEST] * 7):
        list(batcher.run(enumerate(map(row, lengths))))
    shapes = {(4, 16), (1, 16), (2, 24), (1, 24), (2, 32), (1, 32), (1, LONGEST)}
    assert {shape[:2] for shape in batcher.compilations} == shapes
    assert set(batcher.compilations.values()) == {1}


def test_the_counter_counts():
    batcher = Batcher(lambda params, batch, scale: batch.lengths * scale, None, max_length=LONGEST)
    for scale in (2, 3, 2):
        assert [int(found) for _, found in batcher.run([(0, row(5))], scale=scale)] == [5 * scale]
    assert batcher.compilations == {(1, 16, 0): 2}


def test_a_row_is_asked_at_one_place_or_at_any():
    batcher = Batcher(lambda params, batch: batch.places, None, max_length=LONGEST, batch_tokens=BUDGET)
    found = dict(batcher.run(enumerate(row(9, places) for places in (0, 1, 2, 5))))
    assert [len(found[number]) for number in range(4)] == [0, 1, 16, 16]
    assert found[3][:5].tolist() == [0, 1, 2, 3, 4]


def test_what_is_left_goes_by_itself_or_filled_up_whichever_is_less_work():
    batcher = Batcher(report, None, max_length=LONGEST, batch_tokens=20 * 16)

    def sizes(count):
        return [len(batch.ids) for _, batch in batcher.batches(enumerate([row(7)] * count))]

    # A batch of one costs as much as 20 tokens here, a full one 320.
    assert sizes(15) == [1] * 15
    assert sizes(16) == [20]
    assert sizes(43) == [20, 20, 1, 1, 1]


def test_rows_are_read_one_batch_ahead_and_no_further():
    read = []
    rows = ((number, row(5)) for number in range(100) if read.append(number) is None)
    results = Batcher(report, None, max_length=LONGEST, batch_tokens=BUDGET).run(rows)
    tag, _ = next(results)
    assert (tag, len(read)) == (0, 8)


def test_buckets_are_few_and_end_with_the_longest():
    assert bucket_lengths(512) == (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
    assert bucket_lengths(5) == (5,)
    assert bucket_lengths(16) == (16,)


def test_a_budget_of_nothing_is_refused():
    with pytest.raises(ValueError, match="batch_tokens must be at least 1, got 0"):
        Batcher(report, None, max_length=LONGEST, batch_tokens=0)
