"""Exact match and F1 equal the official scripts, in edge cases too."""

import re
import string

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_jax.metrics.squad import (
    best_threshold,
    best_thresholds,
    normalize,
    score_answer,
    score_answers,
    threshold_between,
    totals,
)


@pytest.mark.parametrize(
    ("text", "compared"),
    [
        ("The  Owl\n", "owl"),
        ("a an the", ""),
        ("An owl, the barn; a night!", "owl barn night"),
        ("U.S.", "us"),
        ("1,000.50", "100050"),
        ("theatre", "theatre"),
        ("the-owl", "theowl"),  # punctuation goes first, and leaves no word boundary
        ("the\u2019s", "\u2019s"),  # a typographic apostrophe stays, and ends a word
        ("\u2014", "\u2014"),
        ("ÉCLAIR", "éclair"),
        ("e\u0301clair", "e\u0301clair"),
        ("owl\u00a0\u3000barn", "owl barn"),
    ],
)
def test_articles_punctuation_and_white_space_are_not_compared(text, compared):
    assert normalize(text) == compared


@pytest.mark.parametrize(
    ("prediction", "golds", "exact_match", "f1"),
    [
        ("The owl!", ["owl"], 1, 1),
        ("barn owl", ["owl"], 0, 2 / 3),
        ("owl owl", ["owl"], 0, 2 / 3),
        ("owl barn owl", ["owl owl night"], 0, 2 / 3),
        ("barn", ["owl"], 0, 0),
        ("barn owl", ["night", "the barn", "owl, barn"], 0, 1),
        ("barn", ["owl", "a barn"], 1, 1),
        ("", ["owl"], 0, 0),
        ("Owl", ["owls"], 0, 0),
    ],
)
@pytest.mark.parametrize("version_2", [False, True])
def test_scores_equal_the_official_scripts(prediction, golds, exact_match, f1, version_2):
    found = score_answer(prediction, golds, version_2=version_2)
    assert found.exact_match == exact_match
    np.testing.assert_allclose(found.f1, f1, rtol=1e-12)


@pytest.mark.parametrize(
    ("prediction", "golds", "version_1", "version_2"),
    [
        # The first script finds no common word in nothing; the second calls two nothings equal.
        ("the", ["a"], (1, 0), (1, 1)),
        ("", ["..."], (1, 0), (1, 1)),
        # The second puts aside a gold of which nothing is left, if there are others.
        ("an", ["the", "owl"], (1, 0), (0, 0)),
        ("owl", ["the"], (0, 0), (0, 0)),
    ],
)
def test_the_versions_differ_for_answers_without_words(prediction, golds, version_1, version_2):
    assert score_answer(prediction, golds, version_2=False) == version_1
    assert score_answer(prediction, golds, version_2=True) == version_2


def test_no_answer_is_right_for_questions_without_one():
    assert score_answer("", [], version_2=True) == (1, 1)
    assert score_answer("the", [], version_2=True) == (1, 1)
    assert score_answer("owl", [], version_2=True) == (0, 0)
    with pytest.raises(ValueError, match=r"a question of SQuAD 1\.1 must have at least one answer"):
        score_answer("owl", [], version_2=False)


def test_totals_separate_the_two_kinds_of_questions():
    golds = {"a": ["owl"], "b": ["barn owl"], "c": [], "d": [], "e": ["night"]}
    scores = score_answers({"a": "owl", "b": "owl", "c": "", "d": "owl", "e": ""}, golds, version_2=True)
    found = totals(scores, golds)
    expected = {
        "exact_match": 2 / 5,
        "f1": (1 + 2 / 3 + 1) / 5,
        "has_answer_exact_match": 1 / 3,
        "has_answer_f1": (1 + 2 / 3) / 3,
        "no_answer_exact_match": 1 / 2,
        "no_answer_f1": 1 / 2,
    }
    assert found.keys() == expected.keys()
    np.testing.assert_allclose([found[name] for name in expected], list(expected.values()))
    only = totals({"a": scores["a"]}, {"a": golds["a"]})
    assert only == {"exact_match": 1, "f1": 1}


def test_every_question_needs_a_prediction():
    with pytest.raises(ValueError, match="2 of 3 questions have no prediction, for example b"):
        score_answers({"a": "owl", "z": "owl"}, {"a": ["owl"], "c": ["owl"], "b": []}, version_2=True)


def test_the_best_thresholds_answer_where_that_scores():
    golds = {"a": ["owl"], "b": [], "c": ["barn owl"], "d": [], "e": ["night"]}
    predictions = {"a": "owl", "b": "it", "c": "barn", "d": "", "e": "it"}
    null_odds = {"a": -3.0, "b": -1.0, "c": 2.0, "d": -2.0, "e": 5.0}
    # Never to answer: b and d are right. a gains 1; d gains nothing, its answer is empty; b loses 1; c gains 2/3 of F1.
    assert best_thresholds(predictions, golds, null_odds) == {
        "best_exact_match": 3 / 5,
        "best_exact_match_threshold": -3.0,
        "best_f1": 3 / 5,
        "best_f1_threshold": -3.0,
    }
    found = best_thresholds(predictions, golds, null_odds | {"b": 9.0})
    assert (found["best_exact_match_threshold"], found["best_f1_threshold"]) == (-3.0, 2.0)
    np.testing.assert_allclose(found["best_f1"], (3 + 2 / 3) / 5)


def test_the_threshold_is_between_the_odds_of_questions():
    golds = {"a": ["owl"], "b": [], "c": ["barn owl"]}
    predictions = {"a": "owl", "b": "it", "c": "barn owl"}
    assert threshold_between(predictions, golds, {"a": -3.0, "b": 1.0, "c": 2.0}) == -1.0
    assert threshold_between(predictions, golds, {"a": -3.0, "b": 3.0, "c": 2.0}) == 2.5
    assert threshold_between(predictions, golds, {"a": -3.0, "b": -3.0, "c": 2.0}) > 2.0  # a and b stay together
    # Never to answer is best, although all odds are below the 0 that the official script then tells.
    assert threshold_between({"a": "it", "b": "it", "c": "it"}, golds, {"a": -3.0, "b": -4.0, "c": -5.0}) < -5.0


# The official formulas again: SQuAD 1.1's and 2.0's evaluation, written from their description.


def official_words(text):
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    return re.sub(r"\b(?:the|an|a)\b", " ", kept).split()


def official_scores(prediction, golds, *, version_2):
    """Exact match and F1 of an answer, the best over the gold answers."""
    if version_2:
        golds = [gold for gold in golds if official_words(gold)] or [""]
    found = official_words(prediction)
    exact, f1 = [], []
    for wanted in map(official_words, golds):
        exact.append(float(found == wanted))
        left = list(wanted)
        same = 0
        for word in found:
            if word in left:
                left.remove(word)
                same += 1
        if version_2 and not (found and wanted):
            f1.append(float(found == wanted))
        elif same == 0:
            f1.append(0.0)
        else:
            precision, recall = same / len(found), same / len(wanted)
            f1.append(2 * precision * recall / (precision + recall))
    return max(exact), max(f1)


WORDS = st.sampled_from(["owl", "Owl", "barn", "the", "A", "an", "the-owl", "...", "'s", "theatre", "\u2019s", "É"])
TEXTS = st.lists(WORDS, max_size=5).flatmap(
    lambda words: st.sampled_from([" ", "\u00a0", "\n", ", "]).map(lambda space: space.join(words))
)


@settings(max_examples=300)
@given(TEXTS, st.lists(TEXTS, min_size=1, max_size=3), st.booleans())
def test_scores_equal_the_official_formulas(prediction, golds, version_2):
    expected = official_scores(prediction, golds, version_2=version_2)
    np.testing.assert_allclose(score_answer(prediction, golds, version_2=version_2), expected, rtol=1e-12)
    assert score_answer(prediction, [], version_2=True) == official_scores(prediction, [], version_2=True)


@settings(max_examples=200)
@given(
    st.lists(
        st.tuples(TEXTS, st.lists(TEXTS, max_size=2), st.integers(-50, 50)),
        min_size=1,
        max_size=9,
        unique_by=lambda one: one[2],
    )
)
def test_the_search_and_the_score_have_one_definition(questions):
    texts = {str(i): text for i, (text, _, _) in enumerate(questions)}
    golds = {str(i): some for i, (_, some, _) in enumerate(questions)}
    odds = {str(i): float(odd) for i, (_, _, odd) in enumerate(questions)}

    def mean_scores(threshold):
        kept = {name: "" if odds[name] > threshold else text for name, text in texts.items()}
        return np.mean([official_scores(kept[name], golds[name], version_2=True) for name in golds], axis=0)

    best = best_thresholds(texts, golds, odds)
    tried = np.array([mean_scores(threshold) for threshold in [-99.0, *odds.values()]])
    np.testing.assert_allclose([best["best_exact_match"], best["best_f1"]], tried.max(axis=0), atol=1e-12)
    threshold = threshold_between(texts, golds, odds)
    kept = {name: "" if odds[name] > threshold else text for name, text in texts.items()}
    scored = totals(score_answers(kept, golds, version_2=True), golds)
    assert scored["f1"] == pytest.approx(best["best_f1"])
    assert scored["f1"] == pytest.approx(mean_scores(threshold)[1])


def test_an_answer_without_words_is_no_answer_in_the_search_too():
    golds = {"a": [], "b": ["owl"], "c": ["the", "..."]}
    odds = {"a": -3.0, "b": -2.0, "c": -1.0}
    texts = {"a": "the", "b": "owl", "c": "an"}
    assert best_thresholds(texts, golds, odds)["best_f1"] == 1
    assert totals(score_answers(texts, golds, version_2=True), golds)["f1"] == 1
    assert best_thresholds(texts | {"a": "the owl"}, golds, odds)["best_f1"] == pytest.approx(2 / 3)


def test_of_equal_odds_only_the_scoring_answers_count():
    """So does the official script, although with that threshold the third is answered as well."""
    assert best_threshold(1, np.array([1.0, 0.5, -1.0]), np.array([2.0, 2.0, 2.0])) == (2.5, 2.0)
    assert best_threshold(1, np.array([-1.0, 1.0, 0.5]), np.array([2.0, 2.0, 2.0])) == (1.5, 2.0)


def test_the_threshold_is_zero_if_no_answer_scores():
    assert best_threshold(2, np.array([-1.0, 0.0]), np.array([-3.0, -4.0])) == (2.0, 0.0)


@given(
    st.lists(
        st.tuples(st.sampled_from([-1.0, 0.0, 0.25, 1.0]), st.integers(-50, 50)),
        max_size=9,
        unique_by=lambda one: one[1],
    )
)
def test_the_best_threshold_equals_an_exhaustive_search(questions):
    gains, odds = np.array([gain for gain, _ in questions]), np.array([odd for _, odd in questions], float)
    best, threshold = best_threshold(3, gains, odds)
    tried = [3 + gains[odds <= odd].sum() for odd in odds]
    assert best == max([3, *tried])
    if best > 3:
        assert threshold == min(odd for odd, total in zip(odds, tried, strict=True) if total == best)
