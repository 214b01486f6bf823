"""Metrics of classification and regression, the confusion matrix and the worst mistakes.

An undefined metric, such as the correlation with constant predictions, is 0, so that a collapsed model is never NaN and
ranks last. Axes: n examples, C classes (or scores per example).

References: Matthews, Comparison of the predicted and observed secondary structure of T4 phage lysozyme, 1975; Wang et
al., GLUE, 2018 (the metrics of each task).
"""

import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

UNDEFINED: Any = {"zero_division": 0}


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the softmax over the last axis, float64."""
    logits = np.asarray(logits, np.float64)
    exp_logits = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exp_logits / exp_logits.sum(axis=-1, keepdims=True)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    """Returns the logistic function of each element, float64."""
    return 1.0 / (1.0 + np.exp(-np.clip(np.asarray(logits, np.float64), -700, 700)))  # exp(710) overflows


def single_label_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns the metrics of one class per example.

    Args:
        logits: float [n, C]; n > 0.
        labels: ids, int [n].

    Returns:
        `accuracy`; `f1`, of class 1 if there are two, else the mean over the classes that occur; `matthews`.

    Raises:
        ValueError: no examples, or shapes that do not match.
    """
    from sklearn import metrics

    predictions = logits.argmax(-1)
    _require_same_shape(predictions, labels)
    # A weighted table of counts instead of lists of labels: scikit-learn takes some short lists for scores, and warns.
    counts = confusion(predictions, labels, logits.shape[-1])
    cells = np.indices(counts.shape).reshape(2, -1)
    present = [1] if len(counts) == 2 else np.flatnonzero(counts.sum(0) + counts.sum(1))
    weighted = {"y_true": cells[0], "y_pred": cells[1], "sample_weight": counts.ravel()}
    return {
        "accuracy": float((predictions == labels).mean()),
        "f1": float(metrics.f1_score(**weighted, labels=present, average="macro", **UNDEFINED)),
        "matthews": float(metrics.matthews_corrcoef(**weighted)),
    }


def multi_label_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns the metrics of any number of labels per example; a label is predicted if its logit is above 0.

    Args:
        logits: float [n, C]; n > 0.
        labels: zeros and ones, [n, C].

    Returns:
        `accuracy` (all labels of an example are right), `f1` (over all decisions), `f1_macro` (mean over the classes).

    Raises:
        ValueError: no examples, or shapes that do not match.
    """
    from sklearn import metrics

    predictions = (logits > 0).astype(np.int64)
    _require_same_shape(predictions, labels)
    labels = labels.astype(np.int64)
    of_classes = [metrics.f1_score(*column, **UNDEFINED) for column in zip(labels.T, predictions.T, strict=True)]
    return {
        "accuracy": float((predictions == labels).all(-1).mean()),
        "f1": float(metrics.f1_score(labels.ravel(), predictions.ravel(), **UNDEFINED)),
        "f1_macro": float(np.mean(of_classes)),
    }


def regression_metrics(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Returns the metrics of predicted scores.

    Args:
        logits: the predicted scores, float [n, C]; n > 0.
        labels: float [n, C], or [n] if C is 1.

    Returns:
        `pearson`, `spearman`, `mean_squared_error`, each the mean over C.

    Raises:
        ValueError: no examples, or shapes that do not match.
    """
    from scipy import stats

    labels = labels[:, None] if labels.ndim == 1 else labels
    _require_same_shape(logits, labels)
    predictions = logits.astype(np.float64)
    labels = labels.astype(np.float64)
    columns = list(zip(predictions.T, labels.T, strict=True))
    return {
        "pearson": float(np.mean([_correlation(stats.pearsonr, *column) for column in columns])),
        "spearman": float(np.mean([_correlation(stats.spearmanr, *column) for column in columns])),
        "mean_squared_error": float(np.square(predictions - labels).mean()),
    }


def _require_same_shape(predictions: np.ndarray, labels: np.ndarray) -> None:
    if labels.shape != predictions.shape or not len(labels):
        raise ValueError(f"cannot score predictions {predictions.shape} against labels {labels.shape}")


def _correlation(correlate: Callable, predictions: np.ndarray, labels: np.ndarray) -> float:
    if len(labels) < 2:
        return 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # constant or nearly constant values
        value = float(correlate(predictions, labels).statistic)
    return value if np.isfinite(value) else 0.0


def confusion(predictions: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Returns the confusion matrix of C = `count` classes, int64 [C, C]: rows are true classes, columns predicted ones.

    Args:
        predictions, labels: ids int [n].
    """
    return np.bincount(labels.astype(np.int64) * count + predictions, minlength=count * count).reshape(count, count)


class Mistake(NamedTuple):
    """The index of an example, its true class, its predicted class, and the probability of the latter."""

    row: int
    label: int
    predicted: int
    probability: float


def worst_mistakes(probabilities: np.ndarray, labels: np.ndarray, count: int) -> list[Mistake]:
    """Returns the `count` mistakes with the highest predicted probability, highest first.

    Args:
        probabilities: of each class, [n, C].
        labels: ids int [n].
    """
    predictions = probabilities.argmax(-1)
    confidence = probabilities.max(-1)
    wrong = np.flatnonzero(predictions != labels)
    wrong = wrong[np.argsort(-confidence[wrong], kind="stable")][:count]
    return [Mistake(int(i), int(labels[i]), int(predictions[i]), float(confidence[i])) for i in wrong]


def collapsed(predictions: np.ndarray, labels: np.ndarray) -> bool:
    """Returns whether all examples, [n] or [n, C], have the same prediction although their labels differ."""
    return bool((predictions == predictions[:1]).all() and (labels != labels[:1]).any())
