"""Texts, or pairs of texts, with a class each, with labels that may hold together, or with scores.

References: Devlin et al., BERT, 2018, section 4.1.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bert_jax.data.finetuning.batches import Features
from bert_jax.data.finetuning.sequences import encode_texts
from bert_jax.data.readers.examples import TextExample
from bert_jax.data.readers.labels import encode_labels
from bert_jax.metrics.classification import (
    classification_scores,
    collapsed,
    confusion,
    predict,
    sigmoid,
    softmax,
    worst_mistakes,
)
from bert_jax.models import Bert, BertForSequenceClassification
from bert_jax.tasks.base import Answers, Part, labels_of
from bert_jax.tasks.reports import draw_confusion, draw_scores, list_mistakes, list_worst
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import objectives

METRICS = {
    "single_label_classification": "accuracy",
    "multi_label_classification": "f1",
    "regression": "pearson",
}


@dataclass(frozen=True, eq=False)
class Classification:
    """Sequences with labels of a `problem_type`.

    Attributes:
        problem_type: one of Hugging Face's.
        names: of the classes, in the order of their ids; none for scores.
        values: how many scores an example has.
        metric: what decides which model is the best.
        smoothing: of labels, see `losses.cross_entropy`.
        mistakes: how many are listed.
    """

    problem_type: str
    names: tuple[str, ...] = ()
    values: int = 1
    metric: str = ""
    smoothing: float = 0.0
    mistakes: int = 20

    model: ClassVar[type[Bert]] = BertForSequenceClassification
    per_token: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not self.metric:
            object.__setattr__(self, "metric", METRICS[self.problem_type])

    @property
    def changes(self) -> dict[str, Any]:
        labels = {"label_names": self.names} if self.names else {"num_labels": self.values, "label_names": None}
        return {"problem_type": self.problem_type, **labels}

    def encode(
        self,
        name: str,
        examples: Sequence[TextExample],
        tokenizer: Tokenizer,
        *,
        max_length: int,
        labelled: bool = True,
        balanced: bool = False,
    ) -> tuple[Part, int]:
        """Encodes a part of the data; also returns how many examples were cut.

        Args:
            labelled: whether labels are known; else they weigh nothing.
            balanced: whether the classes weigh the same, however many examples each has.
        """
        sequences, cut = encode_texts(examples, tokenizer, max_length=max_length)
        weights = np.full(len(examples), float(labelled), np.float32)
        labels: np.ndarray
        if labelled:
            labels = encode_labels(examples, self.names, self.problem_type)
        elif self.problem_type == "single_label_classification":
            labels = np.zeros(len(examples), np.int32)
        else:
            labels = np.zeros((len(examples), len(self.names) or self.values), np.float32)
        if labels.ndim == 2 and labels.shape[1] != (len(self.names) or self.values):
            raise ValueError(f"{examples[0].where}: wanted {self.values} score(s) a text, found {labels.shape[1]}")
        if balanced:
            counts = np.bincount(labels, minlength=len(self.names))
            weights = (len(labels) / (np.maximum(counts, 1) * np.count_nonzero(counts)))[labels].astype(np.float32)
        return Part(name, examples, Features(sequences, {"labels": labels, "weights": weights}), labelled), cut

    def objective(self, model: Bert, *, learning: bool = True) -> objectives.Objective:
        smoothing = self.smoothing if learning else 0.0
        return objectives.classification(model, problem_type=self.problem_type, smoothing=smoothing)

    def decode(self, part: Part, answers: Answers) -> np.ndarray:
        return answers["logits"]

    def score(self, part: Part, found: np.ndarray) -> dict[str, float]:
        labels = labels_of(part)
        scores = classification_scores(found, labels, self.problem_type)
        if self.problem_type != "regression":
            scores["collapsed"] = float(collapsed(predict(found, self.problem_type), labels))
        return scores

    def probabilities(self, logits: np.ndarray) -> np.ndarray:
        """Returns what is predicted, float [n, C]: probabilities, or scores."""
        logits = np.asarray(logits, np.float64)
        if self.problem_type == "regression":
            return logits
        if self.problem_type == "multi_label_classification":
            return sigmoid(logits)
        return softmax(logits)

    def predictions(self, part: Part, found: np.ndarray) -> Iterator[dict[str, Any]]:
        for example, row in zip(part.examples, self.probabilities(found).tolist(), strict=True):
            told: dict[str, Any] = {"text": example.text}
            if example.pair is not None:
                told["pair"] = example.pair
            if self.problem_type == "regression":
                told["score"] = row[0] if len(row) == 1 else row
            else:
                if self.problem_type == "single_label_classification":
                    told |= {"label": self.names[int(np.argmax(row))], "score": max(row)}
                else:
                    told["labels"] = [name for name, share in zip(self.names, row, strict=True) if share > 0.5]
                told["probabilities"] = dict(zip(self.names, row, strict=True))
            yield told if example.label is None else told | {"gold": example.label}

    def report(self, folder: Path, part: Part, found: np.ndarray) -> list[str]:
        if not part.labelled:
            return []
        labels, found = labels_of(part), self.probabilities(found)
        path = folder / f"{part.file_prefix}mistakes.md"
        if self.problem_type == "regression":
            draw_scores(folder / f"{part.file_prefix}scores.png", labels[:, 0], found[:, 0])
            said = f"mean absolute error {np.abs(found - labels).mean():.4f}; the largest errors are"
            columns = ("error", "predicted", "label", "text", "where")
            return list_worst(path, columns, self.farthest(part, found, labels), said=said)
        if self.problem_type == "multi_label_classification":
            wrong, rows = int(((found > 0.5) != labels).any(axis=1).sum()), self.wrong_decisions(part, found, labels)
            columns = ("probability", "label", "is right", "text", "where")
        else:
            taken = confusion(found.argmax(axis=1), labels, len(self.names))
            draw_confusion(folder / f"{part.file_prefix}confusion.png", taken, self.names)
            wrong, rows = int(taken.sum() - taken.trace()), self.wrong_classes(part, found, labels)
            columns = ("probability", "predicted", "label", "text", "where")
        return list_mistakes(path, columns, rows, wrong=wrong, of=len(labels))

    def wrong_classes(self, part: Part, found: np.ndarray, labels: np.ndarray) -> list[tuple[str, ...]]:
        """Returns the most confident mistakes among classes, a row each."""
        return [
            (
                f"{wrong.probability:.3f}",
                self.names[wrong.predicted],
                self.names[wrong.label],
                *told(part.examples[wrong.row]),
            )
            for wrong in worst_mistakes(found, labels, self.mistakes)
        ]

    def wrong_decisions(self, part: Part, found: np.ndarray, labels: np.ndarray) -> list[tuple[str, ...]]:
        """Returns the most confident mistakes among decisions for or against a label, a row each."""
        sure = np.where((found > 0.5) == labels, -1.0, np.abs(found - 0.5))
        order = np.argsort(-sure, axis=None, kind="stable")[: min(self.mistakes, int((sure >= 0).sum()))]
        return [
            (
                f"{found[row, label]:.3f}",
                self.names[label],
                "yes" if labels[row, label] else "no",
                *told(part.examples[row]),
            )
            for row, label in zip(*np.unravel_index(order, sure.shape), strict=True)
        ]

    def farthest(self, part: Part, found: np.ndarray, labels: np.ndarray) -> list[tuple[str, ...]]:
        """Returns the scores that are farthest from what they should be, a row each."""
        errors = np.abs(found - labels).max(axis=1)
        return [
            (f"{errors[row]:.3f}", listed(found[row]), listed(labels[row]), *told(part.examples[row]))
            for row in np.argsort(-errors, kind="stable")[: self.mistakes]
        ]


def told(example: TextExample) -> tuple[str, str]:
    """Returns an example's text and its place."""
    return example.text if example.pair is None else f"{example.text} / {example.pair}", example.where


def listed(scores: np.ndarray) -> str:
    return ", ".join(f"{score:.3f}" for score in scores)
