"""Questions are read from SQuAD's own files and from rows, and every lost answer is reported."""

import json

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import shared_file

from bert_jax.data.readers.examples import Answer, Question
from bert_jax.data.readers.questions import MISSING, MOVED, WITHOUT_ID, read_questions
from bert_jax.data.readers.report import ReadReport

CONTEXT = "Norman dukes ruled; Norman knights rode."


def squad(*entries: dict, **paragraph) -> str:
    paragraphs = [{"context": CONTEXT, "qas": list(entries), **paragraph}]
    return json.dumps({"version": "2.0", "data": [{"title": "Normans", "paragraphs": paragraphs}]})


def entry(**changes) -> dict:
    return {"id": "q1", "question": "Who?", "answers": [{"text": "dukes", "answer_start": 7}], **changes}


def read(source, **options):
    """The questions, and how many answers and ids were changed by reason."""
    report = ReadReport(source)
    questions = read_questions(source, report=report, **options)
    assert (report.unit, report.rows, report.used) == ("questions", len(questions), len(questions))
    return questions, {reason: tally.count for reason, tally in report.changed.items()}


def test_questions_answers_and_the_impossible_are_read(write):
    unanswerable = entry(id="q2", answers=[], is_impossible=True, plausible_answers=[{"text": "x", "answer_start": 0}])
    unknown = {"id": "q3", "question": "When?", "answers": None, "is_impossible": None}
    path = write("a.json", squad(entry(is_impossible=0), unanswerable, unknown))
    assert read(path) == (
        [
            Question("q1", "Who?", CONTEXT, (Answer("dukes", 7),), False, f"{path}: question q1"),
            Question("q2", "Who?", CONTEXT, (), True, f"{path}: question q2"),
            Question("q3", "When?", CONTEXT, (), False, f"{path}: question q3"),
        ],
        {},
    )


def test_misplaced_answers_are_moved_and_missing_answers_kept_and_both_counted(write):
    golds = [("Norman", 18), ("Norman", 9), ("dukes", -3), ("kings", 7), ("", 0)]
    path = write("a.json", squad(entry(answers=[{"text": text, "answer_start": start} for text, start in golds])))
    [question], changed = read(path)
    assert [(gold.text, gold.start) for gold in question.answers] == [
        ("Norman", 20), ("Norman", 0), ("dukes", 7), ("kings", -1), ("", -1),
    ]  # fmt: skip
    assert changed == {MOVED: 3, MISSING: 2}


FORM = "answers found after folding white space and Unicode form"
CASE = "answers found after folding case"


@pytest.mark.parametrize(
    ("context", "text", "start", "answer", "reason"),
    [
        ("Norman dukes ruled", "Dukes", 7, "dukes", CASE),
        ("the owl and the OWL", "Owl", 16, "OWL", CASE),
        ("the owl and The barn", "the", 12, "The", CASE),  # at its place, though it is elsewhere in its own case
        ("the owl and The barn", "the", 11, "the", MOVED),
        ("Die Straße und der Fluß", "STRASSE", 4, "Straße", CASE),
        ("İstanbul'da İzmir", "izmir", 12, "İzmir", CASE),
        ("a cafe\u0301 here", "café", 2, "cafe\u0301", FORM),
        ("a café here", "cafe\u0301", 2, "café", FORM),
        ("e\u0301e\u0301 e\u0301cole", "école", 3, "e\u0301cole", FORM),  # the offset was counted in another form
        ("Bel. É e\u0301", "é", 7, "e\u0301", FORM),
        ("one\r\ntwo three", "one\ntwo", 0, "one\r\ntwo", FORM),
        ("one\ntwo three", "one\r\ntwo", 0, "one\ntwo", FORM),
        ("a\r\nb\r\nthe\r\nowl", "the\nowl", 4, "the\r\nowl", FORM),
        ("the  owl", " the owl\n", 0, "the  owl", FORM),
        ("10\u00a0000 owls", "10 000", 0, "10\u00a0000", FORM),
        ("東京　タワー", "東京 タワー", 0, "東京　タワー", FORM),
        ("der Fluß", "flus", 4, None, MISSING),
        ("the café", "cafe", 4, None, MISSING),
    ],
)  # fmt: skip
def test_answers_in_another_spelling_are_found_and_counted(write, context, text, start, answer, reason):
    path = write("a.json", squad(entry(answers=[{"text": text, "answer_start": start}]), context=context))
    [question], changed = read(path)
    (found,) = question.answers
    assert changed == {reason: 1}
    if answer is None:
        assert found == Answer(text, -1)
    else:
        assert found.text == answer == context[found.start : found.start + len(answer)]
        if reason != MOVED:
            assert abs(found.start - start) <= 4


def test_questions_without_an_id_are_named_after_their_place(write):
    entries = [{"question": "Who?"}, {"question": "Who?", "id": None}, {"question": "Who?", "id": ""}, entry(id=7)]
    path = write("a.json", squad(*entries))
    questions, changed = read(path)
    places = [f"{path}: data[0]: paragraphs[0]: qas[{number}]" for number in range(3)]
    assert [question.id for question in questions] == [*places, "7"]
    assert [question.where for question in questions] == [*places, f"{path}: question 7"]
    assert changed == {WITHOUT_ID: 3}
    rows = [{"question": "Who?", "context": CONTEXT, "id": number} for number in (3, 4.0, None, "x")]
    path = write("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    questions, changed = read(path)
    assert [question.id for question in questions] == ["3", "4", f"{path}:3", "x"]
    assert changed == {WITHOUT_ID: 1}


def test_empty_lists_hold_no_questions(write):
    paragraphs = [{"context": CONTEXT, "qas": []}, {"context": CONTEXT, "qas": [entry()]}]
    path = write("a.json", json.dumps({"data": [{"paragraphs": []}, {"paragraphs": paragraphs}]}))
    assert [question.id for question in read(path)[0]] == ["q1"]


def test_rows_in_the_layout_of_datasets_are_read(write, monkeypatch):
    rows = {
        "id": ["a", "b"],
        "question": ["Who?", "When?"],
        "context": [CONTEXT, CONTEXT],
        "answers": [{"text": ["dukes", "knights"], "answer_start": [7, 0]}, {"text": [], "answer_start": []}],
    }
    hub = datasets.Dataset.from_dict(rows)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, split: hub)
    questions, changed = read("some-one/squad", split="validation")
    assert questions == [
        Question("a", "Who?", CONTEXT, (Answer("dukes", 7), Answer("knights", 27)), False, "the dataset:1"),
        Question("b", "When?", CONTEXT, (), True, "the dataset:2"),
    ]
    assert changed == {MOVED: 1}
    hub.to_parquet(path := write("a.parquet", b""))
    assert [question.answers for question in read_questions(path)] == [q.answers for q in questions]
    path = write("a.jsonl", json.dumps({"question": "Who?", "context": CONTEXT}))
    assert read_questions(path) == [Question(f"{path}:1", "Who?", CONTEXT, (), False, f"{path}:1")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", r"a\.json:1: not JSON \(.*\); wanted SQuAD, \{\"data\": \[\{\"paragraphs\""),
        ("a.json", '[{"data": 1}]', r"a\.json: not SQuAD: no 'data' in a list; wanted \{\"data\""),
        ("a.json", "{}", r"a\.json: not SQuAD: no 'data' in nothing"),
        ("a.json", '{"data": {}}', r"a\.json: not SQuAD: 'data' is not a list but \{\};"),
        ("a.json", '{"data": [{"rows": 1}]}', r"a\.json: data\[0\]: not SQuAD: no 'paragraphs' in rows"),
        ("a.json", squad(context=7), r"data\[0\]: paragraphs\[0\]: not SQuAD: 'context' is not a text but 7;"),
        ("a.json", squad(entry(), {"id": "q"}), r"paragraphs\[0\]: qas\[1\]: not SQuAD: no 'question' in id"),
        ("a.json", squad(entry(answers={})), r"question q1: not SQuAD: 'answers' is not a list but \{\};"),
        ("a.json", squad(entry(answers=[{"text": "dukes"}])), r"q1: answers\[0\]: not SQuAD: no 'answer_start' in tex"),
        (
            "a.json",
            squad(entry(answers=[{"text": "a", "answer_start": True}])),
            "'answer_start' is not a whole number but T",
        ),
        (
            "a.json",
            squad(entry(answers=[{"text": "a", "answer_start": "7"}])),
            "'answer_start' is not a whole number but '7",
        ),
        ("a.json", squad(entry(is_impossible=True)), "question q1: is_impossible is true, but there are answers"),
        ("a.json", squad(entry(is_impossible="no")), "q1: not SQuAD: 'is_impossible' is not true or false but 'no'"),
        ("a.json", squad(entry(id=True)), r"qas\[0\]: 'id' is not a text or a whole number but True"),
        ("a.json", squad(entry(id=["q"])), r"qas\[0\]: 'id' is not a text or a whole number but \['q'\]"),
        ("a.json", squad(entry(id=7), entry(id="7")), "question 7: id '7' is also the id of .*question 7"),
        ("a.json", squad(entry(), entry()), "question q1: id 'q1' is also the id of .*question q1"),
        ("a.json", squad(), r"a\.json: no rows"),
        ("a.jsonl", '{"question": "Who?"}', r"a\.jsonl:1: no column 'context' among question"),
        ("a.jsonl", '{"question": 1, "context": "a"}', r"a\.jsonl:1: not SQuAD: 'question' is not a text but 1;"),
        (
            "a.jsonl",
            '{"question": "", "context": "a", "answers": {"text": ["a"], "answer_start": []}}',
            r"a\.jsonl:1: 1 answer, but 0 values of answer_start",
        ),
        (
            "a.jsonl",
            '{"question": "", "context": "a", "answers": [{"text": "a", "answer_start": 1}]}',
            r"a\.jsonl:1: not SQuAD: no 'text' in a list; wanted \{\"question\"",
        ),
    ],
)
def test_the_error_for_another_format_names_the_place_and_the_expected_format(write, name, content, message):
    with pytest.raises(ValueError, match=message):
        read_questions(write(name, content))


@pytest.mark.parametrize(
    ("name", "count", "impossible"),
    [
        ("train-v1.1", 6823, 0), ("dev-v1.1", 1578, 0), ("train-v2.0", 7194, 3844), ("dev-v2.0", 2302, 1071),
    ],
)  # fmt: skip
def test_real_questions_are_read_whole(name, count, impossible):
    questions, changed = read(shared_file(f"squad/{name}.json"))
    assert (len(questions), sum(question.impossible for question in questions), changed) == (count, impossible, {})
    assert all(question.impossible != bool(question.answers) for question in questions)


# JSON like SQuAD's: the right keys with any values, of which some are right.
TEXTS = st.sampled_from(["owl", "OWL ", "the owl\r\nflew", "", "\ud800", "e\u0301", "\n"])
WRONG = st.sampled_from([None, True, 7, -1, 2.5, "7", [], {}, [[]], {"a\nb": 1}])


def some(**values):
    return st.fixed_dictionaries({}, optional={name: value | WRONG for name, value in values.items()})


def full(**values):
    return st.fixed_dictionaries(values)


def squads(some):
    """SQuAD's JSON, made of dictionaries by `some`."""
    answers = st.lists(some(text=TEXTS, answer_start=st.integers(-1, 9)), max_size=2)
    entries = st.lists(some(id=TEXTS | WRONG, question=TEXTS, answers=answers), max_size=2)
    paragraphs = st.lists(some(context=TEXTS, qas=entries), max_size=2)
    return some(data=st.lists(some(paragraphs=paragraphs), max_size=2))


@settings(max_examples=200)
@given(squads(full) | squads(some) | WRONG, st.booleans())
def test_any_json_is_read_whole_or_refused_in_one_line(tmp_path_factory, content, cut):
    path = tmp_path_factory.getbasetemp() / "fuzzed.json"
    text = json.dumps(content)
    path.write_text(text[: len(text) // 2] if cut else text)
    message = None
    try:
        questions, changed = read(str(path))
        for question in questions:
            assert all(
                question.context.startswith(gold.text, gold.start) for gold in question.answers if gold.start >= 0
            )
        unfound = sum(gold.start < 0 for question in questions for gold in question.answers)
        assert changed.get(MISSING, 0) == unfound
    except ValueError as error:
        message = str(error)
    assert message is None or (str(path) in message and "\n" not in message)
