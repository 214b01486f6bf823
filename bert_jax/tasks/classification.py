"""Classification: texts or pairs of texts with one class, any number of labels, or scores.

References: Devlin et al., BERT, 2018, section 4.1.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np

from bert_jax.config import BertConfig
from bert_jax.data.finetuning.batches import Features
from bert_jax.data.finetuning.sequences import encode_texts
from bert_jax.data.readers.examples import TextExample
from bert_jax.data.readers.glue import GlueTask, glue_task, read_glue
from bert_jax.data.readers.labels import clean_labels, label_names
from bert_jax.data.readers.movie_reviews import labelled_reviews
from bert_jax.data.readers.report import ReadReport
from bert_jax.data.readers.texts import TextColumns, read_texts
from bert_jax.messages import counted
from bert_jax.metrics.label_scores import label_scores
from bert_jax.models import Bert, BertForSequenceClassification
from bert_jax.tasks.base import (
    TRAIN,
    TRUNCATED,
    Do,
    Logits,
    PreparedData,
    Split,
    Task,
    TaskData,
    Unused,
    lost_by,
    parse_names,
)
from bert_jax.tasks.problems import MULTI_LABEL, PROBLEMS, REGRESSION, SINGLE_LABEL, Problem
from bert_jax.tasks.reports import note_labels, note_truncated
from bert_jax.tasks.source import ModelSource
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import objectives
from bert_jax.training.settings import require_fraction

Examples = dict[str, list[TextExample]]  # by the name of their split
FILE_FIELDS = (
    "train", "dev", "text_column", "pair_column", "label_column", "label_columns", "label_names", "header", "encoding",
    "train_split", "dev_split", "problem_type", "label_separator",
)  # fmt: skip


@dataclass(frozen=True)
class ClassificationData(TaskData):
    """Data: csv, tsv, jsonl, parquet, a hub dataset or GLUE; default: 2,000 film reviews, a fifth of them held out"""

    text_column: str | None = None
    """Column of the text; default: a usual name such as text or sentence."""
    pair_column: str | None = None
    """Column of the second text of a pair."""
    label_column: str | None = None
    """Column of the label; default: a usual name such as label."""
    label_columns: tuple[str, ...] = ()
    """One column for each label, with zeros and ones, or scores; default for multi_label_classification without a label
    column: all columns of zeros and ones."""
    label_names: str | None = None
    """Names of labels that are numbers or lists of zeros and ones, in order, separated by commas: negative,positive."""
    header: bool = True
    """Whether the first line of a csv or tsv file names the columns; otherwise they are named 1, 2, ..."""
    problem_type: Literal["single_label_classification", "multi_label_classification", "regression"] = (
        "single_label_classification"
    )
    """One class per text, any number of labels per text, or scores."""
    label_separator: str = ","
    """Separator between the labels of one text, for multi_label_classification."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: weight examples so that every class has the same total weight."""
    label_smoothing: float = 0.0
    """Fraction of each label's probability that is spread over all classes."""
    glue: str | None = None
    """A GLUE task (cola, sst2, mrpc, ...), instead of --train and --dev."""
    glue_folder: str | None = None
    """Folder of GLUE's own files, such as FOLDER/MRPC/train.tsv; default: the hub."""

    summary: ClassVar[str] = "Classify texts or pairs of texts: one class, any number of labels, or scores"
    model: ClassVar[type[Bert]] = BertForSequenceClassification

    def check(self, do: Do) -> None:
        super().check(do)
        require_fraction(self, "label_smoothing")
        if not self.label_separator:
            raise ValueError("`label_separator` must not be empty")
        if self.label_column is not None and self.label_columns:
            raise ValueError("`label_column` cannot be combined with `label_columns`")
        parse_names(self.label_names)

    @property
    def problem(self) -> Problem:
        """The problem that the settings ask for; GLUE has its own."""
        return PROBLEMS[glue_task(self.glue).problem_type if self.glue else self.problem_type]

    def unused(self, do: Do) -> list[Unused]:
        reviews = self.glue is None and self.train is None and self.dev is None
        not_single = f"is only used for {SINGLE_LABEL.name}, not for {self.problem.name}"
        return [
            Unused(self.glue is not None, FILE_FIELDS, "is not used with `glue`, which sets the data and the problem"),
            Unused(self.glue is None, ["glue_folder"], "is only used with `glue`"),
            Unused(reviews, FILE_FIELDS, "is only used with `train` and `dev`, not for the film reviews"),
            Unused(self.problem is not SINGLE_LABEL, ["label_smoothing", "class_weights"], not_single),
            Unused(self.problem is REGRESSION, ["label_names"], f"is not used for {REGRESSION.name}"),
            Unused(
                do == "train" and self.problem is not MULTI_LABEL,
                ["label_separator"],
                f"is only used with `problem_type={MULTI_LABEL.name}`",
            ),
        ]

    def check_files(self, do: Do) -> None:
        reviews = do != "predict" and self.train is None and self.dev is None
        if not reviews and self.glue is None:
            super().check_files(do)

    def read_and_encode(self, source: ModelSource, do: Do) -> PreparedData:
        reports: list[ReadReport] = []
        examples, task = (self._read_glue if self.glue else self._read_files)(source, do, reports)
        splits = []
        for (name, read), report in zip(examples.items(), reports, strict=True):
            some = clean_labels(
                read, task.names or None, report, numbered=self.label_names is not None, drop=do != "predict"
            )
            for example in some:
                if not example.text.strip() or (example.pair is not None and not example.pair.strip()):
                    report.change("rows with an empty text", example.where)
            if name == TRAIN:  # the first split; its labels are those of the others
                task = task.with_labels_of(some, source)
                note_labels(task.names, len(some))
            split = task.encode(
                name,
                some,
                source.tokenizer,
                max_length=self.max_length,
                labelled=do != "predict",
                balanced=name == TRAIN and self.class_weights == "balanced",
            )
            for line in report.lines():
                print(line)
            note_truncated(split.lost[TRUNCATED], len(some), f"examples of {split.title}", self.max_length)
            splits.append(split)
        return PreparedData(task, splits, reports)

    def _read_glue(self, source: ModelSource, do: Do, reports: list[ReadReport]) -> tuple[Examples, "Classification"]:
        """Reads a GLUE task: the examples of each split, and the task."""
        glue = glue_task(str(self.glue))
        kind = "test" if do == "predict" else "validation"
        held_out = [split for split in glue.files if split.startswith(kind)]
        if not held_out:
            raise ValueError(f"{glue.name} has no {kind} split; its splits are {', '.join(glue.files)}")
        examples: Examples = {}
        for split in (["train"] if do == "train" else []) + held_out:
            # The first held-out split selects the best model and has an empty name. MNLI has a second one:
            # validation_matched -> "", validation_mismatched -> "mismatched".
            name = split if split == "train" else "" if split == held_out[0] else split.removeprefix(f"{kind}_")
            report = ReadReport(f"{glue.name} {split}")
            examples[name] = read_glue(glue.config, split, self.glue_folder, report=report)
            reports.append(report)
        names = glue.labels if do == "train" else glue_label_order(glue, source)
        return examples, Classification(
            glue.problem_type,
            names,
            best_by=glue.metrics[0],
            smoothing=self.label_smoothing,
            columns=tuple(reports[0].columns.items()),
        )

    def _read_files(self, source: ModelSource, do: Do, reports: list[ReadReport]) -> tuple[Examples, "Classification"]:
        """Reads `train` and `dev`, or the film reviews: the examples of each split, and the task."""
        names = parse_names(self.label_names) if do == "train" else self._names_of(source)
        if self.dev is None:
            train, held_out = labelled_reviews()
            reports += [ReadReport("film reviews", rows=len(train))] if do == "train" else []
            reports.append(ReadReport("held-out film reviews", rows=len(held_out)))
            task = Classification(SINGLE_LABEL.name, names, smoothing=self.label_smoothing)
            return {TRAIN: train, "": held_out} if do == "train" else {"": held_out}, task
        problem = self.problem if do == "train" else self._problem_of(source)
        trained_on: Mapping[str, str] = {} if do == "train" else source.columns
        examples: Examples = {}
        for name, path, split in self.sources(do):
            report = ReadReport(path)
            examples[name], found = read_texts(
                path,
                text_column=self.text_column,
                pair_column=self.pair_column,
                label_column=self.label_column,
                label_columns=self.label_columns,
                label_names=names,
                problem_type=problem.name,
                label_separator=self.label_separator,
                split=split,
                encoding=self.encoding,
                header=self.header,
                guess_label=do != "predict",
                trained_on=trained_on,
                on_columns=partial(self._print_columns, path, {} if do == "train" else trained_on),
                report=report,
            )
            reports.append(report)
            if name == TRAIN:
                names = found.classes or names
                trained_on = report.columns
        columns = tuple(trained_on.items()) or None
        task = Classification(problem.name, names, smoothing=self.label_smoothing, columns=columns)
        if problem is REGRESSION:
            values = 1 if do == "train" else source.config.num_labels
            task = replace(task, names=(), values=values, trained=None if do == "train" else source.config)
        return examples, task

    def _print_columns(self, path: str, trained_on: Mapping[str, str], found: TextColumns) -> None:
        """Prints the columns that are read, and a difference to those that the model was trained on.

        Raises:
            ValueError: single texts for a model of pairs, or pairs for a model of single texts.
        """
        texts = f"{found.text!r} and {found.pair!r}" if found.pair else f"{found.text!r}"
        label = ", ".join(found.flags) or found.label
        print(f"{path}: text in {texts}, " + (f"label in {label!r}" if label else "no label"))
        if not trained_on:
            return
        wanted = " and ".join(repr(trained_on[role]) for role in ("text", "pair") if role in trained_on)
        if "pair" in trained_on and not found.pair:
            raise ValueError(
                f"{path}: single texts in {texts}, but the model was trained on pairs in {wanted}: name both columns "
                "with `text_column` and `pair_column`"
            )
        if "pair" not in trained_on and found.pair and self.pair_column is None:
            raise ValueError(
                f"{path}: pairs of texts in {texts}, but the model was trained on single texts in {wanted}: name the "
                "column with `text_column`"
            )
        if texts != wanted:
            print(f"{path}: the model was trained on texts in {wanted}")

    def _names_of(self, source: ModelSource) -> tuple[str, ...]:
        """Returns the label names of a trained model; `label_names` may name labels that have no names.

        Raises:
            ValueError: `label_names` differ from the model's.
        """
        names = source.label_names
        unnamed = all(name in (f"LABEL_{number}", str(number)) for number, name in enumerate(names))
        given = parse_names(self.label_names)
        if not given or given == names:
            return names
        if not unnamed or len(names) != len(given):
            raise ValueError(f"`label_names={self.label_names}`: the labels of {source.folder} are {', '.join(names)}")
        return given

    def _problem_of(self, source: ModelSource) -> Problem:
        """Returns the problem that a trained model solves."""
        config = source.config
        name = config.problem_type or (REGRESSION.name if config.num_labels == 1 else self.problem_type)
        if self.problem_type not in (name, SINGLE_LABEL.name):
            raise ValueError(f"`problem_type={self.problem_type}`: {source.folder} is a model for {name}")
        return PROBLEMS[name]


@dataclass(frozen=True, eq=False)
class Classification(Task):
    """Sequences with labels of one `problem_type`.

    Attributes:
        problem_type: a key of `PROBLEMS`.
        names: of the classes, in the order of their ids; empty for regression.
        values: the number of scores per example, for regression.
        best_by: the metric that selects the best model; empty = that of the problem.
        smoothing: of labels, see `bert_jax.functional.losses.cross_entropy`.
        trained: for regression without training, the model's config, which says what its logits mean.
        columns: of the training data, pairs of a role and a name; None if there are none.
    """

    problem_type: str
    names: tuple[str, ...] = ()
    values: int = 1
    best_by: str = ""
    smoothing: float = 0.0
    trained: BertConfig | None = None
    columns: tuple[tuple[str, str], ...] | None = None

    model: ClassVar[type[Bert]] = BertForSequenceClassification

    @property
    def problem(self) -> Problem:
        return PROBLEMS[self.problem_type]

    @property
    def metric(self) -> str:
        return self.best_by or self.problem.metric

    @property
    def outputs(self) -> int:
        """C, the number of logits per example."""
        return len(self.names) or self.values

    @property
    def config_changes(self) -> dict[str, Any]:
        labels = {"label_names": self.names} if self.names else {"num_labels": self.values, "label_names": None}
        return {"problem_type": self.problem_type, "data_columns": self.columns, **labels}

    def with_labels_of(self, examples: Sequence[TextExample], source: ModelSource) -> "Classification":
        """Returns the task with the labels of its training examples, in the order of the model's if it has them all."""
        if self.problem is REGRESSION:
            first = examples[0].label
            return replace(self, values=len(first) if isinstance(first, tuple) else 1)
        used: set[Any] = set()
        for example in examples:
            used |= set(example.label) if isinstance(example.label, tuple) else {example.label}
        given = self.names or source.reusable_labels(self.model, used)
        return replace(self, names=label_names(examples, given))

    def encode(
        self,
        name: str,
        examples: Sequence[TextExample],
        tokenizer: Tokenizer,
        *,
        max_length: int,
        labelled: bool = True,
        balanced: bool = False,
    ) -> Split:
        """Encodes a split.

        Args:
            labelled: whether labels are known; otherwise every weight is 0.
            balanced: whether all classes have the same total weight. With labels [0, 0, 0, 1] the weights are
                4 / (3 * 2) for class 0 and 4 / (1 * 2) for class 1: 2 in total for each.
        """
        sequences, cut = encode_texts(examples, tokenizer, max_length=max_length)
        weights = np.full(len(examples), float(labelled), np.float32)
        if labelled:
            labels = self.problem.encode(examples, self.names)
        else:
            labels = self.problem.placeholder_labels(len(examples), self.outputs)
        if labels.ndim == 2 and labels.shape[1] != self.outputs:
            raise ValueError(
                f"{examples[0].where}: expected {counted(self.values, 'score')} per text, got {labels.shape[1]}"
            )
        if balanced:
            counts = np.bincount(labels, minlength=len(self.names))
            present = np.count_nonzero(counts)
            weights = (len(labels) / (np.maximum(counts, 1) * present))[labels].astype(np.float32)
        features = Features(sequences, {"labels": labels, "weights": weights})
        return Split(name, examples, features, labelled, lost_by(cut))

    def objective(self, model: Bert, *, training: bool = True) -> objectives.Objective:
        smoothing = self.smoothing if training else 0.0
        return objectives.classification(model, problem_type=self.problem_type, smoothing=smoothing)

    def decode(self, split: Split, logits: Logits) -> np.ndarray:
        found = logits["logits"]
        return found if self.trained is None else label_scores(found, self.trained)

    def compute_metrics(self, split: Split, decoded: np.ndarray) -> dict[str, float]:
        return self.problem.compute_metrics(decoded, split.labels)

    def predictions(self, split: Split, decoded: np.ndarray) -> Iterator[dict[str, Any]]:
        for example, row in zip(split.examples, self.problem.activation(decoded).tolist(), strict=True):
            texts = {"text": example.text} if example.pair is None else {"text": example.text, "pair": example.pair}
            gold = {} if example.label is None else {"gold": example.label}
            yield texts | self.problem.prediction(row, self.names) | gold

    def report(self, folder: Path, split: Split, decoded: np.ndarray, *, mistakes: int) -> list[str]:
        if not split.labelled:
            return []
        return self.problem.report(folder, split, self.problem.activation(decoded), self.names, mistakes)


def glue_label_order(glue: GlueTask, source: ModelSource) -> tuple[str, ...]:
    """Returns GLUE's label names in the order of the model's, which may differ from GLUE's.

    Raises:
        ValueError: the model has other labels.
    """
    wanted = max(len(glue.labels), 1)
    if source.config.num_labels != wanted:
        raise ValueError(f"{source.folder} has {counted(source.config.num_labels, 'label')}, {glue.name} has {wanted}")
    names = source.config.label_names
    if names is None or not glue.labels:
        return glue.labels
    known = {name.lower(): name for name in glue.labels}
    if {name.lower() for name in names} != known.keys():
        raise ValueError(f"label mismatch: model has [{', '.join(names)}], {glue.name} has [{', '.join(glue.labels)}]")
    return tuple(known[name.lower()] for name in names)
