"""Entities are those that seqeval finds, and so are their scores."""

import numpy as np
import pytest

from bert_jax.metrics.entities import Counts, count_entities, find_entities, total

# What seqeval 1.2.2 says of random tags: (gold, predicted), precision, recall, F1 of all, and
# (precision, recall, F1, gold entities) by kind.
SEQEVAL = {
    "IOB2": (
        [
            ("B-loc I-loc B-loc B-loc I-loc", "B-loc I-loc B-loc B-loc I-loc"),
            ("I-loc B-per B-per I-loc B-loc I-loc B-per O B-loc", "I-loc B-per O I-per I-loc I-loc B-per B-loc B-loc"),
            (
                "I-per B-per O I-loc O I-loc B-loc B-loc I-loc B-per I-loc O",
                "I-per B-per O I-loc O O B-loc B-loc I-loc B-per I-loc O",
            ),
            (
                "I-loc O O O B-per B-per I-loc O B-loc I-per B-loc I-loc B-per I-loc",
                "I-loc O O O B-per B-per I-loc O B-per I-per B-loc I-loc B-per I-loc",
            ),
        ],
        (0.88, 0.8148148148148148, 0.8461538461538461),
        {
            "loc": (0.9333333333333333, 0.8235294117647058, 0.8749999999999999, 17),
            "per": (0.8, 0.8, 0.8000000000000002, 10),
        },
    ),
    "BIOES": (
        [
            ("I-loc B-per I-loc I-loc E-per", "I-per S-loc I-loc E-loc E-per"),
            ("O S-per S-per O E-per I-per I-loc B-per O", "O S-per S-per E-per I-loc I-per E-loc B-per O"),
            (
                "I-per E-per E-loc S-per O B-loc S-per I-loc B-per B-per B-per E-per",
                "B-per E-per E-loc S-per O B-loc S-per O B-per B-per B-per E-per",
            ),
            (
                "E-per O B-loc B-loc E-loc I-per E-loc I-per I-loc I-per I-per S-per E-per E-per",
                "E-per O B-per B-loc B-loc I-per E-loc I-per I-loc I-per I-per S-per O E-per",
            ),
        ],
        (0.7666666666666667, 0.7666666666666667, 0.7666666666666667),
        {
            "loc": (0.6, 0.6, 0.6, 10),
            "per": (0.85, 0.85, 0.85, 20),
        },
    ),
    "IO": (
        [
            ("O per O loc per", "O per O loc loc"),
            ("per O O O per loc per loc O", "per O O O per loc per loc O"),
            ("loc loc loc O per per O loc per O per O", "loc loc per per per per O loc loc per per O"),
            ("per loc O loc loc per per loc O loc O O O loc", "per loc O per loc O per loc O per O O O loc"),
        ],
        (0.5263157894736842, 0.5, 0.5128205128205129),
        {
            "per": (0.5, 0.5, 0.5, 10),
            "loc": (0.5555555555555556, 0.5, 0.5263157894736842, 10),
        },
    ),
}


@pytest.mark.parametrize("scheme", SEQEVAL)
def test_scores_equal_those_of_seqeval(scheme):
    sentences, overall, by_kind = SEQEVAL[scheme]
    gold, predicted = ([sentence.split() for sentence in side] for side in zip(*sentences, strict=True))
    counts = count_entities(predicted, gold)
    found = total(counts)
    np.testing.assert_allclose((found.precision, found.recall, found.f1), overall, rtol=1e-12)
    assert counts.keys() == by_kind.keys()
    for kind, (*shares, support) in by_kind.items():
        one = counts[kind]
        np.testing.assert_allclose((one.precision, one.recall, one.f1), shares, rtol=1e-12)
        assert one.gold == support


@pytest.mark.parametrize(
    ("tags", "entities"),
    [
        ("", []),
        ("O O", []),
        ("B-per I-per O B-per", [("per", 0, 2), ("per", 3, 4)]),
        ("I-per I-per O I-per", [("per", 0, 2), ("per", 3, 4)]),  # begun by I-
        ("B-per B-per I-per", [("per", 0, 1), ("per", 1, 3)]),
        ("B-per I-loc I-loc", [("per", 0, 1), ("loc", 1, 3)]),
        ("per per O per loc", [("per", 0, 2), ("per", 3, 4), ("loc", 4, 5)]),
        ("B-per I-per E-per I-per", [("per", 0, 3), ("per", 3, 4)]),
        ("S-per S-per I-per", [("per", 0, 1), ("per", 1, 2), ("per", 2, 3)]),
        ("B-creative-work I-creative-work", [("creative-work", 0, 2)]),
        ("creative-work group", [("creative-work", 0, 1), ("group", 1, 2)]),
        ("B I O I", [("_", 0, 2), ("_", 3, 4)]),
    ],
)
def test_tags_are_read_leniently(tags, entities):
    assert find_entities(tags.split()) == entities


def test_an_entity_is_right_only_as_a_whole():
    gold = [["B-per", "I-per", "O", "B-loc"]]
    for predicted in (
        ["B-per", "O", "O", "B-per"],  # too short, of another kind
        ["B-per", "I-per", "I-per", "O"],  # too long
        ["O", "B-per", "O", "O"],
    ):
        assert total(count_entities([predicted], gold)).correct == 0
    assert total(count_entities([["I-per", "I-per", "O", "I-loc"]], gold)) == (2, 2, 2)


def test_no_correct_prediction_scores_0():
    assert [Counts(0, 0, 0).precision, Counts(0, 0, 0).recall, Counts(0, 0, 0).f1] == [0, 0, 0]
    assert count_entities([["O"]], [["O"]]) == {}
    assert total({}) == (0, 0, 0)
    # The same place in another sentence is another place.
    assert total(count_entities([["B-per"], ["O"]], [["O"], ["B-per"]])) == (0, 1, 1)


def test_mismatched_lengths_are_errors():
    with pytest.raises(ValueError, match="2 sentences, and predictions for 1"):
        count_entities([["O"]], [["O"], ["O"]])
    with pytest.raises(ValueError, match="sentence 1 has 1 words, and predictions for 2"):
        count_entities([["O"], ["O", "O"]], [["O"], ["O"]])
