"""Exact match and F1 of answers to questions, counted as SQuAD's official scripts count them.

Both compare words: lowercased, without ASCII punctuation, without the articles a, an, the. F1 is the harmonic mean of
the shares of words that the prediction and the gold answer have in common. Of several golds the best counts. Version
2.0 differs where nothing is left to compare: there the empty answer is right, and the only right one, for a question
that has none, and golds of which nothing is left are put aside.

Scores are shares between 0 and 1, where the official scripts print percents.

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
    """What an answer earns."""

    exact_match: float
    f1: float


def normalize(text: str) -> str:
    """Returns what of an answer is compared.

    >>> normalize("The  U.S. Army, an army")
    'us army army'
    """
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def score_answer(prediction: str, golds: Sequence[str], *, version_2: bool) -> Scores:
    """Scores an answer against the gold answers.

    Args:
        golds: empty for a question without an answer, which there is in version 2.0 only.
        version_2: whether to count as for version 2.0.

    Raises:
        ValueError: no gold for a question of version 1.1.
    """
    if version_2:
        golds = [gold for gold in golds if normalize(gold)] or [""]
    if not golds:
        raise ValueError("a question of SQuAD 1.1 has at least one answer")
    found, wanted = normalize(prediction), [normalize(gold) for gold in golds]
    return Scores(
        exact_match=float(found in wanted),
        f1=max(overlap(found.split(), gold.split(), nothing=version_2) for gold in wanted),
    )


def overlap(prediction: Sequence[str], gold: Sequence[str], *, nothing: bool) -> float:
    """Returns the F1 of two bags of words; for two empty ones 1 if `nothing` matches nothing, and else 0."""
    if not prediction and not gold:
        return float(nothing)
    common = (Counter(prediction) & Counter(gold)).total()
    return 2 * common / (len(prediction) + len(gold))


def score_answers(
    predictions: Mapping[str, str], golds: Mapping[str, Sequence[str]], *, version_2: bool
) -> dict[str, Scores]:
    """Scores the answers to all questions, by their ids; see `score_answer`.

    Raises:
        ValueError: a question without a prediction, by its id.
    """
    if missing := golds.keys() - predictions.keys():
        raise ValueError(f"{len(missing)} of {len(golds)} questions have no prediction, {min(missing)} among them")
    return {name: score_answer(predictions[name], gold, version_2=version_2) for name, gold in golds.items()}


def totals(scores: Mapping[str, Scores], golds: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """Returns the mean scores, `exact_match` and `f1`.

    Where some questions have answers and some have none, also `has_answer_...` and `no_answer_...`, of each kind alone.
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
    """Finds above which null odds it scores best, on these very questions, to give no answer.

    Args:
        predictions: answers as if there were one to every question; see `Predictions.texts`.

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


def gains_of_answering(predictions: Mapping[str, str], golds: Mapping[str, Sequence[str]]) -> tuple[int, np.ndarray]:
    """Returns the sum of scores where no question is answered, and what answering each adds to it, [n, 2]."""
    scores = score_answers(predictions, golds, version_2=True)
    table = np.array(list(scores.values()), np.float64).reshape(-1, 2)
    unanswerable = np.array([not gold for gold in golds.values()], bool)
    # To give no answer, or an empty one, is right for a question that has none.
    lost = np.array([-1.0 if predictions[name] else 0.0 for name in golds])
    return int(unanswerable.sum()), np.where(unanswerable[:, None], lost[:, None], table)


def threshold_between(
    predictions: Mapping[str, str], golds: Mapping[str, Sequence[str]], null_odds: Mapping[str, float]
) -> float:
    """Returns a threshold to use, which leads to the highest F1 on these very questions.

    It lies midway between the odds of the last question that is answered and of the first that is not, so that rounding
    moves no question across; below them all where it is best to answer none. Unlike `best_thresholds` it does not take
    apart questions of equal odds.
    """
    never, gains = gains_of_answering(predictions, golds)
    odds = np.array([null_odds[name] for name in golds], np.float64)
    order = np.argsort(odds, kind="stable")
    sums = np.cumsum(np.concatenate([[never], gains[order, 1]]))
    odds = np.concatenate([[odds.min() - 2.0], odds[order], [odds.max() + 2.0]])
    apart = odds[1:] > odds[:-1]
    best = int(np.where(apart, sums, -np.inf).argmax())
    return float((odds[best] + odds[best + 1]) / 2)


def best_threshold(never: float, gains: np.ndarray, null_odds: np.ndarray) -> tuple[float, float]:
    """Finds the threshold up to which it scores most to answer.

    As the official script does it, questions are answered one by one in the order of their odds, those of equal odds in
    the order they are in. So the sum may count only some of those whose odds are the threshold, though all of them are
    then answered.

    Args:
        never: the sum of scores where no question is answered.
        gains: float [n], what the sum gains where a question is answered; below 0 where it loses.
        null_odds: float [n].

    Returns:
        The highest sum, and the odds of the last question answered for it, of several the first; 0 where it is best
        to answer none.
    """
    order = np.argsort(null_odds, kind="stable")
    sums = np.cumsum(np.concatenate([[never], gains[order]]))
    best = int(sums.argmax())
    return float(sums[best]), float(null_odds[order[best - 1]]) if best else 0.0
