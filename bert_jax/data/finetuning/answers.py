"""Finds the answers to questions: the spans of tokens with the highest logits.

A span's logit is its start logit plus its end logit. Spans that begin outside the context, end before they start, or
are too long are not answers; the best answer is the best of the other spans, not the best start with the best end. A
long context is read in windows, and a span counts in the window where its start has the most context.

References: Devlin et al., BERT, 2018, sections 4.2 and 4.3; google-research/bert `run_squad.py`.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bert_jax.metrics.classification import softmax


class Span(NamedTuple):
    """An answer: the tokens start <= i <= end of the context; -1 and -1 for no answer."""

    logit: float
    start: int
    end: int


class WindowLogits(NamedTuple):
    """The logits of one window over a context.

    Attributes:
        starts: float [n], the start logit of each token; minus infinity for tokens with more context in another window.
        ends: float [n], the end logits.
        null: the start and the end logit of [CLS], for no answer.
        characters: int [n, 2], the start and end character of each token in the context.
    """

    starts: np.ndarray
    ends: np.ndarray
    null: tuple[float, float]
    characters: np.ndarray


class Predictions(NamedTuple):
    """Answers to questions, by their ids.

    Attributes:
        texts: the best answer to each question, even if no answer is likelier; empty if the context has no token.
        n_best: the best answers, best first: `text`, `probability` among them, `start_logit` and `end_logit`.
        null_odds: the logit of no answer minus the logit of the best answer.
    """

    texts: dict[str, str]
    n_best: dict[str, list[dict[str, Any]]]
    null_odds: dict[str, float]

    def above(self, threshold: float) -> dict[str, str]:
        """Returns the texts, empty for questions whose null odds exceed the threshold."""
        return {name: "" if self.null_odds[name] > threshold else text for name, text in self.texts.items()}


def predict_answers(
    ids: Iterable[str],
    contexts: Iterable[str],
    windows: Iterable[Sequence[WindowLogits]],
    *,
    n_best: int = 20,
    max_answer_length: int = 30,
    null_answer: bool,
) -> Predictions:
    """Finds the best answers to questions.

    Args:
        ids, contexts, windows: of each question; at least one window each.
        n_best: maximum number of answers, with different texts.
        max_answer_length: in tokens.
        null_answer: whether the empty answer is a candidate.
    """
    predictions = Predictions({}, {}, {})
    for name, context, of_context in zip(ids, contexts, windows, strict=True):
        found = n_best_answers(context, of_context, n_best=n_best, max_answer_length=max_answer_length)
        null = min((window.null for window in of_context), key=sum)
        predictions.texts[name] = found[0]["text"]
        predictions.null_odds[name] = sum(null) - found[0]["start_logit"] - found[0]["end_logit"]
        if null_answer:
            found.append({"text": "", "start_logit": null[0], "end_logit": null[1]})
            found.sort(key=lambda one: -(one["start_logit"] + one["end_logit"]))
        predictions.n_best[name] = with_probabilities(found)
    return predictions


def n_best_answers(
    context: str, windows: Sequence[WindowLogits], *, n_best: int, max_answer_length: int
) -> list[dict[str, Any]]:
    """Returns the best answers, best first: `text`, `start_logit` and `end_logit`; of equal texts the best.

    A context without tokens has one empty answer with logit 0.
    """
    found = []
    for window in windows:
        spans, _ = best_spans(window.starts, window.ends, max_answer_length=max_answer_length, top=n_best)
        found += [(span, window) for span in spans]
    found.sort(key=lambda one: -one[0].logit)
    answers: dict[str, dict[str, Any]] = {}
    for span, window in found:
        if len(answers) == n_best:
            break
        text = context[window.characters[span.start, 0] : window.characters[span.end, 1]]
        logits = {"start_logit": float(window.starts[span.start]), "end_logit": float(window.ends[span.end])}
        answers.setdefault(text, {"text": text, **logits})
    return list(answers.values()) or [{"text": "", "start_logit": 0.0, "end_logit": 0.0}]


def with_probabilities(answers: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the answers with the softmax over their logits, with keys in the order of the official file."""
    logits = np.array([answer["start_logit"] + answer["end_logit"] for answer in answers])
    return [
        {
            "text": answer["text"],
            "probability": float(probability),
            "start_logit": answer["start_logit"],
            "end_logit": answer["end_logit"],
        }
        for answer, probability in zip(answers, softmax(logits), strict=True)
    ]


def best_spans(starts: np.ndarray, ends: np.ndarray, *, max_answer_length: int, top: int) -> tuple[list[Span], float]:
    """Finds the best spans start <= end < start + max_answer_length.

    Args:
        starts: logits [n]; minus infinity for tokens where no answer may start.
        ends: logits [n].

    Returns:
        The `top` best spans, best first, and the log-sum-exp of the logits of all spans.
    """
    n = len(starts)
    length = min(max_answer_length, n)
    if n == 0 or not np.isfinite(starts).any():
        return [], -np.inf
    padded = np.concatenate([ends, np.full(length - 1, -np.inf)])
    # Row i holds the spans that start at i, column k those of k + 1 tokens.
    logits = starts[:, None] + np.lib.stride_tricks.sliding_window_view(padded, length)
    flat = logits.ravel()
    count = min(top, flat.size)
    likely = np.sort(np.argpartition(-flat, count - 1)[:count])  # sorted, so that the first of equal spans stays first
    likely = likely[np.argsort(-flat[likely], kind="stable")]
    spans = [Span(float(flat[i]), int(i // length), int(i // length + i % length)) for i in likely]
    highest = flat.max()
    total = float(highest + np.log(np.exp(flat - highest).sum()))
    return [span for span in spans if np.isfinite(span.logit)], total
