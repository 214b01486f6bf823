"""Class names come from the training examples; the error for another label names its place."""

import re

import numpy as np
import pytest

from bert_jax.data.readers.examples import TaggedExample, TextExample
from bert_jax.data.readers.labels import (
    clean_labels,
    encode_classes,
    encode_label_sets,
    encode_scores,
    label_names,
)
from bert_jax.data.readers.report import ReadReport, Tally


def encode_all_scores(examples, names):
    return encode_scores(examples)


def examples_of(*labels) -> list[TextExample]:
    return [TextExample("a", None, label, f"a.tsv:{line}") for line, label in enumerate(labels, 2)]


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["b", "a", "b", "C"], ("C", "a", "b")),
        (["10", "9", "0", "9"], ("0", "9", "10")),
        (["1", "-1"], ("-1", "1")),
        (["2", "10", "a"], ("10", "2", "a")),
        ([("b", "a"), (), ("c",)], ("a", "b", "c")),
        ([("1",), ()], ("1",)),
    ],
)
def test_names_are_sorted_and_whole_numbers_by_size(labels, names):
    assert label_names(examples_of(*labels)) == names


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        (["10.0", "2.0", "0.0", "1.0"], ("0", "1", "2", "10")),
        (["10.5", "2.0", "0.5"], ("0.5", "2", "10.5")),
        (["1.0", "1", "+1", "-1"], ("-1", "1")),
        (["1.0", "01"], ("01", "1.0")),  # codes
        (["401", "401.0", "401.9"], ("401", "401.0", "401.9")),
        (["1.10", "1.1"], ("1.1", "1.10")),
        (["True", "FALSE"], ("false", "true")),
        (["True", "unknown"], ("True", "unknown")),
        (["1.0", "other"], ("1.0", "other")),
        ([("1.0", "2.0"), ("3.0",)], ("1", "2", "3")),
        (["1", "NA", "0", "null", "None"], ("0", "1")),  # words for missing values, among numbers
        (["NA", "DE", "none"], ("DE", "NA", "none")),  # a country and a class
    ],
)
def test_names_of_equal_numbers_are_one_unless_they_are_codes(labels, names):
    assert label_names(clean_labels(examples_of(*labels), None, ReadReport("a.tsv"))) == names


def test_other_spellings_of_a_models_names_are_found():
    report = ReadReport("a.tsv", rows=8)
    examples = examples_of("0.0", "1", "1.0", "None", None, "2", "TRUE", "other")
    cleaned = clean_labels(examples, ("1", "0", "true"), report)
    assert [example.label for example in cleaned] == ["0", "1", "1", "2", "true", "other"]  # encoding refuses two
    assert report.skipped["rows without a label"] == Tally(2, "a.tsv:5")
    assert report.changed == {"labels spelled in one way for all files, such as '0.0' as '0'": Tally(3, "a.tsv:2")}
    kept = clean_labels(examples_of("neg", None, "None"), ("neg", "pos"), report, drop=False)
    assert [example.label for example in kept] == ["neg", None, None]
    codes = clean_labels(examples_of("401.0", "401"), ("401", "401.0"), report)
    assert [example.label for example in codes] == ["401.0", "401"]
    placeholders = clean_labels(examples_of("1.0", "LABEL_0"), ("LABEL_0", "LABEL_1"), report)
    assert [example.label for example in placeholders] == ["LABEL_1", "LABEL_0"]
    numbers = clean_labels(examples_of("1", "0.0", "b"), ("a", "b"), report, numbered=True)
    assert [example.label for example in numbers] == ["b", "a", "b"]
    with pytest.raises(ValueError, match=r"a\.tsv:2: no label"):
        clean_labels(examples_of(None, "NULL"), ("a", "b"), report)


def test_a_word_for_missing_values_that_is_a_class_is_reported():
    report = ReadReport("a.tsv", rows=3)
    assert len(clean_labels(examples_of("DE", "NA", "NA"), None, report)) == 3
    assert report.lines() == ["a.tsv: rows with 'NA', which is read as a class: 2 (first: a.tsv:3)"]


@pytest.mark.parametrize("names", [None, ("contradiction", "entailment", "neutral")])
@pytest.mark.parametrize(
    ("column", "others"), [("label", ("neutral", "entailment", "contradiction")), ("gold_label", ("neutral",))]
)
def test_rows_without_a_gold_label_are_skipped_and_counted(column, others, names):
    report = ReadReport("snli.jsonl", rows=5, columns={"label": column})
    kept = clean_labels(examples_of("-", *others, "-"), names, report)
    assert [example.label for example in kept] == list(others)
    assert report.skipped == {"rows with the label '-', on which the annotators did not agree": Tally(2, "a.tsv:2")}
    assert clean_labels(examples_of("-", *others), names, report, drop=False)[0].label is None


@pytest.mark.parametrize(
    ("labels", "names"), [(("-", "neutral", "yes"), None), (("-", "+"), None), (("-", "neutral"), ("-", "neutral"))]
)
def test_a_dash_is_a_class_in_other_data(labels, names):
    assert len(clean_labels(examples_of(*labels), names, ReadReport("a.tsv", columns={"label": "label"}))) == len(
        labels
    )


def test_the_error_says_whether_the_column_was_found():
    found = ReadReport("a.tsv", columns={"text": "review", "label": "stars"})
    with pytest.raises(ValueError, match=r"a\.tsv:2: no label in 'stars', and none in the other rows"):
        clean_labels(examples_of(None, None), None, found)
    with pytest.raises(ValueError, match=r"a\.tsv:2: no label .*`label_column` was not named"):
        clean_labels(examples_of(None, None), None, ReadReport("a.tsv"))


def test_tags_are_named_too():
    tagged = [TaggedExample(("a", "b"), ("O", "B-x"), "a:1"), TaggedExample(("c",), ("I-x",), "a:4")]
    assert label_names(tagged) == ("B-x", "I-x", "O")
    with pytest.raises(ValueError, match="a:9: no tags"):
        label_names([*tagged, TaggedExample(("c",), None, "a:9")])


def test_given_names_keep_their_order_and_must_include_all():
    assert label_names(examples_of("b", "a"), given=["b", "c", "a"]) == ("b", "c", "a")
    with pytest.raises(ValueError, match=re.escape("a.tsv:3: label 'd' is not one of b, c, a")):
        label_names(examples_of("b", "d"), given=["b", "c", "a"])
    with pytest.raises(ValueError, match="duplicate class name in b, a, b"):
        label_names(examples_of("b", "a"), given=["b", "a", "b"])


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["a", "a"], "a.tsv:2 to a.tsv:3: needs at least two classes, got a"),
        ([(), ()], "a.tsv:2 to a.tsv:3: needs at least two classes, got none"),
        ([], "no examples: needs at least two classes, got none"),
        (["a", None, "b"], "a.tsv:3: no label"),
        (["a", 0.5], "a.tsv:3: 0.5 is a score, not a class"),
    ],
)
def test_examples_without_two_classes_are_an_error(labels, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        label_names(examples_of(*labels))


@pytest.mark.parametrize(
    ("labels", "encode", "expected", "dtype"),
    [
        (["c", "a", "c"], encode_classes, [2, 0, 2], np.int32),
        ([("c", "a"), (), ("b",)], encode_label_sets, [[1, 0, 1], [0, 0, 0], [0, 1, 0]], np.float32),
        ([0.5, -2.0, 3.0], encode_all_scores, [[0.5], [-2], [3]], np.float32),
        ([(0.5, 1.0), (2.0, 3.0)], encode_all_scores, [[0.5, 1], [2, 3]], np.float32),
    ],
)
def test_labels_become_the_array_of_their_problem(labels, encode, expected, dtype):
    encoded = encode(examples_of(*labels), ("a", "b", "c"))
    assert encoded.dtype == dtype
    np.testing.assert_array_equal(encoded, np.array(expected, dtype))


@pytest.mark.parametrize(
    ("labels", "encode", "message"),
    [
        (["a", "x"], encode_classes, "a.tsv:3: label 'x' is not one of a, b, c"),
        ([("a",), ("b", "x")], encode_label_sets, "a.tsv:3: label 'x' is not one of a, b, c"),
        (["a", None], encode_classes, "a.tsv:3: no label"),
        ([1.0, None], encode_all_scores, "a.tsv:3: no label"),
        (["a", ("b",)], encode_classes, "a.tsv:3: needs one class, got ('b',)"),
        (["a", ()], encode_classes, "a.tsv:3: needs one class, got ()"),
        (["a", 1.0], encode_classes, "a.tsv:3: 1.0 is a score, not a class"),
        ([1.0, "a"], encode_all_scores, "a.tsv:3: 'a' is a class, not a score"),
        ([1.0, (1.0, 2.0)], encode_all_scores, "a.tsv:3: 2 scores, a.tsv:2 has 1"),
    ],
)
def test_the_error_for_an_invalid_label_names_its_place(labels, encode, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        encode(examples_of(*labels), ("a", "b", "c"))


def test_numbers_stand_for_placeholder_names():
    examples = examples_of("1", "LABEL_0")
    np.testing.assert_array_equal(encode_classes(examples, ("LABEL_0", "LABEL_1")), [1, 0])
    for label in ("2", "LABEL_2"):
        with pytest.raises(ValueError, match=f"label '{label}' is not one of LABEL_0, LABEL_1"):
            encode_classes(examples_of(label), ("LABEL_0", "LABEL_1"))
    with pytest.raises(ValueError, match="label '1' is not one of LABEL_1, LABEL_0"):
        encode_classes(examples, ("LABEL_1", "LABEL_0"))
