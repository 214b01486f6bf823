"""Questions are read from SQuAD's own files and from rows, and every lost answer is reported."""

import json

import datasets
import pytest
from shared_data import shared_file

from bert_jax.data.readers.examples import Answer, Question
from bert_jax.data.readers.questions import read_questions

CONTEXT = "Norman dukes ruled; Norman knights rode."


def squad(*entries: dict, **paragraph) -> str:
    paragraphs = [{"context": CONTEXT, "qas": list(entries), **paragraph}]
    return json.dumps({"version": "2.0", "data": [{"title": "Normans", "paragraphs": paragraphs}]})


def entry(**changes) -> dict:
    return {"id": "q1", "question": "Who?", "answers": [{"text": "dukes", "answer_start": 7}], **changes}


def test_questions_answers_and_the_impossible_are_read(write):
    unanswerable = entry(id="q2", answers=[], is_impossible=True, plausible_answers=[{"text": "x", "answer_start": 0}])
    path = write("a.json", squad(entry(is_impossible=False), unanswerable, {"id": "q3", "question": "When?"}))
    assert read_questions(path) == (
        [
            Question("q1", "Who?", CONTEXT, (Answer("dukes", 7),), False, f"{path}: question q1"),
            Question("q2", "Who?", CONTEXT, (), True, f"{path}: question q2"),
            Question("q3", "When?", CONTEXT, (), False, f"{path}: question q3"),
        ],
        [],
    )


def test_misplaced_answers_are_moved_and_missing_answers_kept_and_both_reported(write):
    golds = [("Norman", 18), ("Norman", 9), ("dukes", -3), ("kings", 7), ("", 0)]
    path = write("a.json", squad(entry(answers=[{"text": text, "answer_start": start} for text, start in golds])))
    [question], notes = read_questions(path)
    assert [(gold.text, gold.start) for gold in question.answers] == [
        ("Norman", 20), ("Norman", 0), ("dukes", 7), ("kings", -1), ("", -1),
    ]  # fmt: skip
    assert notes == [
        f"{path}: question q1: the answer 'Norman' is not at 18 but at 20",
        f"{path}: question q1: the answer 'Norman' is not at 9 but at 0",
        f"{path}: question q1: the answer 'dukes' is not at -3 but at 7",
        f"{path}: question q1: the context does not contain the answer 'kings'",
        f"{path}: question q1: the context does not contain the answer ''",
    ]


def test_rows_in_the_layout_of_datasets_are_read(write, monkeypatch):
    rows = {
        "id": ["a", "b"],
        "question": ["Who?", "When?"],
        "context": [CONTEXT, CONTEXT],
        "answers": [{"text": ["dukes", "knights"], "answer_start": [7, 0]}, {"text": [], "answer_start": []}],
    }
    hub = datasets.Dataset.from_dict(rows)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, split: hub)
    questions, notes = read_questions("some-one/squad", split="validation")
    assert questions == [
        Question("a", "Who?", CONTEXT, (Answer("dukes", 7), Answer("knights", 27)), False, "the dataset:1"),
        Question("b", "When?", CONTEXT, (), True, "the dataset:2"),
    ]
    assert notes == ["the dataset:1: the answer 'knights' is not at 0 but at 27"]
    hub.to_parquet(path := write("a.parquet", b""))
    assert [question.answers for question in read_questions(path)[0]] == [q.answers for q in questions]
    path = write("a.jsonl", json.dumps({"question": "Who?", "context": CONTEXT}))
    assert read_questions(path)[0] == [Question(f"{path}:1", "Who?", CONTEXT, (), False, f"{path}:1")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.json", "{", r"a\.json:1: not JSON \(.*\); wanted SQuAD, \{\"data\": \[\{\"paragraphs\""),
        ("a.json", '[{"data": 1}]', r"a\.json: not SQuAD: no 'data' in a list; wanted \{\"data\""),
        ("a.json", "{}", r"a\.json: not SQuAD: no 'data' in nothing"),
        ("a.json", '{"data": {}}', r"a\.json: not SQuAD: 'data' is not a list but a dict"),
        ("a.json", '{"data": [{"rows": 1}]}', r"a\.json: data\[0\]: not SQuAD: no 'paragraphs' in rows"),
        ("a.json", squad(context=7), r"data\[0\]: paragraphs\[0\]: not SQuAD: 'context' is not a str but a int"),
        ("a.json", squad(entry(), {"id": "q"}), r"paragraphs\[0\]: qas\[1\]: not SQuAD: no 'question' in id"),
        ("a.json", squad(entry(answers={})), r"question q1: not SQuAD: 'answers' is not a list but a dict"),
        ("a.json", squad(entry(answers=[{"text": "dukes"}])), r"q1: answers\[0\]: not SQuAD: no 'answer_start' in tex"),
        ("a.json", squad(entry(is_impossible=True)), "question q1: is_impossible is true, but there are answers"),
        ("a.json", squad(entry(), entry()), "question q1: id 'q1' is also the id of .*question q1"),
        ("a.json", squad(), r"a\.json: no rows"),
        ("a.jsonl", '{"question": "Who?"}', r"a\.jsonl:1: no column 'context' among question"),
        ("a.jsonl", '{"question": 1, "context": "a"}', r"a\.jsonl:1: not SQuAD: 'question' is not a str but a int"),
        (
            "a.jsonl",
            '{"question": "", "context": "a", "answers": {"text": ["a"], "answer_start": []}}',
            r"a\.jsonl:1: 1 answers, but 0 values of answer_start",
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
    questions, notes = read_questions(shared_file(f"squad/{name}.json"))
    assert (len(questions), sum(question.impossible for question in questions), notes) == (count, impossible, [])
    assert all(question.impossible != bool(question.answers) for question in questions)
