"""Texts are read with labels of the right form, from columns that are named or found."""

import json
from collections import Counter

import datasets
import pyarrow as pa
import pytest
from pyarrow import csv as pa_csv
from pyarrow import parquet
from shared_data import shared_file

from bert_jax.data.readers.examples import TextExample
from bert_jax.data.readers.labels import clean_labels
from bert_jax.data.readers.report import ReadReport
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
    values = ["good", " good ", 1, 0, -1, 2.0, True, 0.5, None, ""]
    path = write("a.jsonl", lines(*({"text": "a", "label": value} for value in values)))
    assert labels_of(path) == ["good", "good", "1", "0", "-1", "2", "true", "0.5", None, None]


def test_several_classes_are_a_list_or_one_text(write):
    values = [["a", "b"], [3, 1, 3], [], "a, b", "", "b,,a", None, 7, True]
    path = write("a.jsonl", lines(*({"text": "a", "label": value} for value in values)))
    expected = [("a", "b"), ("3", "1"), (), ("a", "b"), (), ("b", "a"), None, ("7",), ("true",)]
    assert labels_of(path, **MULTI) == expected
    path = write("a.csv", "text,labels\nx,a b|c\n")
    assert labels_of(path, label_separator="|", **MULTI) == [("a b", "c")]


def test_texts_that_look_like_lists_are_lists(write):
    """As pandas and numpy write lists into a csv file."""
    values = [
        "['a', 'b']", '["a","b"]', "['a' 'b']", "{'a', 'b'}", "('a', 'b')", "[a, b]", "[ 'a,b' ,\"it's\"]", "[3, 1.0]",
        "[]", "['\\xe4']", "[other]", "(a), b", "[sci fi, drama]",
    ]  # fmt: skip
    path = write("a.jsonl", lines(*({"text": "a", "label": value} for value in values)))
    expected = [
        *[("a", "b")] * 6, ("a,b", "it's"), ("3", "1"), (), ("ä",), ("[other]",), ("(a)", "b"), ("sci fi", "drama"),
    ]  # fmt: skip
    assert labels_of(path, **MULTI) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[1, 1, 0], [0, 0, 1], [0, 0, 0]], [("x", "y"), ("z",), ()]),
        (["[1, 1, 0]", "[0 0 1]", "[0. 0. 0.]"], [("x", "y"), ("z",), ()]),
        ([[1.0, 0.0, 0.0], None, [0.0, 0.0, 1.0]], [("x",), None, ("z",)]),
        ([[True, False, True], [False, True, False]], [("x", "z"), ("y",)]),
        (["1,1,0", "0,0,1"], [("x", "y"), ("z",)]),
        (["[1, 1, 0]", "", "[0 0 1]"], [("x", "y"), None, ("z",)]),
        ([[1, 1, 0], [0, 0, 1], []], [("x", "y"), ("z",), None]),
    ],
)
def test_lists_of_zeros_and_ones_hold_one_value_for_each_label(write, values, expected):
    path = write("a.jsonl", lines(*({"text": "a", "label": value} for value in values)))
    report = ReadReport(path)
    assert labels_of(path, label_names=("x", "y", "z"), report=report, **MULTI) == expected
    assert "lists of zeros and ones" in report.lines()[0]
    examples, columns = read_texts(path, **MULTI)
    assert columns.classes == ("LABEL_0", "LABEL_1", "LABEL_2")
    assert set().union(*(example.label or () for example in examples)) <= set(columns.classes)
    with pytest.raises(ValueError, match=r"a\.jsonl:1: 'label': 3 zeros and ones for 2 labels \(x, y\)"):
        read(path, label_names=("x", "y"), **MULTI)


@pytest.mark.parametrize("values", [[[1, 1, 0], [0, 0]], ["[1 1 0]", "0"], [[1, 0], [0, 0, 1]]])
def test_lists_that_lack_zeros_and_ones_are_refused(write, values):
    path = write("a.jsonl", lines(*({"text": "a", "label": value} for value in values)))
    with pytest.raises(ValueError, match=r"a\.jsonl:[12]: 'label': [12] zeros and ones for 3 labels"):
        read(path, **MULTI)


@pytest.mark.parametrize("values", [[[0, 1], [1], []], [[0, 1], [1]], [[0], [1]], [[0, 2], [1, 0]], [[0, 1], [1, 0]]])
def test_lists_of_ids_are_sets(write, values):
    path = write("a.jsonl", lines(*({"text": "a", "label": value} for value in values)))
    names = ("0", "1", "2")
    assert labels_of(path, label_names=names, **MULTI) == [tuple(map(str, value)) for value in values]


def test_one_column_for_each_label_is_read(write):
    header = "id,comment_text,toxic,very rude,threat\n"
    path = write("a.csv", header + "0,a,1,0,1\n1,b,0,0.0,0\n2,c,,1,1\n3,d,False,True,0\n")
    expected = [("toxic", "threat"), (), None, ("very rude",)]
    assert labels_of(path, **MULTI) == expected
    assert columns_of(path, **MULTI).classes == ("toxic", "very rude", "threat")
    chosen = {"label_columns": ("threat", "toxic")}
    assert labels_of(path, **chosen, **MULTI) == [("threat", "toxic"), (), None, ()]
    assert labels_of(path, label_names=("threat", "toxic"), **MULTI)[0] == ("threat", "toxic")  # a model's
    scores = write("scores.csv", "text,joy,fear\na,0.5,1\nb,,2\n")
    assert labels_of(scores, label_columns=("joy", "fear"), **REGRESSION) == [(0.5, 1.0), None]
    with pytest.raises(ValueError, match=r"a\.csv:2: 2 of the label columns are 1; a single label needs exactly one"):
        read(path, **chosen)
    one = write("one.csv", "text,happy,sad\na,1,0\nb,0,1\n")
    assert labels_of(one, label_columns=("happy", "sad")) == ["happy", "sad"]
    with pytest.raises(ValueError, match=r"a\.csv:5: 'id' is not 0 or 1 but '3'"):
        read(path, label_columns=("id", "toxic"), **MULTI)
    with pytest.raises(ValueError, match="no column 'absent'"):
        read(path, label_columns=("absent",), **MULTI)


def test_columns_that_a_model_was_trained_on_are_preferred_to_common_names(write):
    path = write("a.csv", "text,body,title,label,stars\na,b,t,1,5\n")
    trained_on = {"text": "body", "label": "stars"}
    assert columns_of(path, trained_on=trained_on) == TextColumns("body", None, "stars", None)
    assert columns_of(path, trained_on={"text": "body", "pair": "title"}).pair == "title"
    assert columns_of(path, trained_on=trained_on, text_column="title").text == "title"
    assert columns_of(path, trained_on=trained_on, label_column="label").label == "label"
    assert columns_of(path, trained_on=trained_on, guess_label=False).label is None
    assert columns_of(path, trained_on={"text": "absent"}) == TextColumns("text", None, "label", None)
    assert columns_of(path, trained_on={"text": "body", "pair": "absent"}).text == "text"


def test_a_header_that_was_not_split_is_no_text(write):
    path = write("a.csv", "text;label\none; two\nthree\n")
    with pytest.raises(ValueError, match="one column called 'text;label'; name it with `text_column`"):
        read(path)
    with pytest.raises(ValueError, match="no column 'text' but one column called 'text;label'"):
        read(path, text_column="text")
    assert [example.text for example in read(path, text_column="text;label")] == ["one; two", "three"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_labels_are_the_same_from_every_kind_of_file(tmp_path, kind):
    values = {
        "float": ([0.0, 1.0, None, 10.0, 2.0], ["0", "1", "10", "2"]),
        "half": ([0.5, 1.0, float("nan"), 1.5], ["0.5", "1", "1.5"]),
        "bool": ([True, False, None], ["true", "false"]),
        "text": ([" b ", "a", "nan", "<NA>", "None"], ["b", "a", "None"]),
    }
    for name, (cells, expected) in values.items():
        path = tmp_path / f"{name}.{kind}"
        table = pa.table({"text": [f"t{number}" for number in range(len(cells))], "label": cells})
        if kind == "parquet":
            parquet.write_table(table, path)
        elif kind == "csv":
            pa_csv.write_csv(table, path)
        else:
            path.write_text(lines(*table.to_pylist()))
        report = ReadReport(str(path))
        examples = clean_labels(read(str(path), report=report), None, report)
        assert [example.label for example in examples] == expected
        assert report.rows == len(cells)
        assert report.used == len(expected)
        assert report.lines()[0].startswith(f"{path}: skipped {len(cells) - len(expected)} of {len(cells)} rows")


def test_scores_are_numbers_or_lists_of_them(write):
    values = [1, 0.5, "-2.5e1", [1, 0.25], None, " ", "NA", float("nan"), "[1, 0.25]"]
    path = write("a.jsonl", lines(*({"text": "a", "score": value} for value in values)))
    assert labels_of(path, **REGRESSION) == [1.0, 0.5, -25.0, (1.0, 0.25), None, None, None, None, (1.0, 0.25)]


@pytest.mark.parametrize(
    ("value", "options", "message"),
    [
        (["a"], {}, r"a\.jsonl:2: 'label' is not a class: \['a'\]; .* `problem_type=multi_label_classification`"),
        ("['a']", {}, r"a\.jsonl:2: 'label' is not a class: .*; .* `problem_type=multi_label_classification`"),
        (float("inf"), {}, r"a\.jsonl:2: 'label' is not a class: inf; for scores use `problem_type=regression`"),
        ("[0.5, 0.25]", MULTI, r"a\.jsonl:2: 'label' is not a class: 0\.5"),
        ("['a' ... 'b']", MULTI, r"a\.jsonl:2: 'label' is a list that was cut off"),
        ([0.5], MULTI, r"a\.jsonl:2: 'label' is not a class: 0\.5"),
        (1.5, MULTI, r"a\.jsonl:2: 'label' is not a class: 1\.5"),
        ({"a": 1}, MULTI, r"a\.jsonl:2: 'label' is not a class: \{'a': 1\}$"),
        ([{"a": 1}], MULTI, r"a\.jsonl:2: 'label' is not a class: \{'a': 1\}$"),
        (10**400, REGRESSION, r"a\.jsonl:2: 'label' is not a finite number: 10+$"),
        ("high", REGRESSION, r"a\.jsonl:2: 'label' is not a finite number: 'high'"),
        ("inf", REGRESSION, r"a\.jsonl:2: 'label' is not a finite number: 'inf'"),
        ([1, None], REGRESSION, r"a\.jsonl:2: 'label' is not a finite number: None"),
    ],
)
def test_a_label_of_another_problem_is_an_error(write, value, options, message):
    path = write("a.jsonl", lines({"text": "a", "label": None}, {"text": "b", "label": value}))
    with pytest.raises(ValueError, match=message):
        read(path, **options)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.tsv", "sentence\tlabel\na\t1\nb\n", r"a\.tsv:3: 1 column, the header has 2"),
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
