import collections
import itertools
import math
import random

import numpy as np
import pytest
from scipy import stats
from token_stores import store_of

from bert_jax.data.pretraining import pair_planning, sequence_planning
from bert_jax.data.pretraining.sequence_planning import plan_sequences
from bert_jax.data.pretraining.sequences import SEQUENCE

SIGMAS = 5  # a fair draw strays further once in two million
P_VALUE = 1e-4


def corpus(*documents):
    """Returns documents with sentences of the given lengths; the id of each token is its offset in the corpus."""
    offset = itertools.count()
    return [[[next(offset) for _ in range(length)] for length in document] for document in documents]


def random_corpus(documents, sentences, tokens, seed=0):
    draw = np.random.default_rng(seed)
    return corpus(*[draw.integers(1, tokens, draw.integers(1, sentences)).tolist() for _ in range(documents)])


def plan(documents, max_length=23, pass_number=0, seed=7, **options):
    store = store_of(documents)
    options = {"objective": "mlm-nsp", "max_length": max_length, "seed": seed, "pass_number": pass_number, **options}
    return np.concatenate([*plan_sequences(store, **options)])


def document_of(documents, position):
    starts = [document[0][0] for document in documents]
    return np.searchsorted(starts, position, side="right") - 1


def follow_recipe(documents, max_length, short_probability, draw):
    """Follows the original code with lists and loops, one token at a time."""
    room = max_length - 3
    for document in documents:
        target = draw.randint(2, room) if draw.random() < short_probability else room
        waiting = collections.deque(document)
        while waiting:
            chunk = []
            while waiting and sum(map(len, chunk)) < target:
                chunk.append(waiting.popleft())
            split = draw.randint(1, len(chunk) - 1) if len(chunk) > 1 else 1
            a, b = ([*itertools.chain(*part)] for part in (chunk[:split], chunk[split:]))
            is_random = len(chunk) == 1 or draw.random() < 0.5
            if is_random:
                waiting.extendleft(reversed(chunk[split:]))
                other = draw.choice([candidate for candidate in documents if candidate is not document])
                b = []
                for sentence in other[draw.randrange(len(other)) :]:
                    b = b + sentence
                    if len(b) >= target - len(a):
                        break
            while len(a) + len(b) > room:
                (a if len(a) > len(b) else b).pop(draw.choice((0, -1)))
            yield a[0], b[0], len(a), len(b), int(is_random)


@pytest.mark.parametrize("max_length", [5, 6, 23, 128])
def test_every_pair_fits_and_neither_segment_is_empty(max_length):
    found = plan(random_corpus(53, 29, 31), max_length, short_probability=0.3)
    assert min(found["a_length"].min(), found["b_length"].min()) >= 1
    assert (found["a_length"] + found["b_length"]).max() == max_length - 3


def test_a_segment_lies_within_one_document_and_a_random_b_in_another(monkeypatch):
    monkeypatch.setattr(sequence_planning, "BLOCK_DOCUMENTS", 7)
    documents = random_corpus(53, 29, 5)
    found = np.concatenate([plan(documents, pass_number=number) for number in range(5)])
    a, b = (document_of(documents, found[start]) for start in ("a_start", "b_start"))
    for document, start, length in ((a, "a_start", "a_length"), (b, "b_start", "b_length")):
        np.testing.assert_array_equal(document, document_of(documents, found[start] + found[length] - 1))
    np.testing.assert_array_equal(a != b, found["label"])
    assert set(a) == set(b) == set(range(53))


@pytest.mark.parametrize(
    "documents",
    [corpus([1] * 101, [1] * 2, [1] * 57), corpus([2, 3, 1], [1, 4], [5], [1, 1, 2])],
    ids=["long", "short"],
)
def test_segments_tile_the_documents_if_nothing_is_truncated(documents):
    """So an actual B follows its A directly, and sentences displaced by a random B are used later."""
    found = np.concatenate([plan(documents, 17, number, short_probability=0.3) for number in range(20)])
    tokens = documents[-1][-1][-1] + 1
    follows = found["label"] == 0
    np.testing.assert_array_equal(found["b_start"][follows], (found["a_start"] + found["a_length"])[follows])
    length = found["a_length"] + np.where(follows, found["b_length"], 0)
    np.testing.assert_array_equal(found["a_start"], (np.cumsum(length) - length) % tokens)
    assert 0 < follows.sum() < len(found)


def test_half_of_the_pairs_of_long_documents_are_random():
    found = plan(corpus(*[[1] * 997] * 31))
    odd_ends = 31  # a document may end in a lone sentence, whose B is always random
    surplus = found["label"].sum() - len(found) / 2
    bound = SIGMAS * math.sqrt(len(found)) / 2
    assert -bound < surplus < bound + odd_ends


def test_a_document_of_one_sentence_always_gets_a_random_b():
    found = plan(corpus([5], [40], [1], [19]), 23)
    assert len(found) == 4
    assert found["label"].all()


def test_pairs_have_the_distribution_of_the_original_code():
    documents = corpus([3, 1, 4, 1, 5, 9, 2, 6], [5, 3, 5], [8, 9, 7, 9, 3], [25], [1, 2])
    passes, max_length, short = 1500, 16, 0.3
    ours = [plan(documents, max_length, number, short_probability=short) for number in range(passes)]
    draw = random.Random(3)
    theirs = [np.array([*follow_recipe(documents, max_length, short, draw)], SEQUENCE) for _ in range(passes)]

    views = [["a_start", "a_length", "label"], ["b_start", "label"], ["a_length", "b_length"], ["b_start", "b_length"]]
    for view in views:
        assert_same_distribution(
            *([tuple(pair) for pair in np.concatenate(one)[view].tolist()] for one in (ours, theirs))
        )
    assert_same_distribution(*(map(len, one) for one in (ours, theirs)))


def assert_same_distribution(ours, theirs):
    ours, theirs = collections.Counter(ours), collections.Counter(theirs)
    table = np.array([[ours[key], theirs[key]] for key in ours | theirs])
    rare = table.sum(axis=1) < 20
    table = np.concatenate([table[~rare], table[rare].sum(axis=0, keepdims=True) + 1])
    assert len(table) > 2
    assert stats.chi2_contingency(table).pvalue > P_VALUE


def test_truncation_equals_dropping_single_tokens():
    for a, b, room in itertools.product(range(1, 14), range(1, 14), range(2, 23)):
        x, y = a, b
        while x + y > room:
            x, y = (x - 1, y) if x > y else (x, y - 1)
        assert pair_planning._truncate(np.array([a]), np.array([b]), room) == ([x], [y])


def test_the_plan_depends_on_seed_and_pass():
    documents = random_corpus(53, 29, 31)
    same = [plan(documents), plan(documents)]
    np.testing.assert_array_equal(*same)
    for other in (plan(documents, seed=8), plan(documents, pass_number=1)):
        assert not np.array_equal(same[0], other)


@pytest.mark.parametrize(
    ("documents", "options", "message"),
    [
        (corpus([3, 4]), {}, "next-sentence prediction needs at least two documents, got 1"),
        (corpus([3], [4]), {"max_length": 4}, "`max_length` must be at least 5 to hold a sentence pair, got 4"),
        (corpus([3], [4]), {"short_probability": 1.5}, r"`short_probability` must lie in \[0, 1\], got 1.5"),
    ],
)
def test_impossible_arguments_are_errors(documents, options, message):
    with pytest.raises(ValueError, match=message):
        plan(documents, **options)
