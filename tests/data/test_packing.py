"""Packing: each sequence once, in few rows, laid out so that each row says what its sequences say alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_jax.data.packing import Layout, assign_rows, enough_slots, pack


def tokens_of(row_of, lengths):
    return np.bincount(row_of, weights=lengths).astype(int)


@settings(max_examples=60)
@given(st.lists(st.integers(1, 29), max_size=60), st.integers(1, 7))
def test_each_sequence_has_one_row_and_rows_hold_what_they_may(lengths, slots):
    row_of = assign_rows(lengths, 29, slots=slots)
    assert row_of.shape == (len(lengths),)
    assert sorted(set(row_of.tolist())) == list(range(row_of.max(initial=-1) + 1))
    if lengths:
        assert tokens_of(row_of, lengths).max() <= 29
        assert np.bincount(row_of).max() <= slots


@settings(max_examples=60)
@given(st.lists(st.integers(1, 29), min_size=1, max_size=60), st.integers(1, 7))
def test_rows_are_those_of_best_fit_decreasing_one_by_one(lengths, slots):
    rows = []  # [tokens left, slots left]
    for length in sorted(lengths, reverse=True):
        fitting = [row for row in rows if row[0] >= length and row[1]]
        row = min(fitting) if fitting else [29, slots]
        if not fitting:
            rows.append(row)
        row[0], row[1] = row[0] - length, row[1] - 1
    row_of = assign_rows(lengths, 29, slots=slots)
    assert sorted(29 - tokens_of(row_of, lengths)) == sorted(row[0] for row in rows)


def test_complements_fill_rows():
    lengths = np.random.default_rng(0).permutation(np.concatenate([np.arange(1, 64), 64 - np.arange(1, 64)]))
    assert set(tokens_of(assign_rows(lengths, 64, slots=4), lengths)) == {64}


def test_among_equals_the_order_decides():
    assert pack([5, 5, 7, 5, 5], 10, slots=2) == [[2], [0, 1], [3, 4]]
    assert pack([], 10, slots=2) == []


@pytest.mark.parametrize("length", [0, 11])
def test_a_sequence_that_fits_no_row_is_refused(length):
    with pytest.raises(ValueError, match=f"a sequence of {length} tokens does not fit a row of 10"):
        pack([3, length], 10, slots=2)


@pytest.mark.parametrize(("max_length", "S"), [(512, 32), (128, 8), (19, 2)])
def test_slots_grow_with_the_row(max_length, S):
    assert enough_slots(max_length) == S


def test_a_layout_is_that_of_laying_one_after_another():
    random = np.random.default_rng(1)
    in_row, T, S = np.array([3, 1, 2, 4]), 31, 5
    lengths = random.integers(2, 8, in_row.sum())
    values, cut = random.integers(1, 9, in_row.sum()), random.integers(1, lengths)
    layout = Layout(lengths, in_row, row_length=T, slots=S)
    wanted = {name: np.zeros((4, T), int) for name in ("attention_mask", "position_ids", "values", "parts")}
    wanted |= {name: np.zeros((4, S), int) for name in ("cls_positions", "spread")}
    n = 0
    for row, count in enumerate(in_row):
        end = 0
        for slot in range(count):
            here = slice(end, end + lengths[n])
            wanted["attention_mask"][row, here] = slot + 1
            wanted["position_ids"][row, here] = np.arange(lengths[n])
            wanted["values"][row, here] = values[n]
            wanted["parts"][row, here] = np.where(np.arange(lengths[n]) < cut[n], 1, 2)
            wanted["cls_positions"][row, slot], wanted["spread"][row, slot] = end, values[n]
            end, n = end + lengths[n], n + 1
    parts = layout.fill(np.tile([1, 2], (len(lengths), 1)), np.stack([cut, lengths - cut], axis=1))
    found = layout.arrays() | {"values": layout.fill(values), "parts": parts, "spread": layout.spread(values)}
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name], err_msg=name)
    assert {values.dtype.name for values in layout.arrays().values()} == {"int32"}


def test_a_layout_may_have_no_rows():
    nothing = np.zeros(0, int)
    arrays = Layout(nothing, nothing, row_length=7, slots=2).arrays()
    assert {name: values.shape for name, values in arrays.items()} == {
        "attention_mask": (0, 7), "position_ids": (0, 7), "cls_positions": (0, 2),
    }  # fmt: skip
