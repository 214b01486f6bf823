"""The three kinds of classification problem: one class per `problem_type`, and the table `PROBLEMS`.

A problem encodes labels, turns logits into probabilities (or scores), and says how predictions are written, scored and
reported. `PROBLEMS` maps Hugging Face's `problem_type` to it. Axes: n examples, C classes (or scores per example).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bert_jax.data.readers.examples import TextExample
from bert_jax.data.readers.labels import encode_classes, encode_label_sets, encode_scores
from bert_jax.metrics.classification import (
    collapsed,
    confusion,
    multi_label_metrics,
    regression_metrics,
    sigmoid,
    single_label_metrics,
    softmax,
    worst_mistakes,
)
from bert_jax.tasks.base import Split
from bert_jax.tasks.reports import draw_confusion, draw_scores, list_mistakes, write_table

Names = Sequence[str]  # of the classes, in the order of their ids


class Problem(ABC):
    """One kind of classification problem.

    Attributes:
        name: the `problem_type`; it also names the loss, see `bert_jax.functional.losses.classification_loss`.
        metric: the metric that selects the best model; higher is better.
    """

    name: ClassVar[str]
    metric: ClassVar[str]

    @abstractmethod
    def encode(self, examples: Sequence[TextExample], names: Names) -> np.ndarray:
        """Returns the labels: ids int32 [n] of classes, zeros and ones float32 [n, C], or scores float32 [n, C].

        Raises:
            ValueError: an example without a label, or with one of another kind, with its place.
        """

    def placeholder_labels(self, count: int, outputs: int) -> np.ndarray:
        """Returns labels for examples that have none, float32 [n, C]; their weight is 0."""
        return np.zeros((count, outputs), np.float32)

    @abstractmethod
    def compute_metrics(self, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        """Returns the metrics of logits [n, C]; `collapsed` is 1 if all examples get the same prediction."""

    @abstractmethod
    def activation(self, logits: np.ndarray) -> np.ndarray:
        """Returns probabilities, or scores, float64 [n, C]."""

    @abstractmethod
    def prediction(self, row: list[float], names: Names) -> dict[str, Any]:
        """Returns the prediction for one example as JSON; `row` is its row of `activation`."""

    @abstractmethod
    def report(self, folder: Path, split: Split, found: np.ndarray, names: Names, mistakes: int) -> list[str]:
        """Writes a table of mistakes, and pictures; returns lines for the screen.

        Args:
            found: the rows of `activation`, [n, C].
            mistakes: the number of mistakes in the table.
        """


class SingleLabel(Problem):
    """One class per example: softmax, cross entropy."""

    name = "single_label_classification"
    metric = "accuracy"

    def encode(self, examples: Sequence[TextExample], names: Names) -> np.ndarray:
        return encode_classes(examples, names)

    def compute_metrics(self, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        same = collapsed(logits.argmax(axis=-1), labels)
        return single_label_metrics(logits, labels) | {"collapsed": float(same)}

    def placeholder_labels(self, count: int, outputs: int) -> np.ndarray:
        """Returns labels for examples that have none, int32 [n]; their weight is 0."""
        return np.zeros(count, np.int32)

    def activation(self, logits: np.ndarray) -> np.ndarray:
        return softmax(logits)

    def prediction(self, row: list[float], names: Names) -> dict[str, Any]:
        best = max(row)
        return {"label": names[row.index(best)], "score": best, "probabilities": dict(zip(names, row, strict=True))}

    def report(self, folder: Path, split: Split, found: np.ndarray, names: Names, mistakes: int) -> list[str]:
        labels = split.labels
        counts = confusion(found.argmax(axis=1), labels, len(names))
        lines = draw_confusion(folder / f"{split.file_prefix}confusion.png", counts, names)
        rows = [
            (
                f"{wrong.probability:.3f}",
                names[wrong.predicted],
                names[wrong.label],
                *_text_and_place(split.examples[wrong.row]),
            )
            for wrong in worst_mistakes(found, labels, mistakes)
        ]
        return lines + list_mistakes(
            folder / f"{split.file_prefix}mistakes.md",
            ("probability", "predicted", "label", "text", "where"),
            rows,
            wrong=int(counts.sum() - counts.trace()),
            total=len(labels),
        )


class MultiLabel(Problem):
    """Any number of labels per example: an independent sigmoid and binary cross entropy for each label."""

    name = "multi_label_classification"
    metric = "f1"

    def encode(self, examples: Sequence[TextExample], names: Names) -> np.ndarray:
        return encode_label_sets(examples, names)

    def compute_metrics(self, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        return multi_label_metrics(logits, labels) | {"collapsed": float(collapsed(logits > 0, labels))}

    def activation(self, logits: np.ndarray) -> np.ndarray:
        return sigmoid(logits)

    def prediction(self, row: list[float], names: Names) -> dict[str, Any]:
        return {
            "labels": [name for name, probability in zip(names, row, strict=True) if probability > 0.5],
            "probabilities": dict(zip(names, row, strict=True)),
        }

    def report(self, folder: Path, split: Split, found: np.ndarray, names: Names, mistakes: int) -> list[str]:
        labels = split.labels  # [n, C], zeros and ones
        correct = (found > 0.5) == labels
        # The confidence of a wrong decision is its distance from 0.5; correct decisions come last.
        confidence = np.where(correct, -1.0, np.abs(found - 0.5))
        worst = np.argsort(-confidence, axis=None, kind="stable")[: min(mistakes, int((~correct).sum()))]
        rows = [
            (
                f"{found[row, label]:.3f}",
                names[int(label)],
                "yes" if labels[row, label] else "no",
                *_text_and_place(split.examples[row]),
            )
            for row, label in zip(*np.unravel_index(worst, confidence.shape), strict=True)
        ]
        return list_mistakes(
            folder / f"{split.file_prefix}mistakes.md",
            ("probability", "label", "is right", "text", "where"),
            rows,
            wrong=int((~correct).any(axis=1).sum()),
            total=len(labels),
        )


class Regression(Problem):
    """One or more scores per example: the logits themselves, mean squared error."""

    name = "regression"
    metric = "pearson"

    def encode(self, examples: Sequence[TextExample], names: Names) -> np.ndarray:
        return encode_scores(examples)

    def compute_metrics(self, logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
        return regression_metrics(logits, labels)

    def activation(self, logits: np.ndarray) -> np.ndarray:
        return np.asarray(logits, np.float64)

    def prediction(self, row: list[float], names: Names) -> dict[str, Any]:
        return {"score": row[0] if len(row) == 1 else row}

    def report(self, folder: Path, split: Split, found: np.ndarray, names: Names, mistakes: int) -> list[str]:
        labels = split.labels  # [n, C]
        draw_scores(folder / f"{split.file_prefix}scores.png", labels[:, 0], found[:, 0])
        errors = np.abs(found - labels).max(axis=1)
        rows = [
            (
                f"{errors[row]:.3f}",
                _join_scores(found[row]),
                _join_scores(labels[row]),
                *_text_and_place(split.examples[row]),
            )
            for row in np.argsort(-errors, kind="stable")[:mistakes]
        ]
        return write_table(
            folder / f"{split.file_prefix}mistakes.md",
            ("error", "predicted", "label", "text", "where"),
            rows,
            summary=f"mean absolute error {np.abs(found - labels).mean():.4f}; the largest errors are",
        )


SINGLE_LABEL = SingleLabel()
MULTI_LABEL = MultiLabel()
REGRESSION = Regression()
PROBLEMS: dict[str, Problem] = {problem.name: problem for problem in (SINGLE_LABEL, MULTI_LABEL, REGRESSION)}


def _text_and_place(example: TextExample) -> tuple[str, str]:
    """Returns an example's text, or both texts of a pair, and where it was read."""
    return example.text if example.pair is None else f"{example.text} / {example.pair}", example.where


def _join_scores(scores: np.ndarray) -> str:
    return ", ".join(f"{score:.3f}" for score in scores)
