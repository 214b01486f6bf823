"""Reads questions whose answers are spans of a context: SQuAD, in its own JSON or as rows of a table.

References: Rajpurkar et al., SQuAD: 100,000+ Questions for Machine Comprehension of Text, 2016; Know What You Don't
Know: Unanswerable Questions for SQuAD, 2018.
"""

from collections.abc import Iterator
from typing import Any

import datasets

from bert_jax.data.readers.examples import Answer, Question
from bert_jax.data.readers.files import File, format_of, open_text
from bert_jax.data.readers.report import ReadReport
from bert_jax.data.readers.sources import codec, find_origins
from bert_jax.data.readers.tables import Origin, column_names, no_rows, parse_json, read_rows
from bert_jax.messages import counted
from bert_jax.text.folding import find_folded

WANTED = '{"data": [{"paragraphs": [{"context": ..., "qas": [{"id": ..., "question": ..., "answers": [...]}]}]}]}'
WANTED_ROW = '{"question": ..., "context": ..., "answers": {"text": [...], "answer_start": [...]}}'

KINDS = {str: "a text", int: "a whole number", list: "a list"}
MOVED = "answers that are not at their answer_start and were moved to the nearest occurrence"
MISSING = "answers that the context does not contain"
WITHOUT_ID = "questions without an id, named after their place"
# How an answer may differ from its context: whether case is folded too, and the reason in the report.
FOLDINGS = (
    (False, "answers found after folding white space and Unicode form"),
    (True, "answers found after folding case"),
)


def read_questions(
    source: str, *, split: str = "train", encoding: str = "utf-8", report: ReadReport | None = None
) -> list[Question]:
    """Reads questions of SQuAD v1.1 or v2.0.

    An answer that is not at its offset, but elsewhere in the context, is moved to the nearest occurrence. If it differs
    from the context by white space, Unicode form or case, it is replaced by what the context has. An answer that the
    context does not contain gets the start -1: it is not trained on, but it counts in the metrics. The id of a question
    without one is its place.

    Args:
        source: a file, a pattern of files, or a dataset on the hub. A .json file has SQuAD's own layout. In .jsonl,
            .parquet and datasets each row is a question: `question`, `context`, optionally `id`, and, unless they are
            for prediction, `answers`, as in {"text": [...], "answer_start": [...]}, empty if the context has no answer.
        split: of a dataset on the hub.
        encoding: of the files.
        report: counts the questions, and the answers and ids that were changed.

    Returns:
        The questions in the order of the source.

    Raises:
        OSError, ValueError: no such source, an invalid file or row, or an id that two questions have; the message has
            file and place.
    """
    report = report or ReadReport(source)
    report.unit = "questions"
    questions: dict[str, Question] = {}
    for origin in find_origins([source], split):
        for question in _read_origin(origin, codec(encoding), report):
            report.rows += 1
            if question.id in questions:
                other = questions[question.id].where
                raise ValueError(f"{question.where}: id {question.id!r} is also the id of {other}")
            questions[question.id] = question
    if not questions:
        raise no_rows(source)
    return list(questions.values())


def _read_origin(origin: Origin, encoding: str, report: ReadReport) -> Iterator[Question]:
    if not isinstance(origin, datasets.Dataset) and format_of(origin) not in {".jsonl", ".ndjson", ".parquet"}:
        return _read_squad(origin, encoding, report)
    return _read_rows(origin, encoding, report)


def _read_squad(path: File, encoding: str, report: ReadReport) -> Iterator[Question]:
    with open_text(path, encoding) as file:
        squad = parse_json(path, file.read(), hint=f"; wanted SQuAD, {WANTED}")
    for article_at, article in _members(squad, "data", str(path)):
        for paragraph_at, paragraph in _members(article, "paragraphs", article_at):
            context = _member(paragraph, "context", str, paragraph_at)
            for entry_at, entry in _members(paragraph, "qas", paragraph_at):
                yield _read_entry(path, context, entry, entry_at, report)


def _read_entry(path: File, context: str, entry: Any, entry_at: str, report: ReadReport) -> Question:
    """Returns the question of an element of `qas`."""
    question = _member(entry, "question", str, entry_at)
    number = _id(entry, entry_at)
    where = entry_at if number is None else f"{path}: question {' '.join(number.split())}"
    if number is None:
        report.change(WITHOUT_ID, where)
    golds = [
        (_member(gold, "text", str, place), _member(gold, "answer_start", int, place))
        for place, gold in (_members(entry, "answers", where) if entry.get("answers") is not None else ())
    ]
    impossible = entry.get("is_impossible") or False
    if impossible not in (True, False):
        raise ValueError(f"{where}: not SQuAD: 'is_impossible' is not true or false but {impossible!r:.60}")
    if impossible and golds:
        raise ValueError(f"{where}: is_impossible is true, but there are answers")
    answers = tuple(_answer(context, *gold, where, report) for gold in golds)
    return Question(number or entry_at, question, context, answers, bool(impossible), where)


def _id(value: Any, where: str) -> str | None:
    """Returns the id of a question as text; None if it has none."""
    number = value.get("id")
    if number is None or number == "" or number != number:  # NaN is a missing number in pandas
        return None
    if isinstance(number, float) and number.is_integer():
        return str(int(number))
    if isinstance(number, str) or (isinstance(number, int) and not isinstance(number, bool)):
        return str(number)
    raise ValueError(f"{where}: 'id' is not a text or a whole number but {number!r:.60}")


def _members(value: Any, name: str, where: str) -> Iterator[tuple[str, Any]]:
    """Yields the place and the value of each element of the list `value[name]`."""
    for number, element in enumerate(_member(value, name, list, where)):
        yield f"{where}: {name}[{number}]", element


def _member(value: Any, name: str, kind: type, where: str, wanted: str = WANTED) -> Any:
    if not isinstance(value, dict) or name not in value:
        found = " ".join(", ".join(value).split()) if isinstance(value, dict) else f"a {type(value).__name__}"
        raise ValueError(f"{where}: not SQuAD: no {name!r} in {found or 'nothing'}; wanted {wanted}")
    return _checked(value[name], name, kind, where, wanted)


def _checked(value: Any, name: str, kind: type, where: str, wanted: str) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{where}: not SQuAD: {name!r} is not {KINDS[kind]} but {value!r:.60}; wanted {wanted}")
    return value


def _read_rows(origin: Origin, encoding: str, report: ReadReport) -> Iterator[Question]:
    optional = [name for name in ("id", "answers") if name in column_names(origin, encoding=encoding)]
    for where, row in read_rows(origin, ["question", "context", *optional], encoding=encoding):
        question, context = (_member(row, name, str, where, WANTED_ROW) for name in ("question", "context"))
        number = _id(row, where)
        if number is None:
            report.change(WITHOUT_ID, where)
        answers = row.get("answers")
        golds = [] if answers is None else _golds(answers, where)
        found = tuple(_answer(context, text, start, where, report) for text, start in golds)
        yield Question(number or where, question, context, found, answers is not None and not golds, where)


def _golds(answers: Any, where: str) -> list[tuple[str, int]]:
    texts, starts = (_member(answers, name, list, where, WANTED_ROW) for name in ("text", "answer_start"))
    if len(texts) != len(starts):
        raise ValueError(
            f"{where}: {counted(len(texts), 'answer')}, but {counted(len(starts), 'value')} of answer_start"
        )
    return [
        (_checked(text, "text", str, where, WANTED_ROW), _checked(start, "answer_start", int, where, WANTED_ROW))
        for text, start in zip(texts, starts, strict=True)
    ]


def _answer(context: str, text: str, start: int, where: str, report: ReadReport) -> Answer:
    """Returns the answer as the context has it: at its offset, or at the nearest occurrence."""
    if text and start >= 0 and context.startswith(text, start):
        return Answer(text, start)
    for reason, places in _places(context, text, start):
        if places:
            begin, end = min(places, key=lambda place: abs(place[0] - start))
            report.change(reason, where)
            return Answer(context[begin:end], begin)
    report.change(MISSING, where)
    return Answer(text, -1)


def _places(context: str, text: str, start: int) -> Iterator[tuple[str, list[tuple[int, int]]]]:
    """Yields what an answer differs by, the most likely first, and the starts and ends of such places in the context.

    At its offset an answer may have another case although it has the same case elsewhere.
    """
    first = max(start, 0) + len(text) - len(text.lstrip())  # of the characters that are not white space
    part = context[first : first + 2 * len(text) + 8]  # folding it is much faster than folding the context
    for case, reason in FOLDINGS:
        yield reason, [(first, first + end) for begin, end in find_folded(part, text, case=case) if begin == 0]
    yield (
        MOVED,
        [(place, place + len(text)) for place in range(len(context)) if text and context.startswith(text, place)],
    )
    for case, reason in FOLDINGS:
        yield reason, find_folded(context, text, case=case)
