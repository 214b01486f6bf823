"""The tasks of GLUE as a table, and a reader for GLUE's own files and for the Hugging Face hub.

References: Wang et al., GLUE: A Multi-Task Benchmark and Analysis Platform for Natural Language Understanding, 2018.
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from bert_jax.data.readers.cells import parse_label
from bert_jax.data.readers.examples import Label, TextExample
from bert_jax.data.readers.labels import canonical
from bert_jax.data.readers.report import ReadReport
from bert_jax.data.readers.sources import find_origins
from bert_jax.data.readers.tables import no_rows, read_rows
from bert_jax.data.readers.texts import require_text

HUB = "nyu-mll/glue"
SPLITS = {"train": "train.tsv", "validation": "dev.tsv", "test": "test.tsv"}
Columns = tuple[str, str | None, str]  # text, pair, label


@dataclass(frozen=True)
class GlueTask:
    """One task of GLUE.

    Attributes:
        name: GLUE's name of the task, and its folder in GLUE's files.
        config: its name on the hub.
        labels: the class names in the order of their ids; empty for regression.
        metrics: the metrics that GLUE reports; the first one selects the best model.
        columns: text, pair and label on the hub.
        file_columns: the same in GLUE's files. Numbers stand for files without a header.
        files: the file of each split. Splits that begin with "validation" have labels.
        ragged: whether some rows of the files have missing fields. They are skipped and reported.
    """

    name: str
    config: str
    labels: tuple[str, ...]
    metrics: tuple[str, ...]
    columns: Columns
    file_columns: Columns
    files: dict[str, str] = field(default_factory=lambda: SPLITS)
    ragged: bool = False

    @property
    def problem_type(self) -> str:
        return "single_label_classification" if self.labels else "regression"


_ENTAILED = ("entailment", "not_entailment")
_INFERENCE = ("entailment", "neutral", "contradiction")
_SENTENCES = ("sentence1", "sentence2", "label")
_PREMISE = ("premise", "hypothesis", "label")
_MNLI_FILES = {
    "train": "train.tsv",
    "validation_matched": "dev_matched.tsv",
    "validation_mismatched": "dev_mismatched.tsv",
    "test_matched": "test_matched.tsv",
    "test_mismatched": "test_mismatched.tsv",
}

GLUE = {task.config: task for task in (
    GlueTask("CoLA", "cola", ("unacceptable", "acceptable"), ("matthews",),
             ("sentence", None, "label"), ("4", None, "2")),
    GlueTask("SST-2", "sst2", ("negative", "positive"), ("accuracy",),
             ("sentence", None, "label"), ("sentence", None, "label")),
    GlueTask("MRPC", "mrpc", ("not_equivalent", "equivalent"), ("f1", "accuracy"),
             _SENTENCES, ("#1 String", "#2 String", "Quality")),
    GlueTask("STS-B", "stsb", (), ("pearson", "spearman"),
             _SENTENCES, ("sentence1", "sentence2", "score")),
    GlueTask("QQP", "qqp", ("not_duplicate", "duplicate"), ("f1", "accuracy"),
             ("question1", "question2", "label"), ("question1", "question2", "is_duplicate"), ragged=True),
    GlueTask("MNLI", "mnli", _INFERENCE, ("accuracy",),
             _PREMISE, ("sentence1", "sentence2", "gold_label"), _MNLI_FILES),
    GlueTask("QNLI", "qnli", _ENTAILED, ("accuracy",),
             ("question", "sentence", "label"), ("question", "sentence", "label")),
    GlueTask("RTE", "rte", _ENTAILED, ("accuracy",), _SENTENCES, _SENTENCES),
    GlueTask("WNLI", "wnli", _ENTAILED[::-1], ("accuracy",), _SENTENCES, _SENTENCES),
    # The diagnostic set for models of MNLI; its labels are not public.
    GlueTask("diagnostic", "ax", _INFERENCE, ("matthews",), _PREMISE, _SENTENCES, {"test": "diagnostic.tsv"}),
)}  # fmt: skip


def glue_task(name: str) -> GlueTask:
    """Returns a task by its name in GLUE or on the hub, in upper or lower case.

    Raises:
        ValueError: no such task.
    """
    for task in GLUE.values():
        if name.lower() in {task.name.lower(), task.config}:
            return task
    raise ValueError(f"no GLUE task {name!r}; the tasks are {', '.join(GLUE)}")


def read_glue(
    name: str, split: str, glue_folder: str | os.PathLike[str] | None = None, *, report: ReadReport | None = None
) -> list[TextExample]:
    """Reads a split of a task; labels have the hub's names for both sources.

    Args:
        name: of the task, as in `MRPC` or `mrpc`.
        split: `train`, `validation` or `test`; MNLI has `validation_matched`, `validation_mismatched` and so on.
        glue_folder: with GLUE's own files, as in glue_folder/MRPC/dev.tsv; None reads from the hub.
        report: counts the rows, and those that are skipped.

    Returns:
        The examples, without labels in a test split.

    Raises:
        OSError, ValueError: no such task, split or file, or an invalid row; the message has file and line.
    """
    task = glue_task(name)
    if split not in task.files:
        raise ValueError(f"{task.name} has no split {split!r}; its splits are {', '.join(task.files)}")
    labelled = not split.startswith("test")
    if glue_folder is None:
        source, columns, header = f"{HUB}:{task.config}", task.columns, True
    else:
        source = str(Path(glue_folder) / task.name / task.files[split])
        columns, header = _columns_of_files(task, labelled)
    text, pair, label = columns
    wanted = [column for column in (text, pair, label if labelled else None) if column]
    report = ReadReport(source) if report is None else report
    report.columns = {role: name for role, name in (("text", text), ("pair", pair), ("label", label)) if name in wanted}
    examples = []
    try:
        [origin] = find_origins([source], split)
    except OSError as error:
        if glue_folder is not None:
            raise
        own = f"FOLDER/{task.name}/{task.files[split]}"
        raise OSError(f"{error}; `glue_folder=FOLDER` reads GLUE's own {own}") from None
    for where, row in read_rows(origin, wanted, header=header, ragged=report if task.ragged else None):
        report.rows += 1
        second = require_text(row, pair, where) if pair else None
        found = _label(row[label], task, where) if labelled else None
        examples.append(TextExample(require_text(row, text, where), second, found, where))
    if not examples:
        raise no_rows(source)
    return examples


def _columns_of_files(task: GlueTask, labelled: bool) -> tuple[Columns, bool]:
    """Returns the columns in the files, and whether the files have a header."""
    if not task.file_columns[0].isdecimal():
        return task.file_columns, True
    # CoLA's test file has a header where the others have none.
    return (task.file_columns, False) if labelled else (task.columns, True)


def _label(value: object, task: GlueTask, where: str) -> Label:
    """Returns a score or a class name; files may have the id of the class instead."""
    label = parse_label(value, task.problem_type, ",", f"{where}: the label")
    number = canonical(label) if isinstance(label, str) else ""
    if number.isdecimal() and int(number) < len(task.labels):
        return task.labels[int(number)]
    if label is None or (task.labels and label not in task.labels):
        raise ValueError(f"{where}: label {value!r} is not one of {', '.join(task.labels) or 'the numbers'}")
    return label
