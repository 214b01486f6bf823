"""A text and several ways in which it may go on, one of them right.

Each choice is a sequence of its own with a score of its own; the softmax is over the choices of an example.

References: Zellers et al., SWAG, 2018; Devlin et al., BERT, 2018, section 4.4.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bert_jax.data.finetuning.batches import Features
from bert_jax.data.finetuning.sequences import encode_choices
from bert_jax.data.readers.examples import ChoiceExample
from bert_jax.data.readers.labels import no_label
from bert_jax.metrics.classification import collapsed, softmax, worst_mistakes
from bert_jax.models import Bert, BertForMultipleChoice
from bert_jax.tasks.base import Answers, Part, labels_of
from bert_jax.tasks.reports import list_mistakes
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import objectives

PROBLEM = "single_label_classification"


@dataclass(frozen=True, eq=False)
class MultipleChoice:
    """Examples of C choices each.

    Attributes:
        mistakes: how many are listed.
    """

    mistakes: int = 20

    model: ClassVar[type[Bert]] = BertForMultipleChoice
    per_token: ClassVar[bool] = False

    @property
    def metric(self) -> str:
        return "accuracy"

    @property
    def changes(self) -> dict[str, Any]:
        return {}

    def encode(
        self,
        name: str,
        examples: Sequence[ChoiceExample],
        tokenizer: Tokenizer,
        *,
        max_length: int,
        labelled: bool = True,
    ) -> tuple[Part, int]:
        """Encodes a part of the data; also returns how many sequences were cut.

        Raises:
            ValueError: an example without a label, where labels are known.
        """
        for example in examples:
            if labelled and example.label is None:
                raise no_label(example)
        sequences, cut = encode_choices(examples, tokenizer, max_length=max_length)
        choices = len(examples[0].choices)
        labels = np.repeat(np.array([example.label or 0 for example in examples], np.int32), choices)
        weights = np.full(len(labels), float(labelled), np.float32)
        features = Features(sequences, {"labels": labels, "weights": weights}, group=choices)
        return Part(name, examples, features, labelled), cut

    def objective(self, model: Bert, *, learning: bool = True) -> objectives.Objective:
        return objectives.classification(model, problem_type=PROBLEM)

    def decode(self, part: Part, answers: Answers) -> np.ndarray:
        return softmax(answers["logits"])

    def score(self, part: Part, found: np.ndarray) -> dict[str, float]:
        chosen, labels = found.argmax(axis=1), labels_of(part)
        return {"accuracy": float((chosen == labels).mean()), "collapsed": float(collapsed(chosen, labels))}

    def predictions(self, part: Part, found: np.ndarray) -> Iterator[dict[str, Any]]:
        for example, row in zip(part.examples, found.tolist(), strict=True):
            chosen = int(np.argmax(row))
            told = {"text": example.text, "choice": chosen, "score": row[chosen], "probabilities": row}
            yield told if example.label is None else told | {"gold": example.label}

    def report(self, folder: Path, part: Part, found: np.ndarray) -> list[str]:
        if not part.labelled:
            return []
        labels, rows = labels_of(part), []
        for wrong in worst_mistakes(found, labels, self.mistakes):
            example = part.examples[wrong.row]
            said, right = example.choices[wrong.predicted], example.choices[wrong.label]
            rows.append((f"{wrong.probability:.3f}", said, right, example.text, example.where))
        path = folder / f"{part.file_prefix}mistakes.md"
        wrong = int((found.argmax(axis=1) != labels).sum())
        columns = ("probability", "predicted", "right", "text", "where")
        return list_mistakes(path, columns, rows, wrong=wrong, of=len(labels))
