"""`bert-jax doctor` marks what is wrong, names flags, and ends with exit code 1 after a problem."""

import json

import pytest

from bert_jax.cli.doctor import Doctor

LISTS = '{"text": "an owl", "label": ["x", "y"]}\n'
REMEDY = "for several labels use --problem-type multi_label_classification"


def test_a_problem_is_marked_and_names_the_flag(write, capsys):
    with pytest.raises(ValueError, match="1 problem found"):
        Doctor(write("a.jsonl", LISTS), task="classification").run()
    [first, problem] = capsys.readouterr().out.splitlines()
    assert first.startswith("  ")
    assert problem.startswith("x ")
    assert problem.endswith(REMEDY)


def test_json_has_the_same_text(write, capsys):
    with pytest.raises(ValueError, match="found"):
        Doctor(write("a.jsonl", LISTS), task="classification", json=True).run()
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["severity"] == "problem"
    assert last["text"].endswith(REMEDY)


def test_the_kind_of_problem_can_be_named(write, capsys):
    Doctor(write("a.jsonl", LISTS), task="classification", problem_type="multi_label_classification").run()
    assert "  2 labels (with counts): x (1), y (1)" in capsys.readouterr().out.splitlines()
