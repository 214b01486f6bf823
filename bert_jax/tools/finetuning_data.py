"""From the settings of fine-tuning to a task with its data, encoded.

What was guessed, cut or left out is printed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from bert_jax.config import BertConfig
from bert_jax.data.choices import read_choices
from bert_jax.data.examples import TextExample
from bert_jax.data.glue import glue_task, read_glue
from bert_jax.data.labels import label_names
from bert_jax.data.movie_reviews import labelled_reviews
from bert_jax.data.questions import read_questions
from bert_jax.data.tagged import read_tagged
from bert_jax.data.texts import find_text_columns, read_texts
from bert_jax.tasks import Classification, MultipleChoice, Part, QuestionAnswering, Tagging, Task
from bert_jax.tokenization import Tokenizer
from bert_jax.tools import finetuning

SINGLE, MULTIPLE, SCORES = "single_label_classification", "multi_label_classification", "regression"


@dataclass(frozen=True)
class Prepared:
    """A task, and its data.

    Attributes:
        train: None where nothing is trained.
        held_out: the parts to evaluate or predict; the first decides which model is the best.
    """

    task: Task
    train: Part | None
    held_out: list[Part]


def prepare(settings: finetuning.Settings, tokenizer: Tokenizer, config: BertConfig) -> Prepared:
    """Reads and encodes the data of a task.

    Args:
        config: that of the model to start from; it names the labels where nothing is trained.

    Raises:
        OSError, ValueError: data that lack or are wrong, with file and line.
    """
    by_kind: dict[type, Callable[..., Prepared]] = {
        finetuning.Classification: prepare_texts,
        finetuning.Tokens: prepare_tagged,
        finetuning.QuestionAnswering: prepare_questions,
        finetuning.MultipleChoice: prepare_choices,
    }
    prepared = by_kind[type(settings)](settings, tokenizer, config)
    sizes = [f"{part.name or 'dev'}: {len(part.examples):,} examples" for part in prepared.held_out]
    if prepared.train:
        sizes.insert(0, f"train: {len(prepared.train.examples):,} examples")
    print("; ".join(sizes))
    return prepared


def prepare_texts(settings: finetuning.Classification, tokenizer: Tokenizer, config: BertConfig) -> Prepared:
    data, training = settings.data, settings.run.do == "train"
    train, held_out, task = read_glue_task(settings) if data.glue else read_text_files(settings, config)
    if training and task.problem_type != SCORES:
        task = replace(task, names=label_names(train, task.names or None))
    elif training:
        first = train[0].label
        task = replace(task, values=len(first) if isinstance(first, tuple) else 1)
    parts = []
    if training:
        part, cut = task.encode(
            "train", train, tokenizer, max_length=data.max_length, balanced=data.class_weights == "balanced"
        )
        say_cut(cut, len(train), "training examples", data.max_length)
        parts.append(part)
    labelled = settings.run.do != "predict"
    for name, examples in held_out.items():
        part, cut = task.encode(name, examples, tokenizer, max_length=data.max_length, labelled=labelled)
        say_cut(cut, len(examples), "held-out examples", data.max_length)
        parts.append(part)
    return Prepared(task, parts[0] if training else None, parts[training:])


def read_glue_task(
    settings: finetuning.Classification,
) -> tuple[list[TextExample], dict[str, list[TextExample]], Classification]:
    """Reads a task of GLUE: examples to train on, parts held out, and the task."""
    data, found = settings.data, glue_task(str(settings.data.glue))
    splits = {split.removeprefix("validation").strip("_"): split for split in found.dev_splits}
    if settings.run.do == "predict":
        splits = {split.removeprefix("test").strip("_"): split for split in found.files if split.startswith("test")}
    held_out = {}
    for name, split in splits.items():
        held_out[name if held_out else ""], notes = read_glue(found.config, split, data.glue_folder)
        say_notes(notes, "rows left out")
    train: list[TextExample] = []
    if settings.run.do == "train":
        train, notes = read_glue(found.config, "train", data.glue_folder)
        say_notes(notes, "rows left out")
    names = found.labels
    task = Classification(
        found.problem_type,
        names,
        metric=found.metrics[0],
        smoothing=data.label_smoothing,
        mistakes=settings.reports.mistakes,
    )
    return train, held_out, task


def read_text_files(
    settings: finetuning.Classification, config: BertConfig
) -> tuple[list[TextExample], dict[str, list[TextExample]], Classification]:
    """Reads texts from --train and --dev, or the film reviews: examples to train on, those held out, and the task."""
    data = settings.data
    options = {"smoothing": data.label_smoothing, "mistakes": settings.reports.mistakes}
    known = names_of(config) if settings.run.do != "train" else ()
    if data.train is None and data.dev is None:
        train, held_out = labelled_reviews()
        return train, {"": held_out}, Classification(SINGLE, known, **options)
    problem = data.problem_type if settings.run.do == "train" else config.problem_type or data.problem_type
    kept = {
        "text_column": data.text_column,
        "pair_column": data.pair_column,
        "label_column": data.label_column,
        "encoding": data.encoding,
        "header": data.header,
    }
    train: list[TextExample] = []
    if settings.run.do == "train":
        columns = find_text_columns(str(data.train), split=data.train_split, **kept)
        texts = f"{columns.text!r}" + (f" and {columns.pair!r}" if columns.pair else "")
        print(f"{data.train}: text in {texts}, label in {columns.label!r}")
        known = columns.classes or ()
        train = read_texts(
            str(data.train), problem_type=problem, label_separator=data.label_separator, split=data.train_split, **kept
        )
    held_out = read_texts(
        str(data.dev), problem_type=problem, label_separator=data.label_separator, split=data.dev_split, **kept
    )
    values = config.num_labels if problem == SCORES and settings.run.do != "train" else 1
    return train, {"": held_out}, Classification(problem, () if problem == SCORES else known, values, **options)


def prepare_tagged(settings: finetuning.Tokens, tokenizer: Tokenizer, config: BertConfig) -> Prepared:
    data = settings.data
    columns = {"word_column": data.word_column, "tag_column": data.tag_column, "encoding": data.encoding}
    train = read_tagged(str(data.train), split=data.train_split, **columns) if settings.run.do == "train" else []
    dev = read_tagged(str(data.dev), split=data.dev_split, **columns)
    if settings.run.do == "predict":
        dev = [replace(example, tags=None) for example in dev]
    names = label_names(train) if train else names_of(config)
    task = Tagging(names, data.label_smoothing, settings.reports.mistakes)
    parts = []
    for name, examples in (("train", train), ("", dev)):
        if examples:
            part, unspoken = task.encode(name, examples, tokenizer, max_length=data.max_length, overlap=data.overlap)
            if unspoken:
                print(f"{unspoken:,} words of {name or 'dev'} hold nothing that the vocabulary knows")
            parts.append(part)
    return Prepared(task, parts[0] if train else None, parts[-1:])


def prepare_questions(settings: finetuning.QuestionAnswering, tokenizer: Tokenizer, config: BertConfig) -> Prepared:
    data = settings.data
    windows = {
        "max_length": data.max_length,
        "stride": data.stride,
        "max_question_length": data.max_question_length,
    }
    parts, version_2 = [], data.version_2
    for name, source, split in (("train", data.train, data.train_split), ("", data.dev, data.dev_split)):
        if name and settings.run.do != "train":
            continue
        questions, notes = read_questions(str(source), split=split, encoding=data.encoding)
        say_notes(notes, f"answers of {name or 'dev'} moved or not found")
        version_2 = version_2 or any(question.impossible for question in questions)
        task = QuestionAnswering(version_2, data.max_answer_length, data.n_best, settings.reports.mistakes)
        part, encoded = task.encode(name, questions, tokenizer, **windows, learnable=bool(name))
        asked = sum(bool(question.answers) or question.impossible for question in questions)
        if lost := int((~encoded.found).sum()) - (len(questions) - asked):
            print(f"{lost:,} of {len(questions):,} questions of {name or 'dev'}: the tokens do not hold the answer")
        if encoded.cut:
            print(f"{encoded.cut:,} questions of {name or 'dev'} were cut to {data.max_question_length} tokens")
        parts.append(part)
    task = QuestionAnswering(version_2, data.max_answer_length, data.n_best, settings.reports.mistakes)
    return Prepared(task, parts[0] if settings.run.do == "train" else None, parts[-1:])


def prepare_choices(settings: finetuning.MultipleChoice, tokenizer: Tokenizer, config: BertConfig) -> Prepared:
    data, task = settings.data, MultipleChoice(settings.reports.mistakes)
    parts: list[Part] = []
    for name, source, split in (("train", data.train, data.train_split), ("", data.dev, data.dev_split)):
        if name and settings.run.do != "train":
            continue
        examples = read_choices(
            str(source),
            text_column=data.text_column,
            label_column=data.label_column,
            split=split,
            encoding=data.encoding,
        )
        labelled = settings.run.do != "predict"
        part, cut = task.encode(name, examples, tokenizer, max_length=data.max_length, labelled=labelled)
        say_cut(cut, len(examples) * part.features.group, f"choices of {name or 'dev'}", data.max_length)
        parts.append(part)
    if len({part.features.group for part in parts}) > 1:
        raise ValueError(f"{data.train} and {data.dev} do not have the same number of choices")
    return Prepared(task, parts[0] if settings.run.do == "train" else None, parts[-1:])


def names_of(config: BertConfig) -> tuple[str, ...]:
    """Returns the names of a model's labels."""
    return config.label_names or tuple(f"LABEL_{number}" for number in range(config.num_labels))


def say_cut(cut: int, count: int, what: str, length: int) -> None:
    if cut:
        print(f"{cut:,} of {count:,} {what} are longer than --max-length {length} tokens and were cut")


def say_notes(notes: Sequence[Any], what: str) -> None:
    """Prints the first few of what was left out."""
    if notes:
        print(f"{len(notes):,} {what}, such as {notes[0]}")
