"""Multiple choice: a text and several continuations, one of them right.

Each choice is a separate sequence with one score; the softmax is over the choices of an example.

References: Zellers et al., SWAG, 2018; Devlin et al., BERT, 2018, section 4.4.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bert_jax.data.finetuning.batches import Features
from bert_jax.data.finetuning.sequences import encode_choices
from bert_jax.data.readers.choices import ChoiceColumns, read_choices
from bert_jax.data.readers.examples import ChoiceExample
from bert_jax.data.readers.labels import UNLABELLED, no_label
from bert_jax.data.readers.report import ReadReport
from bert_jax.metrics.classification import collapsed, softmax, worst_mistakes
from bert_jax.models import Bert, BertForMultipleChoice
from bert_jax.tasks.base import TRAIN, TRUNCATED, Do, Logits, PreparedData, Split, Task, TaskData, lost_by
from bert_jax.tasks.problems import SINGLE_LABEL
from bert_jax.tasks.reports import list_mistakes, note_truncated
from bert_jax.tasks.source import ModelSource
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import objectives


@dataclass(frozen=True)
class MultipleChoiceData(TaskData):
    """Data: csv, jsonl, parquet or a hub dataset in the format of SWAG"""

    text_column: str | None = None
    """Column of the text; default: a usual name such as sent1 or question."""
    lead_column: str | None = None
    """Column of the text that every choice begins with; default: sent2 if the text is in sent1."""
    choice_columns: tuple[str, ...] = ()
    """Columns of the choices, or the one column with lists of them; default: ending0, ending1, ..."""
    label_column: str | None = None
    """Column of the right choice: its number from 0 or its letter from A; default: label."""

    summary: ClassVar[str] = "Choose the right one of several continuations: SWAG"
    model: ClassVar[type[Bert]] = BertForMultipleChoice
    training_defaults: ClassVar[Mapping[str, Any]] = {"learning_rate": 5e-5, "batch_size": 16}

    def read_and_encode(self, source: ModelSource, do: Do) -> PreparedData:
        trained_on: Mapping[str, str] = {} if do == "train" else source.columns
        splits = []
        reports = []
        task = MultipleChoice()
        for name, path, split in self.sources(do):
            report = ReadReport(path)
            examples = self._read(path, split, do, trained_on, report)
            if name == TRAIN:
                trained_on = report.columns
                task = MultipleChoice(tuple(trained_on.items()))
            encoded = task.encode(
                name, examples, source.tokenizer, max_length=self.max_length, labelled=do != "predict"
            )
            for line in report.lines():
                print(line)
            choices = len(examples) * encoded.features.group
            note_truncated(encoded.lost[TRUNCATED], choices, f"choices of {encoded.title}", self.max_length)
            splits.append(encoded)
            reports.append(report)
        if len({split.features.group for split in splits}) > 1:
            raise ValueError(f"{self.train} and {self.dev} do not have the same number of choices")
        return PreparedData(task, splits, reports)

    def _read(
        self, path: str, split: str, do: Do, trained_on: Mapping[str, str], report: ReadReport
    ) -> list[ChoiceExample]:
        """Reads a file; rows without a label are left out, except to predict."""

        def print_columns(found: ChoiceColumns) -> None:
            lead = f", which continue {found.lead!r}" if found.lead else ""
            label = f"label in {found.label!r}" if found.label else "no label"
            print(f"{path}: text in {found.text!r}, choices in {', '.join(map(repr, found.choices))}{lead}, {label}")

        examples, columns = read_choices(
            path,
            text_column=self.text_column,
            lead_column=self.lead_column,
            choice_columns=self.choice_columns,
            label_column=self.label_column,
            split=split,
            encoding=self.encoding,
            guess_label=do != "predict",
            trained_on=trained_on,
            on_columns=print_columns,
            report=report,
        )
        texts = {role: name for role, name in columns.by_role.items() if role != "label"}
        wanted = {role: name for role, name in trained_on.items() if role != "label"}
        if do != "train" and wanted and texts != wanted:
            print(f"{path}: the model was trained on {', '.join(map(repr, wanted.values()))}")
        if do == "predict":
            return examples
        labelled = [example for example in examples if example.label is not None]
        for example in examples:
            if example.label is None:
                report.skip(UNLABELLED, example.where)
        if not labelled:
            raise no_label(examples[0], report.columns.get("label"))
        return labelled


@dataclass(frozen=True, eq=False)
class MultipleChoice(Task):
    """Examples of C choices each.

    Attributes:
        columns: of the training data, pairs of a role and a name; None if they are not known.
    """

    columns: tuple[tuple[str, str], ...] | None = None

    model: ClassVar[type[Bert]] = BertForMultipleChoice

    @property
    def metric(self) -> str:
        return "accuracy"

    @property
    def config_changes(self) -> dict[str, Any]:
        return {"data_columns": self.columns}

    def encode(
        self,
        name: str,
        examples: Sequence[ChoiceExample],
        tokenizer: Tokenizer,
        *,
        max_length: int,
        labelled: bool = True,
    ) -> Split:
        """Encodes a split.

        Raises:
            ValueError: an example without a label, although labels are known.
        """
        for example in examples:
            if labelled and example.label is None:
                raise no_label(example)
        sequences, cut = encode_choices(examples, tokenizer, max_length=max_length)
        choices = len(examples[0].choices)
        # One label per sequence, so that a batch can be cut between any two examples: two examples of three choices
        # with the labels 2 and 0 have [2, 2, 2, 0, 0, 0].
        labels = np.repeat(np.array([example.label or 0 for example in examples], np.int32), choices)
        weights = np.full(len(labels), float(labelled), np.float32)
        features = Features(sequences, {"labels": labels, "weights": weights}, group=choices)
        return Split(name, examples, features, labelled, lost_by(cut))

    def objective(self, model: Bert, *, training: bool = True) -> objectives.Objective:
        return objectives.classification(model, problem_type=SINGLE_LABEL.name)

    def decode(self, split: Split, logits: Logits) -> np.ndarray:
        return softmax(logits["logits"])  # [n, C]

    def compute_metrics(self, split: Split, decoded: np.ndarray) -> dict[str, float]:
        chosen = decoded.argmax(axis=1)
        accuracy = (chosen == split.labels).mean()
        return {"accuracy": float(accuracy), "collapsed": float(collapsed(chosen, split.labels))}

    def predictions(self, split: Split, decoded: np.ndarray) -> Iterator[dict[str, Any]]:
        for example, row in zip(split.examples, decoded.tolist(), strict=True):
            chosen = int(np.argmax(row))
            prediction = {"text": example.text, "choice": chosen, "score": row[chosen], "probabilities": row}
            yield prediction if example.label is None else prediction | {"gold": example.label}

    def report(self, folder: Path, split: Split, decoded: np.ndarray, *, mistakes: int) -> list[str]:
        if not split.labelled:
            return []
        rows = []
        for wrong in worst_mistakes(decoded, split.labels, mistakes):
            example = split.examples[wrong.row]
            choices = example.choices[wrong.predicted], example.choices[wrong.label]
            rows.append((f"{wrong.probability:.3f}", *choices, example.text, example.where))
        return list_mistakes(
            folder / f"{split.file_prefix}mistakes.md",
            ("probability", "predicted", "right", "text", "where"),
            rows,
            wrong=int((decoded.argmax(axis=1) != split.labels).sum()),
            total=len(split.labels),
        )
