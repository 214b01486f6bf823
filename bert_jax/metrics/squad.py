"""Exact match and F1 of answers to questions, equal to SQuAD's official scripts.

Both compare words: lowercase, without ASCII punctuation, without the articles a, an, the. F1 is the harmonic mean of
precision and recall of the predicted words. Of several gold answers the best one counts. In version 2.0 the empty
answer is the only right one for a question without an answer, and gold answers without words are ignored.

Scores are fractions between 0 and 1; the official scripts print percentages.

References: Rajpurkar et al., SQuAD, 2016, section 6.1; Rajpurkar et al., Know What You Don't Know, 2018,
section 5.
"""

import re
import string
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


class Scores(NamedTuple):
    """The scores of an answer."""

    exact_match: float
    f1: float


def normalize(text: str) -> str:
    """Returns the words of an answer that are compared.

    >>> normalize("The  U.S. Army, an army")
    'us army army'
    """
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def score_answer(prediction: str, golds: Sequence[str], *, version_2: bool) -> Scores:
    """Scores an answer against the gold answers.

    Args:
        golds: the gold answers; empty for a question without an answer, in version 2.0 only.
        version_2: whether to follow the script of version 2.0.

    Raises:
        ValueError: no gold answer to a question of version 1.1.
    """
    if version_2:
        golds = [gold for gold in golds if normalize(gold)] or [""]
    if not golds:
        raise ValueError("a question of SQuAD 1.1 must have at least one answer")
    found = normalize(prediction)
    wanted = [normalize(gold) for gold in golds]
    return Scores(
        exact_match=float(found in wanted),
        f1=max(overlap(found.split(), gold.split(), nothing=version_2) for gold in wanted),
    )


def overlap(prediction: Sequence[str], gold: Sequence[str], *, nothing: bool) -> float:
    """Returns the F1 of two bags of words; of two empty ones it is 1 if `nothing` is set, otherwise 0."""
    if not prediction and not gold:
        return float(nothing)
    common = (Counter(prediction) & Counter(gold)).total()
    return 2 * common / (len(prediction) + len(gold))


def score_answers(
    predictions: Mapping[str, str], golds: Mapping[str, Sequence[str]], *, version_2: bool
) -> dict[str, Scores]:
    """Returns the scores of the answers to all questions, by id; see `score_answer`.

    Raises:
        ValueError: a question without a prediction.
    """
    missing = golds.keys() - predictions.keys()
    if missing:
        raise ValueError(f"{len(missing)} of {len(golds)} questions have no prediction, for example {min(missing)}")
    return {name: score_answer(predictions[name], gold, version_2=version_2) for name, gold in golds.items()}


def totals(scores: Mapping[str, Scores], golds: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Returns the mean scores, `exact_match` and `f1`.

    If some questions have answers and others do not, also `has_answer_...` and `no_answer_...` for each group.
    """
    answerable = np.array([bool(golds[name]) for name in scores], bool)
    table = np.array(list(scores.values()), np.float64).reshape(-1, 2)
    parts = {"": np.ones_like(answerable)}
    if answerable.any() and not answerable.all():
        parts |= {"has_answer_": answerable, "no_answer_": ~answerable}
    return {
        f"{part}{name}": float(column[chosen].mean())
        for part, chosen in parts.items()
        for name, column in zip(Scores._fields, table.T, strict=True)
    }


def best_thresholds(
    predictions: Mapping[str, str], golds: Mapping[str, Sequence[str]], null_odds: Mapping[str, float]
) -> dict[str, float]:
    """Finds the null odds above which giving no answer scores best on these questions.

    Args:
        predictions: answers to all questions, as if each had one; see `Predictions.texts`.

    Returns:
        `best_exact_match`, `best_exact_match_threshold`, `best_f1` and `best_f1_threshold`; see `best_threshold`.
    """
    never, gains = gains_of_answering(predictions, golds)
    odds = np.array([null_odds[name] for name in golds], np.float64)
    found: dict[str, float] = {}
    for name, column in zip(Scores._fields, gains.T, strict=True):
        best, threshold = best_threshold(never, column, odds)
        found |= {f"best_{name}": best / len(golds), f"best_{name}_threshold": threshold}
    return found


def gains_of_answering(predictions: Mapping[str, str], golds: Mapping[str, Sequence[str]]) -> tuple[float, np.ndarray]:
    """Returns the sum of scores without any answer, and what answering each question adds to it, [n, 2].

    Both are differences of `score_answer`, so the best score is the score of the answers at the best threshold. An
    answer without words, such as "the", gains nothing. The official script scores it as no answer too, but its search
    for the threshold counts it as wrong for a question without an answer.
    """
    scores = score_answers(predictions, golds, version_2=True)
    scores_without = score_answers(dict.fromkeys(golds, ""), golds, version_2=True)
    table = np.array(list(scores.values()), np.float64).reshape(-1, 2)
    table_without = np.array(list(scores_without.values()), np.float64).reshape(-1, 2)
    # Exact match and F1 of no answer are equal: 1 if no answer has words, otherwise 0.
    return float(table_without[:, 1].sum()), table - table_without


def threshold_between(
    predictions: Mapping[str, str], golds: Mapping[str, Sequence[str]], null_odds: Mapping[str, float]
) -> float:
    """Returns the threshold with the highest F1 on these questions.

    It is halfway between the odds of the last question that is answered and the first one that is not, so that rounding
    does not matter; below all odds if answering none is best. Unlike `best_thresholds` it does not separate questions
    with equal odds. Odds -3, -1 and 2, of which the first two are best answered: the threshold is 0.5.
    """
    never, gains = gains_of_answering(predictions, golds)
    odds = np.array([null_odds[name] for name in golds], np.float64)
    order = np.argsort(odds, kind="stable")
    sums = np.cumsum(np.concatenate([[never], gains[order, 1]]))
    odds = np.concatenate([[odds.min() - 2.0], odds[order], [odds.max() + 2.0]])
    differs = odds[1:] > odds[:-1]
    best = int(np.where(differs, sums, -np.inf).argmax())
    return float((odds[best] + odds[best + 1]) / 2)


def best_threshold(never: float, gains: np.ndarray, null_odds: np.ndarray) -> tuple[float, float]:
    """Finds the null odds up to which answering scores best.

    Like the official script, it answers questions one by one in the order of their odds, and questions with equal odds
    in their given order. So the sum may include only some of the questions at the threshold, although all of them are
    answered then.

    Args:
        never: the sum of scores without any answer.
        gains: float [n], what answering each question adds to the sum; negative if it loses.
        null_odds: float [n].

    Returns:
        The highest sum, and the odds of the last question answered for it, the first of several; 0 if answering none is
        best.
    """
    order = np.argsort(null_odds, kind="stable")
    sums = np.cumsum(np.concatenate([[never], gains[order]]))
    best = int(sums.argmax())
    return float(sums[best]), float(null_odds[order[best - 1]]) if best else 0.0
