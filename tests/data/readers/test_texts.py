"""Texts are read with labels of the right form, from columns that are named or found."""

import json
from collections import Counter

import datasets
import pytest
from shared_data import shared_file

from bert_jax.data.readers.examples import TextExample
from bert_jax.data.readers.texts import TextColumns, read_texts

MULTI = {"problem_type": "multi_label_classification"}
REGRESSION = {"problem_type": "regression"}


def read(source: str, **options) -> list[TextExample]:
    return read_texts(source, **options)[0]


def columns_of(source: str, **options) -> TextColumns:
    return read_texts(source, **options)[1]


def labels_of(source: str, **options) -> list:
    return [example.label for example in read(source, **options)]


def lines(*rows: dict) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def test_pairs_and_labels_are_read_with_their_places(write):
    path = write("a.tsv", 'id\tPremise\thypothesis\tgold_label\n7\tA "b\tc\tneutral\n8\td\te f\tcontradiction\n')
    assert read(path) == [
        TextExample('A "b', "c", "neutral", f"{path}:2"),
        TextExample("d", "e f", "contradiction", f"{path}:3"),
    ]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("sentence,label", ("sentence", None, "label")),
        ("idx,text,score", ("text", None, "score")),
        ("label,Text", ("Text", None, "label")),
        ("question,sentence,label", ("question", "sentence", "label")),
        ("question1,question2,is_duplicate", ("question1", "question2", "is_duplicate")),
        ("sentence1,sentence2", ("sentence1", "sentence2", None)),
        ("anything", ("anything", None, None)),
    ],
)
def test_columns_are_found_by_common_names(write, header, expected):
    path = write("a.csv", f"{header}\n{header}\n")
    assert columns_of(path) == TextColumns(*expected, classes=None)


def test_named_columns_are_preferred(write):
    path = write("a.csv", "sentence1,sentence2,label,stars\na,b,c,5\n")
    assert columns_of(path, label_column="stars") == TextColumns("sentence1", "sentence2", "stars", None)
    assert columns_of(path, text_column="sentence2") == TextColumns("sentence2", None, "label", None)
    assert columns_of(path, pair_column="label") == TextColumns("sentence1", "label", None, None)
    with pytest.raises(ValueError, match="which column holds the text"):
        columns_of(path, label_column="sentence1")
    with pytest.raises(ValueError, match="column 'stars' can only be one of text, pair and label"):
        columns_of(path, text_column="stars", label_column="stars")
    with pytest.raises(ValueError, match="column 'label' can only be one of text, pair and label"):
        columns_of(write("b.csv", "label\na\n"))  # guessed
    for option in ("text_column", "pair_column", "label_column"):
        with pytest.raises(ValueError, match="no column 'absent' among sentence1, sentence2, label, stars"):
            columns_of(path, **{option: "absent"})


def test_a_table_without_a_known_column_is_an_error(write):
    with pytest.raises(
        ValueError,
        match=r"There are a, b; name it with `text_column`, or set `header=False`",
    ):
        read(write("a.csv", "a,b\n1,2\n"))


def test_columns_of_a_table_without_a_header_are_named_by_number(write):
    path = write("a.tsv", "x\t1\tone\ny\t0\ttwo\n")
    examples = read(path, text_column="3", label_column="2", header=False)
    assert [(example.text, example.label) for example in examples] == [("one", "1"), ("two", "0")]


def test_classes_are_named_by_text_or_digits(write):
    values = ["good", " good ", 1, 0, -1, 2.0, True, None, ""]
    path = write("a.jsonl", lines(*({"text": "a", "label": value} for value in values)))
    assert labels_of(path) == ["good", "good", "1", "0", "-1", "2", "true", None, None]


def test_several_classes_are_a_list_or_one_text(write):
    values = [["a", "b"], [3, 1, 3], [], "a, b", "", "b,,a", None, 7, True]
    path = write("a.jsonl", lines(*({"text": "a", "label": value} for value in values)))
    expected = [("a", "b"), ("3", "1"), (), ("a", "b"), (), ("b", "a"), None, ("7",), ("true",)]
    assert labels_of(path, **MULTI) == expected
    path = write("a.csv", "text,labels\nx,a b|c\n")
    assert labels_of(path, label_separator="|", **MULTI) == [("a b", "c")]


def test_scores_are_numbers_or_lists_of_them(write):
    values = [1, 0.5, "-2.5e1", [1, 0.25], None, " "]
    path = write("a.jsonl", lines(*({"text": "a", "score": value} for value in values)))
    assert labels_of(path, **REGRESSION) == [1.0, 0.5, -25.0, (1.0, 0.25), None, None]


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        (["a"], {}, r"a\.jsonl:2: 'label' is not a class: \['a'\]; .* `problem_type=multi_label_classification`"),
        (0.5, {}, r"a\.jsonl:2: 'label' is not a class: 0\.5; for scores use `problem_type=regression`"),
        ([0.5], MULTI, r"a\.jsonl:2: 'label' is not a class: 0\.5"),
        (1.5, MULTI, r"a\.jsonl:2: 'label' is not a class: 1\.5"),
        ({"a": 1}, MULTI, r"a\.jsonl:2: 'label' is not a class: \{'a': 1\}$"),
        ([{"a": 1}], MULTI, r"a\.jsonl:2: 'label' is not a class: \{'a': 1\}$"),
        (10**400, REGRESSION, r"a\.jsonl:2: 'label' is not a finite number: 10+$"),
        ("high", REGRESSION, r"a\.jsonl:2: 'label' is not a finite number: 'high'"),
        ("nan", REGRESSION, r"a\.jsonl:2: 'label' is not a finite number: 'nan'"),
    ],
)
def test_a_label_of_another_problem_is_an_error(write, value, options, message):
    path = write("a.jsonl", lines({"text": "a", "label": None}, {"text": "b", "label": value}))
    with pytest.raises(ValueError, match=message):
        read(path, **options)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "sentence\tlabel\na\t1\nb\n", r"a\.tsv:3: 1 columns, the header has 2"),
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text": "b"}\n', r"a\.jsonl:2: no column 'label' among text"),
        ("a.jsonl", '{"text": null}\n', r"a\.jsonl:1: no text in 'text'"),
        ("a.jsonl", '{"text": ["a"]}\n', r"a\.jsonl:1: 'text' is not a text but a list"),
        ("a.tsv", "sentence\tlabel\n", r"a\.tsv: no rows"),
        ("a.tsv", "", r"a\.tsv: no rows"),
        ("a.tsv", b"text\n\xff\n", r"a\.tsv:2: not utf-8; set `encoding`"),
    ],
)
def test_an_error_names_file_and_line(write, name, content, message):
    with pytest.raises(ValueError, match=message):
        read(write(name, content))


def test_an_unknown_problem_is_an_error(write):
    with pytest.raises(ValueError, match=r"`problem_type` must be one of single_.* got 'ranking'"):
        read(write("a.csv", "text\na\n"), problem_type="ranking")


def test_files_of_a_pattern_are_read_one_after_another(write, tmp_path):
    for name in ("b", "a"):
        write(f"many/{name}.csv", f"text,label\n{name},1\n")
    assert [example.text for example in read(str(tmp_path / "many" / "*.csv"))] == ["a", "b"]


def test_classes_of_a_dataset_keep_their_names_and_order(monkeypatch):
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "ja"])})
    hub = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, split: hub)
    assert columns_of("some-one/reviews").classes == ("no", "ja")
    assert labels_of("some-one/reviews", split="test") == ["ja", "no", None]


@pytest.mark.parametrize(("name", "count", "positive"), [("train", 6920, 3610), ("dev", 872, 444)])
def test_real_sentences_are_read_whole(name, count, positive):
    examples = read(shared_file(f"sst2/{name}.tsv"))
    assert Counter(example.label for example in examples) == {"1": positive, "0": count - positive}
    assert examples[-1].where.endswith(f"{name}.tsv:{count + 1}")
