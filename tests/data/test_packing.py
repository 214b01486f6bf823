"""Packing puts each sequence once in few rows, and scatters values to where the sequences are."""

from bisect import bisect_left

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_jax.data.packing import PackedRows, members, pack, slots_per_row


def tokens_in_rows(row_of, lengths):
    return np.bincount(row_of, weights=lengths).astype(int)


def row_length_for(longest, row_lengths):
    return row_lengths[bisect_left(row_lengths, longest)]


@settings(max_examples=60)
@given(st.lists(st.integers(1, 29), max_size=60), st.integers(1, 7), st.sampled_from([(29,), (17, 23, 29)]))
def test_each_sequence_has_one_row_and_no_row_overflows(lengths, slots, row_lengths):
    rows = members(pack(lengths, row_lengths, slots=slots))
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    for row in rows:
        tokens = [lengths[index] for index in row]
        assert sum(tokens) <= row_length_for(max(tokens), row_lengths)
        assert 1 <= len(row) <= slots


@settings(max_examples=60)
@given(st.lists(st.integers(1, 29), min_size=1, max_size=60), st.integers(1, 7), st.sampled_from([(29,), (17, 23, 29)]))
def test_rows_are_those_of_placing_sequences_one_by_one(lengths, slots, row_lengths):
    rows = []  # [tokens left, slots left]
    for length in sorted(lengths, reverse=True):
        fitting = [row for row in rows if row[0] >= length and row[1]]
        row = min(fitting) if fitting else [row_length_for(length, row_lengths), slots]
        if not fitting:
            rows.append(row)
        row[0] -= length
        row[1] -= 1
    left = []
    for row in members(pack(lengths, row_lengths, slots=slots)):
        tokens = [lengths[index] for index in row]
        left.append([row_length_for(max(tokens), row_lengths) - sum(tokens), slots - len(tokens)])
    assert sorted(left) == sorted(rows)


def test_complementary_lengths_fill_rows_completely():
    lengths = np.random.default_rng(0).permutation(np.concatenate([np.arange(1, 64), 64 - np.arange(1, 64)]))
    assert set(tokens_in_rows(pack(lengths, 64, slots=4), lengths)) == {64}


def test_short_sequences_fill_up_the_rows_of_long_ones():
    lengths = [20, 44, 20, 20, 20, 70, 26, 30]
    assert sorted(members(pack(lengths, (64, 96), slots=8))) == [[0, 1], [2, 7], [3, 4], [5, 6]]


def test_sequences_of_equal_length_are_placed_in_order():
    assert members(pack([5, 5, 7, 5, 5], 10, slots=2)) == [[2], [0, 1], [3, 4]]
    assert members(pack([], 10, slots=2)) == []


@pytest.mark.parametrize("length", [0, 11])
def test_a_sequence_that_fits_no_row_is_an_error(length):
    with pytest.raises(ValueError, match=f"a sequence of {length} tokens does not fit a row of 10"):
        pack([3, length], 10, slots=2)


@pytest.mark.parametrize(("row_length", "S"), [(512, 32), (128, 8), (19, 2)])
def test_longer_rows_have_more_slots(row_length, S):
    assert slots_per_row(row_length) == S


def test_the_example_of_the_documentation():
    assert pack([5, 3, 4], 9, slots=2).tolist() == [0, 1, 0]
    inputs = PackedRows(np.array([5, 4, 3]), np.array([2, 1]), row_length=9, slots=2).model_inputs(np.array([2, 4, 3]))
    assert {name: values.tolist() for name, values in inputs.items()} == {
        "attention_mask": [[1, 1, 1, 1, 1, 2, 2, 2, 2], [1, 1, 1, 0, 0, 0, 0, 0, 0]],
        "token_type_ids": [[0, 0, 1, 1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0, 0, 0, 0]],
        "position_ids": [[0, 1, 2, 3, 4, 0, 1, 2, 3], [0, 1, 2, 0, 0, 0, 0, 0, 0]],
        "cls_positions": [[0, 5], [0, 0]],
    }


def test_values_are_scattered_to_where_their_sequences_are():
    """Compares with writing one sequence after another, in rows of which one is empty."""
    random = np.random.default_rng(1)
    in_row, B, T, S = np.array([3, 1, 0, 2, 4]), 5, 31, 5
    N = in_row.sum()
    lengths = random.integers(2, 8, N)
    segment_b = random.integers(1, lengths + 1)
    tokens = random.integers(1, 9, lengths.sum())
    labels = random.normal(size=(N, 3)).astype(np.float32)
    wanted = {name: np.zeros((B, T), int) for name in ("attention_mask", "token_type_ids", "position_ids", "tokens")}
    wanted |= {"cls_positions": np.zeros((B, S), int), "labels": np.zeros((B, S, 3), np.float32)}
    wanted["tokens"] -= 1
    n = 0
    for row, count in enumerate(in_row):
        end = 0
        for slot in range(count):
            here = slice(end, end + lengths[n])
            wanted["attention_mask"][row, here] = slot + 1
            wanted["position_ids"][row, here] = np.arange(lengths[n])
            wanted["token_type_ids"][row, here] = np.arange(lengths[n]) >= segment_b[n]
            wanted["tokens"][row, here] = tokens[lengths[:n].sum() : lengths[: n + 1].sum()]
            wanted["cls_positions"][row, slot] = end
            wanted["labels"][row, slot] = labels[n]
            end += lengths[n]
            n += 1
    rows = PackedRows(lengths, in_row, row_length=T, slots=S)
    inputs = rows.model_inputs(segment_b)
    found = {"tokens": rows.scatter_tokens(tokens, -1), "labels": rows.scatter_sequences(labels)} | inputs
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)
    assert {values.dtype.name for values in inputs.values()} == {"int32"}


def test_there_may_be_no_rows():
    nothing = np.zeros(0, int)
    inputs = PackedRows(nothing, nothing, row_length=7, slots=2).model_inputs(nothing)
    assert {name: values.shape for name, values in inputs.items()} == {
        "attention_mask": (0, 7), "token_type_ids": (0, 7), "position_ids": (0, 7), "cls_positions": (0, 2),
    }  # fmt: skip
