"""Runs of sentences tile the corpus in every pass, each within one document and one row."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from token_stores import store_of

from bert_jax.data.pretraining import sequence_planning
from bert_jax.data.pretraining.sequence_planning import plan_sequences
from bert_jax.data.pretraining.sequences import sequence_lengths

LENGTHS = st.lists(st.lists(st.integers(1, 31), min_size=1, max_size=13), min_size=1, max_size=11)


def corpus(documents):
    """Returns a store of documents given the number of tokens of their sentences."""
    return store_of([[[7] * length for length in document] for document in documents])


def plan(documents, max_length=23, pass_number=0, seed=7, **options):
    options = {"objective": "mlm", "max_length": max_length, "seed": seed, "pass_number": pass_number, **options}
    return np.concatenate([*plan_sequences(corpus(documents), **options)])


def borders(runs):
    return [*runs["a_start"].tolist(), int(runs["a_start"][-1] + runs["a_length"][-1])]


@given(LENGTHS, st.integers(3, 41), st.sampled_from([0.0, 0.3, 1.0]), st.integers(0, 5))
def test_every_token_is_in_exactly_one_run_which_fits_a_row_and_a_document(documents, max_length, short, number):
    runs = plan(documents, max_length, number, short_probability=short)
    tokens = np.concatenate([np.arange(start, start + length) for start, length in runs[["a_start", "a_length"]]])
    assert tokens.tolist() == list(range(sum(map(sum, documents))))
    assert sequence_lengths(runs).max() <= max_length
    assert not runs["b_length"].any()
    assert not runs["label"].any()
    assert set(np.cumsum([sum(document) for document in documents])) <= set(borders(runs))


@given(LENGTHS, st.integers(3, 41), st.integers(0, 5))
def test_only_sentences_longer_than_a_row_are_cut(documents, max_length, number):
    ends = np.cumsum([length for document in documents for length in document])
    for cut in set(borders(plan(documents, max_length, number, short_probability=0.5))[1:]) - set(ends.tolist()):
        sentence = np.searchsorted(ends, cut)
        assert ends[sentence] - (ends[sentence - 1] if sentence else 0) > max_length - 2


def test_runs_are_as_long_as_the_borders_of_sentences_permit():
    """After the first run of a document, which aims at a random length."""
    document = [5, 3, 4, 6, 2, 9, 1, 1, 8, 3] * 13
    ends = np.cumsum(document)
    for number in range(5):
        starts = borders(plan([document], 14, number, short_probability=0.0))
        for start, stop in itertools.pairwise(starts[1:]):
            assert stop == ends[ends <= start + 12].max()


def test_borders_move_from_pass_to_pass():
    document = [2] * 97
    found = [set(borders(plan([document], 23, number, short_probability=0.0))[1:-1]) for number in range(60)]
    assert len(set(map(frozenset, found))) == 10  # a row holds ten sentences
    assert set.union(*found) == set(range(2, 194, 2))  # each border is one in some pass


def test_borders_within_a_long_sentence_move_too():
    found = {cut for number in range(60) for cut in borders(plan([[97]], 23, number, short_probability=0.0))}
    assert len(found) > 60


def test_a_document_that_fits_into_a_row_is_one_run():
    documents = [[5, 4], [21], [1], [7, 7, 7]]
    for number in range(5):
        assert plan(documents, 23, number, short_probability=0.0)["a_length"].tolist() == [9, 21, 1, 21]


def test_some_documents_get_shorter_runs():
    documents = [[1] * 97] * 101
    lengths = [plan(documents, short_probability=short)["a_length"] for short in (0.0, 0.3, 1.0)]
    means = [length.mean() for length in lengths]
    assert means[0] > means[1] > means[2]
    assert max(length.max() for length in lengths) == 21


def test_the_plan_depends_on_seed_pass_and_block_alone(monkeypatch):
    documents = [[3, 1, 4, 1, 5, 9, 2, 6] * 5] * 23
    first = plan(documents)
    np.testing.assert_array_equal(first, plan(documents))
    for other in (plan(documents, seed=8), plan(documents, pass_number=1)):
        assert not np.array_equal(first, other)
    monkeypatch.setattr(sequence_planning, "BLOCK_DOCUMENTS", 7)
    in_blocks = plan(documents)
    np.testing.assert_array_equal(plan(documents[:7]), in_blocks[in_blocks["a_start"] < 7 * sum(documents[0])])


def test_one_document_is_enough_and_a_row_of_one_token_too():
    assert plan([[2, 1]], 3)["a_length"].tolist() == [1, 1, 1]
    with pytest.raises(
        ValueError, match=r"`max_length` must be at least 3 to hold a token between \[CLS\] and \[SEP\]"
    ):
        plan([[2, 1]], 2)
