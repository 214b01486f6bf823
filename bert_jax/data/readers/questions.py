"""Reads questions whose answers are spans of a context: SQuAD, in its own JSON or as rows of a table.

References: Rajpurkar et al., SQuAD: 100,000+ Questions for Machine Comprehension of Text, 2016; Know What You Don't
Know: Unanswerable Questions for SQuAD, 2018.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bert_jax.data.readers.examples import Answer, Question
from bert_jax.data.readers.files import format_of, open_text
from bert_jax.data.readers.sources import codec, find_origins
from bert_jax.data.readers.tables import Origin, column_names, no_rows, read_rows

WANTED = '{"data": [{"paragraphs": [{"context": ..., "qas": [{"id": ..., "question": ..., "answers": [...]}]}]}]}'
WANTED_ROW = '{"question": ..., "context": ..., "answers": {"text": [...], "answer_start": [...]}}'


def read_questions(source: str, *, split: str = "train", encoding: str = "utf-8") -> tuple[list[Question], list[str]]:
    """Reads questions of SQuAD v1.1 or v2.0.

    An answer that is not at its offset, but elsewhere in the context, is moved to the nearest occurrence. An answer
    that the context does not contain gets the start -1: it is not trained on, but it counts in the metrics.

    Args:
        source: a file, a pattern of files, or a dataset on the hub. A .json file has SQuAD's own layout. In .jsonl,
            .parquet and datasets each row is a question: `question`, `context`, optionally `id`, and, unless they are
            for prediction, `answers`, as in {"text": [...], "answer_start": [...]}, empty if the context has no answer.
        split: of a dataset on the hub.
        encoding: of the files.

    Returns:
        The questions in the order of the source, and a line about each answer that was moved or not found.

    Raises:
        OSError, ValueError: no such source, or an invalid file or row; the message has file and place.
    """
    notes: list[str] = []
    questions: dict[str, Question] = {}
    for origin in find_origins([source], split):
        for question in _read_origin(origin, codec(encoding), notes):
            if question.id in questions:
                raise ValueError(
                    f"{question.where}: id {question.id!r} is also the id of {questions[question.id].where}"
                )
            questions[question.id] = question
    if not questions:
        raise no_rows(source)
    return list(questions.values()), notes


def _read_origin(origin: Origin, encoding: str, notes: list[str]) -> Iterator[Question]:
    if isinstance(origin, Path) and format_of(origin) not in {".jsonl", ".ndjson", ".parquet"}:
        return _read_squad(origin, encoding, notes)
    return _read_rows(origin, encoding, notes)


def _read_squad(path: Path, encoding: str, notes: list[str]) -> Iterator[Question]:
    with open_text(path, encoding) as file:
        try:
            squad = json.load(file)
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}:{error.lineno}: not JSON ({error.msg}); wanted SQuAD, {WANTED}") from None
        except RecursionError:
            raise ValueError(f"{path}: nested too deeply; wanted SQuAD, {WANTED}") from None
    for article_at, article in _members(squad, "data", str(path)):
        for paragraph_at, paragraph in _members(article, "paragraphs", article_at):
            context = _member(paragraph, "context", str, paragraph_at)
            for entry_at, entry in _members(paragraph, "qas", paragraph_at):
                number = _member(entry, "id", str, entry_at)
                question = _member(entry, "question", str, entry_at)
                where = f"{path}: question {number}"
                golds = [
                    (_member(gold, "text", str, place), _member(gold, "answer_start", int, place))
                    for place, gold in (_members(entry, "answers", where) if "answers" in entry else ())
                ]
                impossible = entry.get("is_impossible", False) is True
                if impossible and golds:
                    raise ValueError(f"{where}: is_impossible is true, but there are answers")
                answers = tuple(_answer(context, *gold, where, notes) for gold in golds)
                yield Question(number, question, context, answers, impossible, where)


def _members(value: Any, name: str, where: str) -> Iterator[tuple[str, Any]]:
    """Yields the place and the value of each element of the list `value[name]`."""
    for number, element in enumerate(_member(value, name, list, where)):
        yield f"{where}: {name}[{number}]", element


def _member(value: Any, name: str, kind: type, where: str, wanted: str = WANTED) -> Any:
    if not isinstance(value, dict) or name not in value:
        found = ", ".join(value) if isinstance(value, dict) else f"a {type(value).__name__}"
        raise ValueError(f"{where}: not SQuAD: no {name!r} in {found or 'nothing'}; wanted {wanted}")
    return _checked(value[name], name, kind, where, wanted)


def _checked(value: Any, name: str, kind: type, where: str, wanted: str) -> Any:
    if not isinstance(value, kind):
        found = type(value).__name__
        raise ValueError(f"{where}: not SQuAD: {name!r} is not a {kind.__name__} but a {found}; wanted {wanted}")
    return value


def _read_rows(origin: Origin, encoding: str, notes: list[str]) -> Iterator[Question]:
    optional = [name for name in ("id", "answers") if name in column_names(origin, encoding=encoding)]
    for where, row in read_rows(origin, ["question", "context", *optional], encoding=encoding):
        question, context = (_member(row, name, str, where, WANTED_ROW) for name in ("question", "context"))
        answers = row.get("answers")
        golds = [] if answers is None else _golds(answers, where)
        found = tuple(_answer(context, text, start, where, notes) for text, start in golds)
        yield Question(str(row.get("id", where)), question, context, found, answers is not None and not golds, where)


def _golds(answers: Any, where: str) -> list[tuple[str, int]]:
    texts, starts = (_member(answers, name, list, where, WANTED_ROW) for name in ("text", "answer_start"))
    if len(texts) != len(starts):
        raise ValueError(f"{where}: {len(texts)} answers, but {len(starts)} values of answer_start")
    return [
        (_checked(text, "text", str, where, WANTED_ROW), _checked(start, "answer_start", int, where, WANTED_ROW))
        for text, start in zip(texts, starts, strict=True)
    ]


def _answer(context: str, text: str, start: int, where: str, notes: list[str]) -> Answer:
    """Returns the answer at its offset in the context, or at the nearest occurrence."""
    if text and start >= 0 and context.startswith(text, start):
        return Answer(text, start)
    places = [place for place in range(len(context)) if text and context.startswith(text, place)]
    if not places:
        notes.append(f"{where}: the context does not contain the answer {text!r}")
        return Answer(text, -1)
    nearest = min(places, key=lambda place: abs(place - start))
    notes.append(f"{where}: the answer {text!r} is not at {start} but at {nearest}")
    return Answer(text, nearest)
