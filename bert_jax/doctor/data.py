"""Examines a data file or dataset: what it holds, and what is often a mistake in it.

The readers of the tasks read it, so that the examination and a run understand a file in the same way.
"""

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import NamedTuple

import datasets
import numpy as np

from bert_jax.data.readers.choices import find_choices, read_choices
from bert_jax.data.readers.documents import read_documents
from bert_jax.data.readers.examples import Label
from bert_jax.data.readers.files import File, format_of, open_text
from bert_jax.data.readers.labels import clean_labels
from bert_jax.data.readers.questions import read_questions
from bert_jax.data.readers.report import ReadReport
from bert_jax.data.readers.sources import codec, find_origins
from bert_jax.data.readers.tables import TABLES, Origin, column_names
from bert_jax.data.readers.tagged import WORDS, read_tagged, require_named_tags, without_ignored
from bert_jax.data.readers.texts import LABELS, read_texts
from bert_jax.doctor.findings import Finding, fact, problem, warning
from bert_jax.doctor.labels import suspicious_names
from bert_jax.interop.loading import locate
from bert_jax.messages import counted
from bert_jax.metrics.tag_schemes import read_tag_scheme
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.vocabulary import MANY_UNKNOWN

KINDS = ("classification", "tokens", "squad", "multiple-choice", "corpus")
RARE = 5  # examples of a class
SAMPLE_LINES = 200


class Sample(NamedTuple):
    """An example: its texts, and its labels or scores."""

    texts: tuple[str, ...]
    labels: tuple[str | float, ...]


def examine_data(
    source: str,
    *,
    kind: str | None = None,
    problem_type: str = "single_label_classification",
    model: str | None = None,
    split: str = "train",
    encoding: str = "utf-8",
) -> Iterator[Finding]:
    """Yields what was found in a file, a pattern of files or a dataset on the hub.

    Args:
        kind: one of `KINDS`; None guesses it from the columns or the first lines.
        problem_type: of data for classification, one of Hugging Face's.
        model: the folder or hub name of a model, whose tokenizer counts tokens and [UNK]; None counts words.
        split: of a dataset on the hub.
        encoding: of the files.
    """
    report = ReadReport(source)
    try:
        tokenizer = None if model is None else Tokenizer.load(locate(model))
        kind = kind or guess_kind(find_origins([source], split)[0], codec(encoding))
        yield fact(f"{source} is read as {'a corpus' if kind == 'corpus' else f'data for {kind}'}")
        read = partial(_read_texts, problem_type=problem_type) if kind == "classification" else _READERS[kind]
        samples = list(read(source, split, encoding, report))
    except (OSError, ValueError) as error:
        yield problem(str(error))
        return
    yield from map(warning, report.lines())
    yield from _describe(samples, kind)
    yield from _lengths(samples, tokenizer)


def guess_kind(origin: Origin, encoding: str) -> str:
    """Returns the kind of data in a file or dataset."""
    if isinstance(origin, datasets.Dataset) or format_of(origin) in TABLES - {".json"}:
        return _kind_of_table(column_names(origin, encoding=encoding))
    if format_of(origin) == ".json":
        try:
            return _kind_of_table(column_names(origin, encoding=encoding))
        except ValueError:
            return "squad"
    return "tokens" if _looks_like_conll(origin, encoding) else "corpus"


def _kind_of_table(names: Sequence[str]) -> str:
    if {"question", "context"} <= set(names) or "data" in names:
        return "squad"
    if set(WORDS) & set(names):
        return "tokens"
    if find_choices(names):
        return "multiple-choice"
    return "classification" if {name.lower() for name in names} & set(LABELS) else "corpus"


def _looks_like_conll(path: File, encoding: str) -> bool:
    """Returns whether the first lines are short and have the same number of columns, two or more."""
    with open_text(path, encoding) as file:
        lines = [line.rstrip().split("\t" if "\t" in line else None) for line in islice(file, SAMPLE_LINES)]
    widths = Counter(len(fields) for fields in lines if fields and not fields[0].startswith(("#", "-DOCSTART-")))
    return len(widths) == 1 and next(iter(widths)) in range(2, 15)


def _read_texts(source: str, split: str, encoding: str, report: ReadReport, *, problem_type: str) -> Iterator[Sample]:
    examples, columns = read_texts(source, problem_type=problem_type, split=split, encoding=encoding, report=report)
    for example in clean_labels(examples, columns.classes, report, drop=False):
        texts = (example.text,) if example.pair is None else (example.text, example.pair)
        yield Sample(texts, _labels(example.label))


def _read_tagged(source: str, split: str, encoding: str, report: ReadReport) -> Iterator[Sample]:
    sentences, _ = read_tagged(source, split=split, encoding=encoding, report=report)
    require_named_tags(sentences)
    for sentence in sentences:
        yield Sample((" ".join(sentence.words),), without_ignored(sentence).tags or ())


def _read_questions(source: str, split: str, encoding: str, report: ReadReport) -> Iterator[Sample]:
    for question in read_questions(source, split=split, encoding=encoding, report=report):
        kind = "no answer" if question.impossible else "answer" if question.answers else "unknown"
        yield Sample((question.question, question.context), (kind,))


def _read_choices(source: str, split: str, encoding: str, report: ReadReport) -> Iterator[Sample]:
    for example in read_choices(source, split=split, encoding=encoding, report=report)[0]:
        yield Sample((example.text, *example.choices), () if example.label is None else (str(example.label),))


def _read_corpus(source: str, split: str, encoding: str, report: ReadReport) -> Iterator[Sample]:
    for origin in find_origins([source], split):
        for _, document in read_documents(origin, "text", codec(encoding), "paragraphs", report):
            yield Sample((document,), ())


_READERS: dict[str, Callable[[str, str, str, ReadReport], Iterator[Sample]]] = {
    "tokens": _read_tagged,
    "squad": _read_questions,
    "multiple-choice": _read_choices,
    "corpus": _read_corpus,
}


def _labels(label: Label | None) -> tuple[str | float, ...]:
    """Returns the names or scores in a label: none, one or several."""
    if label is None:
        return ()
    return label if isinstance(label, tuple) else (label,)


def _describe(samples: Sequence[Sample], kind: str) -> Iterator[Finding]:
    """Yields counts, labels, empty texts and duplicates."""
    yield fact(counted(len(samples), "document" if kind == "corpus" else "example"))
    counts = Counter(name for sample in samples for name in sample.labels if isinstance(name, str))
    scores = [score for sample in samples for score in sample.labels if isinstance(score, float)]
    if scores:
        yield fact(f"scores from {min(scores):g} to {max(scores):g}, {np.mean(scores):g} on average")
    elif counts:
        most = ", ".join(f"{name} ({count:,})" for name, count in counts.most_common(20))
        yield fact(f"{counted(len(counts), 'label')} (with counts): {most}{', ...' if len(counts) > 20 else ''}")
        yield from map(warning, suspicious_names(sorted(counts)))
        if kind == "tokens":
            yield _scheme(counts)
        rare = [name for name, count in counts.items() if count < RARE]
        if rare and kind != "squad":
            yield warning(f"{counted(len(rare), 'label')} of fewer than {RARE} examples, such as {rare[0]!r}")
        unlabelled = sum(not sample.labels for sample in samples)
        if unlabelled:
            yield warning(f"{counted(unlabelled, 'example')} without a label")
    elif kind != "corpus":
        yield warning("no labels: this can be used for prediction only")
    empty = sum(not text.strip() for sample in samples for text in sample.texts)
    if empty:
        yield warning(counted(empty, "empty text"))
    yield from _duplicates(samples)


def _scheme(tags: Iterable[str]) -> Finding:
    """Returns the scheme of tags, or the tag that fits none."""
    try:
        return fact(str(read_tag_scheme(tags)))
    except ValueError as error:
        return problem(str(error))


def _duplicates(samples: Iterable[Sample]) -> Iterator[Finding]:
    """Yields how many examples repeat an earlier one, and how many of these have other labels."""
    seen: dict[bytes, tuple[str | float, ...]] = {}
    repeated = 0
    contradicting = 0
    for texts, labels in samples:
        key = hashlib.blake2b("\0".join(texts).encode(errors="replace"), digest_size=16).digest()
        if key in seen:
            repeated += 1
            contradicting += seen[key] != labels
        else:
            seen[key] = labels
    if repeated:
        yield warning(f"examples that repeat the texts of an earlier one: {repeated:,}")
    if contradicting:
        yield warning(f"of these, with other labels than the first: {contradicting:,}")


def _lengths(samples: Sequence[Sample], tokenizer: Tokenizer | None) -> Iterator[Finding]:
    """Yields the lengths of the examples, and with a tokenizer the fraction of [UNK]."""
    if not samples:
        return
    if tokenizer is None:
        unit = "words"
        lengths = np.array([sum(len(text.split()) for text in sample.texts) for sample in samples])
    else:
        unit = "tokens"
        parts = np.array([len(sample.texts) for sample in samples])
        ids, by_text = tokenizer.encode_flat(text for sample in samples for text in sample.texts)
        lengths = np.add.reduceat(by_text, np.concatenate([[0], np.cumsum(parts)[:-1]]))
        unknown = float((ids == tokenizer.unk_id).mean()) if len(ids) else 0.0
        text = f"{unknown:.2%} of the tokens are [UNK]"
        yield (
            warning(f"{text}: is the vocabulary one of this language and casing?")
            if unknown > MANY_UNKNOWN
            else fact(text)
        )
    median, high = np.percentile(lengths, [50, 95])
    yield fact(f"lengths: median {median:,.0f} {unit}, 95 % up to {high:,.0f}, longest {lengths.max():,}")
