"""The separator of columns is found from the header and the first rows, or the file is refused."""

from pathlib import Path

import pytest

from bert_jax.data.readers.report import ReadReport
from bert_jax.data.readers.tables import column_names, read_rows
from bert_jax.data.readers.texts import read_texts

TWO = [{"text": "a", "label": "1"}, {"text": "b, c", "label": "0"}]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", 'text,label\na,1\n"b, c",0\n'),
        ("a.csv", "text;label\na;1\nb, c;0\n"),
        ("a.csv", "text\tlabel\na\t1\nb, c\t0\n"),
        ("a.csv", "text|label\r\na|1\r\nb, c|0\r\n"),
        ("a.csv", '\ufeff"text";"label"\r\n"a";"1"\r\n"b, c";"0"\r\n'),
        ("a.csv", "sep=;\ntext;label\na;1\nb, c;0\n"),
        ("a.csv", " text , label \na,1\n" + '"b, c",0\n'),
        ("a.tsv", "text\tlabel\na\t1\nb, c\t0\n"),
        ("a.tsv", 'text,label\na,1\n"b, c",0\n'),
        ("a.tsv", "text;label\na;1\nb, c;0\n"),
    ],
)
def test_the_separator_is_found(write, name, content):
    path = write(name, content)
    examples, _ = read_texts(path, report=(report := ReadReport(path)))
    assert [{"text": example.text, "label": example.label} for example in examples] == TWO
    last = content.rstrip().count("\n") + 1
    assert examples[-1].where == f"{path}:{last}"
    own = "\t" if name.endswith("tsv") else ","
    header = content.splitlines()[-3]
    assert (report.lines() == []) == (own in header)


def test_without_a_header_several_rows_must_agree(write):
    path = Path(write("a.csv", "a;1\nb;0\nc;1\n"))
    assert column_names(path, header=False) == ["1", "2"]
    short = Path(write("short.csv", "one; two\nthree; four\n"))
    assert column_names(short, header=False) == ["1"]


def test_two_columns_of_one_name_are_an_error_if_they_are_read(write):
    path = Path(write("a.csv", "text,label,label,,\na,1,2,,\n"))
    assert [row for _, row in read_rows(path, ["text"])] == [{"text": "a"}]
    with pytest.raises(ValueError, match=r"a\.csv: 2 columns are called 'label'"):
        list(read_rows(path, ["text", "label"]))
