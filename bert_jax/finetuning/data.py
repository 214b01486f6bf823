"""From the settings of fine-tuning to a task with its data, encoded.

What was guessed, cut or left out is printed.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from bert_jax.data.readers.choices import find_choice_columns, read_choices
from bert_jax.data.readers.examples import TaggedExample, TextExample
from bert_jax.data.readers.glue import GlueTask, glue_task, read_glue
from bert_jax.data.readers.labels import label_names
from bert_jax.data.readers.movie_reviews import labelled_reviews
from bert_jax.data.readers.questions import read_questions
from bert_jax.data.readers.tagged import find_tag_columns, read_tagged
from bert_jax.data.readers.texts import find_text_columns, read_texts
from bert_jax.finetuning import settings as finetuning
from bert_jax.finetuning.model import Source
from bert_jax.finetuning.notes import say_cut, say_empty, say_labels, say_lost, say_notes, say_same
from bert_jax.models import Bert, BertForSequenceClassification, BertForTokenClassification
from bert_jax.tasks import Classification, MultipleChoice, Part, QuestionAnswering, Tagging, Task

SINGLE, SCORES = "single_label_classification", "regression"
NAMED = 20  # labels on the screen


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

    @property
    def parts(self) -> list[Part]:
        """All that there is."""
        return [*([self.train] if self.train else []), *self.held_out]

    @property
    def fingerprints(self) -> dict[str, str | None]:
        """Tells different data apart, to train on and held out; None where nothing is trained."""
        parts = {"training data": [self.train], "held-out data": self.held_out}
        return {name: None if self.train is None else fingerprint(some) for name, some in parts.items()}


def fingerprint(parts: Sequence[Part]) -> str:
    """Tells apart parts of different content."""
    digest = hashlib.sha256()
    for features in (part.features for part in parts):
        targets = features.of_sequences | features.of_tokens | features.positions
        for array in (features.sequences.ids, features.sequences.offsets, *targets.values()):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def prepare(settings: finetuning.Settings, source: Source) -> Prepared:
    """Reads and encodes the data of a task.

    Args:
        source: the model to start from; it names the labels where nothing is trained.

    Raises:
        OSError, ValueError: data that lack or are wrong, with file and line.
    """
    prepared = KINDS[type(settings)][1](settings, source)
    sizes = [f"{part.name or 'dev'}: {len(part.examples):,} examples" for part in prepared.parts]
    print("; ".join(sizes))
    say_same(settings.data)
    if names := prepared.task.changes.get("label_names"):
        more = ", ..." if len(names) > NAMED else ""
        print(f"{len(names):,} labels: {', '.join(names[:NAMED])}{more}")
        if isinstance(prepared.task, Classification) and prepared.train is not None:
            say_labels(names, len(prepared.train.examples))
    return prepared


def splits(settings: finetuning.Settings) -> list[tuple[str, str, str]]:
    """Returns what is to be read: the part's name, its source, and the split of it."""
    data = settings.data
    train = [("train", str(data.train), data.train_split)] if settings.run.do == "train" else []
    return [*train, ("", str(data.dev), data.dev_split)]


# Texts


def prepare_texts(settings: finetuning.Classification, source: Source) -> Prepared:
    data, training = settings.data, settings.run.do == "train"
    read = read_glue_task if data.glue else read_text_files
    train, held_out, task = read(settings, source)
    if training and task.problem_type != SCORES:
        names = task.names or kept_names(train, source.labels(BertForSequenceClassification))
        task = replace(task, names=label_names(train, names))
    elif training:
        first = train[0].label
        task = replace(task, values=len(first) if isinstance(first, tuple) else 1)
    parts = []
    for name, examples in {"train": train, **held_out}.items():
        if examples:
            labelled = name == "train" or settings.run.labelled
            balanced = name == "train" and data.class_weights == "balanced"
            part, cut = task.encode(
                name, examples, source.tokenizer, max_length=data.max_length, labelled=labelled, balanced=balanced
            )
            say_cut(cut, len(examples), f"examples of {name or 'dev'}", data.max_length)
            say_empty(examples, f"examples of {name or 'dev'}")
            parts.append(part)
    return Prepared(task, parts[0] if training else None, parts[training:])


def kept_names(
    examples: Sequence[TextExample] | Sequence[TaggedExample], names: tuple[str, ...] | None
) -> tuple[str, ...] | None:
    """Returns a model's names of labels where they are all that the examples need, so that its head is kept."""
    found: set[Any] = set()
    for example in examples:
        labels = example.tags if isinstance(example, TaggedExample) else example.label
        found |= set(labels) if isinstance(labels, tuple) else {labels}
    return names if names is not None and found <= set(names) else None


def read_glue_task(
    settings: finetuning.Classification, source: Source
) -> tuple[list[TextExample], dict[str, list[TextExample]], Classification]:
    """Reads a task of GLUE: examples to train on, parts held out, and the task."""
    data, do, glue = settings.data, settings.run.do, glue_task(str(settings.data.glue))
    kind = "test" if do == "predict" else "validation"
    chosen = [split for split in glue.files if split.startswith(kind)]
    if not chosen:
        raise ValueError(f"{glue.name} has no part to {do} on; there is {', '.join(glue.files)}")

    def examples_of(split: str) -> list[TextExample]:
        examples, notes = read_glue(glue.config, split, data.glue_folder)
        say_notes(notes, "rows left out")
        return examples

    names = glue.labels if do == "train" else names_of_glue(glue, source)
    # The first part is the one that decides, and needs no name; MNLI has another.
    held_out = {
        split.removeprefix(kind).strip("_") if number else "": examples_of(split) for number, split in enumerate(chosen)
    }
    train = examples_of("train") if do == "train" else []
    options = {"smoothing": data.label_smoothing, "mistakes": settings.reports.mistakes}
    return train, held_out, Classification(glue.problem_type, names, metric=glue.metrics[0], **options)


def names_of_glue(glue: GlueTask, source: Source) -> tuple[str, ...]:
    """Returns the names of a task's labels in the order in which a model has them, which may be another than GLUE's."""
    own, known = source.config.label_names, {name.lower(): name for name in glue.labels}
    if source.config.num_labels != max(len(glue.labels), 1):
        raise ValueError(
            f"{source.folder} has {source.config.num_labels} labels, {glue.name} {max(len(glue.labels), 1)}"
        )
    if own is None or not glue.labels:
        return glue.labels
    if {name.lower() for name in own} != known.keys():
        raise ValueError(f"{source.folder} tells {', '.join(own)} apart, {glue.name} {', '.join(glue.labels)}")
    return tuple(known[name.lower()] for name in own)


def read_text_files(
    settings: finetuning.Classification, source: Source
) -> tuple[list[TextExample], dict[str, list[TextExample]], Classification]:
    """Reads texts from --train and --dev, or the film reviews: examples to train on, those held out, and the task."""
    data, config, training = settings.data, source.config, settings.run.do == "train"
    options: dict[str, Any] = {"smoothing": data.label_smoothing, "mistakes": settings.reports.mistakes}
    names = () if training else names_of(source)
    if data.dev is None:
        train, held_out = labelled_reviews()
        return train if training else [], {"": held_out}, Classification(SINGLE, names, **options)
    problem = data.problem_type
    if not training:
        problem = config.problem_type or (SCORES if config.num_labels == 1 else problem)
        if data.problem_type not in (problem, SINGLE):
            raise ValueError(f"--problem-type {data.problem_type}: {source.folder} is made for {problem}")
    columns: dict[str, Any] = {
        "text_column": data.text_column,
        "pair_column": data.pair_column,
        "label_column": data.label_column,
        "encoding": data.encoding,
        "header": data.header,
        "guess_label": settings.run.labelled,
    }
    read: dict[str, list[TextExample]] = {}
    for name, path, split in splits(settings):
        found = find_text_columns(path, split=split, **columns)
        texts = f"{found.text!r}" + (f" and {found.pair!r}" if found.pair else "")
        print(f"{path}: text in {texts}, " + (f"label in {found.label!r}" if found.label else "no label"))
        if name == "train":
            names = found.classes or ()
        read[name] = read_texts(
            path, problem_type=problem, label_separator=data.label_separator, split=split, **columns
        )
    if problem == SCORES:
        task = Classification(problem, values=1 if training else config.num_labels, **options)
    else:
        task = Classification(problem, names, **options)
    return read.get("train", []), {"": read[""]}, task


# Words


def prepare_tagged(settings: finetuning.Tokens, source: Source) -> Prepared:
    data, read = settings.data, {}
    for name, path, split in splits(settings):
        columns = {"word_column": data.word_column, "tag_column": data.tag_column, "encoding": data.encoding}
        words, tags = find_tag_columns(path, split=split, **columns)
        print(f"{path}: words in {words!r}, " + (f"tags in {tags!r}" if tags else "no tags"))
        read[name] = read_tagged(path, split=split, **columns)
    if settings.run.do == "train":
        names = label_names(read["train"], kept_names(read["train"], source.labels(BertForTokenClassification)))
    else:
        names = names_of(source)
    task = Tagging(names, data.label_smoothing, settings.reports.mistakes)
    parts = []
    for name, examples in read.items():
        labelled = settings.run.labelled
        part, unspoken = task.encode(
            name, examples, source.tokenizer, max_length=data.max_length, overlap=data.overlap, labelled=labelled
        )
        if unspoken:
            print(f"{unspoken:,} words of {name or 'dev'} have no piece, and are not learned of")
        parts.append(part)
    return Prepared(task, parts[0] if "train" in read else None, parts[-1:])


# Questions


def prepare_questions(settings: finetuning.QuestionAnswering, source: Source) -> Prepared:
    data, read = settings.data, {}
    for name, path, split in splits(settings):
        read[name], notes = read_questions(path, split=split, encoding=data.encoding)
        say_notes(notes, f"answers of {name or 'dev'} moved or not found")
    threshold = data.null_threshold
    if threshold is None and settings.run.do != "train":
        threshold = source.config.null_threshold  # what the model was chosen by
    version_2 = data.version_2 or threshold is not None
    if settings.run.labelled:  # what is predicted does not hang on what may be known of it
        version_2 = version_2 or any(question.impossible for some in read.values() for question in some)
    task = QuestionAnswering(version_2, data.max_answer_length, data.n_best, threshold, settings.reports.mistakes)
    parts = []
    for name, questions in read.items():
        part, encoded = task.encode(
            name,
            questions,
            source.tokenizer,
            max_length=data.max_length,
            stride=data.stride,
            max_question_length=data.max_question_length,
            labelled=settings.run.labelled,
            learnable=name == "train",
        )
        say_lost(questions, encoded, name or "dev", data)
        parts.append(part)
    return Prepared(task, parts[0] if "train" in read else None, parts[-1:])


# Choices


def prepare_choices(settings: finetuning.MultipleChoice, source: Source) -> Prepared:
    data, task = settings.data, MultipleChoice(settings.reports.mistakes)
    names = ("text_column", "lead_column", "choice_columns", "label_column", "encoding")
    columns: dict[str, Any] = {name: getattr(data, name) for name in names}
    columns["guess_label"] = settings.run.labelled
    parts: list[Part] = []
    for name, path, split in splits(settings):
        found = find_choice_columns(path, split=split, **columns)
        begun = f", begun in {found.lead!r}" if found.lead else ""
        label = f"label in {found.label!r}" if found.label else "no label"
        print(f"{path}: text in {found.text!r}, choices in {', '.join(map(repr, found.choices))}{begun}, {label}")
        examples = read_choices(path, split=split, **columns)
        part, cut = task.encode(
            name, examples, source.tokenizer, max_length=data.max_length, labelled=settings.run.labelled
        )
        say_cut(cut, len(examples) * part.features.group, f"choices of {name or 'dev'}", data.max_length)
        parts.append(part)
    if len({part.features.group for part in parts}) > 1:
        raise ValueError(f"{data.train} and {data.dev} do not have the same number of choices")
    return Prepared(task, parts[0] if settings.run.do == "train" else None, parts[-1:])


def names_of(source: Source) -> tuple[str, ...]:
    """Returns the names of a model's labels."""
    return source.config.label_names or tuple(f"LABEL_{number}" for number in range(source.config.num_labels))


KINDS: dict[type, tuple[type[Task], Callable[..., Prepared]]] = {
    finetuning.Classification: (Classification, prepare_texts),
    finetuning.Tokens: (Tagging, prepare_tagged),
    finetuning.QuestionAnswering: (QuestionAnswering, prepare_questions),
    finetuning.MultipleChoice: (MultipleChoice, prepare_choices),
}


def model_of(settings: finetuning.Settings) -> type[Bert]:
    """Returns the model that the task needs."""
    return KINDS[type(settings)][0].model
