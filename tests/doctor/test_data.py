"""The examination of data guesses what they are for, and names duplicates, contradictions, [UNK] and odd labels."""

import gzip
import json

import pytest

from bert_jax.doctor.data import examine_data

CONLL = "an O\nowl B-x\n\nit O\nflew O\n\n"
SQUAD = {"data": [{"paragraphs": [{"context": "an owl", "qas": [{"id": "1", "question": "who?", "answers": []}]}]}]}
CHOICES = '{"text": "an owl", "choices": ["flew", "sat"], "label": 0}\n'


def found(source, *severities, **options):
    severities = severities or ("fact", "warning", "problem")
    return [one.text for one in examine_data(source, **options) if one.severity in severities]


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("a.csv", "text,label\nan owl,x\nit flew,y\n", "data for classification"),
        ("a.jsonl", '{"sentence": "an owl", "label": 1}\n', "data for classification"),
        ("a.conll", CONLL, "data for tokens"),
        ("a.txt", CONLL, "data for tokens"),
        ("b.jsonl", '{"tokens": ["an"], "ner_tags": ["O"]}\n', "data for tokens"),
        ("dev.json", json.dumps(SQUAD), "data for squad"),
        ("c.jsonl", CHOICES, "data for multiple-choice"),
        ("c.csv", "text,option1,option2,label\nan owl,flew,sat,0\n", "data for multiple-choice"),
        ("d.csv.gz", gzip.compress(b"text,label\nan owl,x\nit flew,y\n", mtime=0), "data for classification"),
        ("e.JSON", '[{"text": "an owl", "label": 1}]', "data for classification"),
        ("b.txt", "An owl flew over the house.\nIt was dark.\n\nA film.\n", "a corpus"),
        ("d.jsonl", '{"text": "an owl"}\n', "a corpus"),
    ],
)
def test_the_kind_of_data_is_guessed(name, content, kind, write):
    path = write(name, content)
    assert f"{path} is read as {kind}" in found(path)
    assert not found(path, "problem")


def test_duplicates_contradictions_and_empty_texts_are_counted(write):
    path = write("a.csv", "text,label\nan owl,x\nan owl,x\nan owl,y\n ,y\nit flew,nan\n")
    warnings = found(path, "warning")
    assert "examples that repeat the texts of an earlier one: 2" in warnings
    assert "of these, with other labels than the first: 1" in warnings
    assert "1 empty text" in warnings
    assert "1 example without a label" in warnings


def test_labels_are_counted_and_odd_ones_named(write):
    rows = "".join(f"text {number},{'Good' if number % 2 else 'good'}\n" for number in range(12))
    path = write("a.csv", f"text,label\n{rows}")
    assert "2 labels (with counts): good (6), Good (6)" in found(path, "fact")
    assert any("differ in case or spaces only" in text for text in found(path, "warning"))


def test_labels_are_those_that_a_run_would_have(write):
    path = write("a.csv", "text,label\nan owl,1.0\nit flew,1\nit sat,NA\nit slept,0\nit hooted,\n")
    assert "2 labels (with counts): 1 (2), 0 (1)" in found(path, "fact")
    assert "2 examples without a label" in found(path, "warning")


@pytest.mark.parametrize(
    ("cells", "problem_type", "expected"),
    [
        (([1, 1, 0], [0, 1, 0]), "multi_label_classification", "2 labels (with counts): LABEL_1 (2), LABEL_0 (1)"),
        ((["x", "y"], ["y"]), "multi_label_classification", "2 labels (with counts): y (2), x (1)"),
        ((0.5, 4), "regression", "scores from 0.5 to 4, 2.25 on average"),
    ],
)
def test_several_labels_and_scores_are_examined(write, cells, problem_type, expected):
    rows = ({"text": f"an owl {cell}", "label": cell} for cell in cells)
    path = write("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert expected in found(path, "fact", problem_type=problem_type)
    if isinstance(cells[0], list):
        assert any("`problem_type=multi_label_classification`" in text for text in found(path, "problem"))


@pytest.mark.parametrize(
    ("tags", "severity", "expected"),
    [
        ('["B-per", "I-per", "O"]', "fact", "tags in the IOB scheme; entity kinds: per"),
        ('["O", -100, "B-per"]', "fact", "2 labels (with counts): O (1), B-per (1)"),
        ('["B-per", "per", "O"]', "problem", "tag 'per' fits no scheme"),
        ("[0, 1, -100]", "problem", "the tags are numbers, such as 0"),
    ],
)
def test_tags_are_understood_as_in_a_run(write, tags, severity, expected):
    path = write("a.jsonl", f'{{"tokens": ["an", "owl", "flew"], "ner_tags": {tags}}}\n')
    assert any(expected in text for text in found(path, severity))


def test_rows_that_a_reader_skips_are_warnings(write):
    path = write("a.conll", f"# id = 1\n{CONLL}")
    assert any("comments" in text for text in found(path, "warning"))


def test_a_model_counts_its_own_tokens_and_unknown_ones(folder, tokenizer, write):
    tokenizer.save(folder)
    known = tokenizer.tokens[-1]
    path = write("a.csv", f"text,label\n{known} \u2603,x\n{known} {known},y\n")
    assert any(text.startswith("25.00% of the tokens are [UNK]") for text in found(path, "warning", model=str(folder)))
    assert any("median 2 tokens" in text for text in found(path, "fact", model=str(folder)))


@pytest.mark.parametrize("name", ["missing.csv", "a/b.jsonl"])
def test_a_file_that_does_not_exist_is_one_problem(name, tmp_path):
    assert len(found(str(tmp_path / name), "problem")) == 1
