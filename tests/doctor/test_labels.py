"""Names that look like a mistake are named; ordinary names are not."""

import pytest

from bert_jax.doctor.labels import suspicious_names


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (["nan", "pos"], "missing value: 'nan'"),
        (["", "pos"], "missing value: ''"),
        (["<NA>", "N/A", "x"], "missing value: '<NA>', 'N/A'"),
        (["#N/A", "-", "x"], "missing value: '#N/A', '-'"),
        (["['a'", "'b']", "c"], "pieces of a list: \"['a'\", \"'b']\""),
        (["[1, 0]", "c"], "pieces of a list: '[1, 0]'"),
        (["Good", "good ", "bad"], "case or spaces only: 'Good', 'good '"),
        (["New  York", "new york"], "case or spaces only"),
        (["LABEL_0", "LABEL_1"], "without names"),
    ],
)
def test_mistakes_in_names_are_described(names, said):
    [line] = suspicious_names(names)
    assert said in line


@pytest.mark.parametrize("names", [["neg", "pos"], ["1", "2", "10"], ["O", "B-PER", "I-PER"], ["LABEL_0", "other"], []])
def test_ordinary_names_are_not_suspicious(names):
    assert not list(suspicious_names(names))
