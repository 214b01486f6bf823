"""Each sequence gets its own result once, from a few compiled shapes."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_jax.pipelines import batching
from bert_jax.pipelines.batching import Batcher, Encoded, row_lengths

LONGEST, BUDGET = 100, 256  # batches of 4 x 64, 2 x 96 and 2 x 100


def report(params, batch):
    """Describes each sequence from its own tokens only; at its position, or at each of its tokens."""
    mask = batch["attention_mask"]
    same = (mask[:, :, None] == mask[:, None, :]) & (mask > 0)[:, None, :]
    found = {
        "sum": jnp.where(same, batch["input_ids"][:, None, :], 0).sum(axis=2),
        "length": same.sum(axis=2),
        "second": jnp.where(same, batch["token_type_ids"][:, None, :], 0).sum(axis=2),
        "position": batch["position_ids"],
    }
    if "positions" not in batch:
        return found
    return {name: jnp.take_along_axis(each, batch["positions"], axis=1) for name, each in found.items()}


def encoded(length, position=0):
    return Encoded(np.arange(1, length + 1, dtype=np.int32), length - length // 3, position)


def batcher(**options):
    return Batcher(report, None, **{"max_length": LONGEST, "batch_tokens": BUDGET, **options})


def shapes(batcher, lengths):
    return [batch["input_ids"].shape for _, batch in batcher.batches(enumerate(map(encoded, lengths)))]


SHARED = batcher()


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(1, LONGEST), st.booleans()), max_size=60), st.integers(0, 99))
def test_each_sequence_gets_its_own_result_once(given, position):
    sequences = [encoded(length, None if everywhere else position % length) for length, everywhere in given]
    found = dict(SHARED.run(enumerate(sequences)))
    assert sorted(found) == list(range(len(given)))
    for number, (length, everywhere) in enumerate(given):
        want = {"sum": length * (length + 1) // 2, "length": length, "second": length // 3}
        positions = np.arange(length) if everywhere else np.array([position % length])
        assert found[number].pop("position").tolist() == positions.tolist()
        for name, values in found[number].items():
            assert values.tolist() == [want[name]] * len(positions)


def test_short_sequences_share_rows():
    lengths = np.random.default_rng(0).integers(5, 50, 400)
    tokens = sum(rows * length for rows, length in shapes(batcher(), lengths))
    assert lengths.sum() <= tokens < 1.05 * lengths.sum()


def test_a_length_is_compiled_once_for_many_rows_and_once_for_one():
    batcher_ = batcher()
    for lengths in ([3] * 90, [64] * 5, [3], [90, 91, 92, 60], list(range(1, LONGEST + 1)), [99] * 7, [16], [33]):
        list(batcher_.run(enumerate(map(encoded, lengths))))
    assert {rows for rows, _ in batcher_.compilations} == {1, 2, 4}
    assert {length for _, length in batcher_.compilations} <= set(row_lengths(LONGEST))
    assert set(batcher_.compilations.values()) == {1}


def test_compilations_are_counted_by_shape():
    def function(params, batch, *, scale):
        return batch["positions"] + scale

    batcher_ = Batcher(function, None, max_length=LONGEST)
    for scale in (2, 3, 2):
        assert [found.tolist() for _, found in batcher_.run([(0, encoded(5))], scale=scale)] == [[scale]]
    assert batcher_.compilations == {(1, 16): 2}


def test_array_options_do_not_compile_again():
    def function(params, batch, *, wanted):
        return batch["positions"] + wanted[None, :]

    batcher_ = Batcher(function, None, max_length=LONGEST)
    for number in (2, 3):
        found = batcher_.run([(0, encoded(5))], {"wanted": np.array([number])})
        assert [result.tolist() for _, result in found] == [[number]]
    assert batcher_.compilations == {(1, 16): 1}


def test_the_rest_runs_as_single_rows_or_one_batch_whichever_is_less_work():
    # A batch of one row costs as much as 20 tokens here, a full one 320.
    few = batcher(max_length=24, batch_tokens=320)
    assert shapes(few, [24] * 12) == [(1, 24)] * 12
    assert shapes(few, [24] * 13) == [(13, 24)]
    assert shapes(few, [24] * 15) == [(13, 24), (1, 24), (1, 24)]
    # Rows alone are no longer than they must be.
    assert shapes(batcher(), [9, 5]) == [(1, 16)]
    assert shapes(batcher(), [60, 30]) == [(1, 64), (1, 32)]


def test_no_more_sequences_are_read_than_a_pool_holds():
    read = []
    sequences = ((number, encoded(64)) for number in range(1000) if read.append(number) is None)
    next(SHARED.run(sequences))
    pool = BUDGET * (len(row_lengths(LONGEST)) + batching.POOL_BATCHES) // 64
    assert len(read) == pool


def test_a_pool_always_makes_a_full_batch():
    batcher_ = batcher(max_length=512, batch_tokens=1024)
    random, pools = np.random.default_rng(0), []
    lengths = random.integers(1, 513, 2000)
    make_batches = batcher_.make_batches

    def watched(pool, *, last):
        left = yield from make_batches(pool, last=last)
        if not last:
            pools.append((len(pool), len(left)))
        return left

    batcher_.make_batches = watched
    assert shapes(batcher_, lengths)
    assert all(left < held for held, left in pools)
    assert len(pools) < 200


def test_row_lengths_are_few_and_end_with_the_longest():
    assert row_lengths(512) == (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
    assert row_lengths(5) == (5,)
    assert row_lengths(16) == (16,)


def test_a_budget_of_no_tokens_is_an_error():
    with pytest.raises(ValueError, match="`batch_tokens` must be at least 1, got 0"):
        batcher(batch_tokens=0)
