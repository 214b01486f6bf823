"""Every kind of table gives the same rows, each with its place."""

import csv
import gzip
import json

import datasets
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from bert_jax.config import PROBLEM_TYPES
from bert_jax.data.readers.labels import clean_labels
from bert_jax.data.readers.report import ReadReport, Tally
from bert_jax.data.readers.tables import class_names, column_names, name_of, read_rows
from bert_jax.data.readers.texts import read_texts

ROWS = [{"text": 'a "raw', "label": "x"}, {"text": "b", "label": ""}, {"text": "", "label": "y"}]
SENTIMENT = datasets.ClassLabel(names=["negative", "positive"])


def save_as(kind: str, path, rows=ROWS):
    path = path / f"rows.{kind}"
    if kind == "parquet":
        parquet.write_table(pa.Table.from_pylist(rows), path)
    elif kind == "json":
        path.write_text(json.dumps(rows, indent=1))
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    elif kind == "tsv":
        path.write_text("\n".join(["text\tlabel", *("\t".join(row.values()) for row in rows)]))
    else:
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return path


@pytest.mark.parametrize(("kind", "first"), [("csv", 2), ("tsv", 2), ("jsonl", 1), ("json", 1), ("parquet", 1)])
def test_every_kind_gives_the_same_rows(tmp_path, kind, first):
    path = save_as(kind, tmp_path)
    places = [f"{path}:{first + number}" for number in range(3)]
    assert list(read_rows(path)) == list(zip(places, ROWS, strict=True))
    assert list(read_rows(path, ["label"])) == [
        (place, {"label": row["label"]}) for place, row in zip(places, ROWS, strict=True)
    ]
    assert column_names(path) == ["text", "label"]
    with pytest.raises(ValueError, match="no column 'body' among text, label"):
        list(read_rows(path, ["text", "body"]))


def test_a_dataset_gives_the_same_rows():
    dataset = datasets.Dataset.from_list(ROWS)
    assert list(read_rows(dataset)) == [(f"the dataset:{number}", row) for number, row in enumerate(ROWS, 1)]


def test_a_row_of_several_lines_has_the_number_of_its_first(tmp_path):
    rows = [{"text": "a\n\nb", "label": "x"}, {"text": "c", "label": "y\r\n"}, {"text": "d", "label": "z"}]
    found = list(read_rows(save_as("csv", tmp_path, rows)))
    assert [row for _, row in found] == rows
    assert [where.rpartition(":")[2] for where, _ in found] == ["2", "5", "7"]


@pytest.mark.parametrize("name", ["a.csv", "a.tsv"])
def test_columns_without_a_header_have_numbers(tmp_path, name):
    path = tmp_path / name
    path.write_text("a,1\nb,2\n".replace(",", "," if name == "a.csv" else "\t"))
    assert column_names(path, header=False) == ["1", "2"]
    assert list(read_rows(path, ["2"], header=False)) == [(f"{path}:1", {"2": "1"}), (f"{path}:2", {"2": "2"})]


def test_rows_of_a_wrong_length_are_errors_or_skipped(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_text("text\tlabel\na\t1\nb\n\nc\t2\t3\nd\t4\n")
    with pytest.raises(ValueError, match=r"a\.tsv:3: 1 column, the header has 2"):
        list(read_rows(path))
    report = ReadReport("a.tsv")
    assert [row["text"] for _, row in read_rows(path, ragged=report)] == ["a", "d"]
    assert report.skipped == {"rows with another number of columns; the header has 2": Tally(2, f"{path}:3")}
    path.write_text("a\t1\nb\n")
    with pytest.raises(ValueError, match=r"a\.tsv:2: 1 column, the first row has 2"):
        list(read_rows(path, header=False))


def test_a_blank_line_is_an_empty_field_in_a_table_of_one_column(tmp_path):
    path = tmp_path / "a.csv"
    path.write_text("\ntext\na\n\n\nb\nc\n\n")
    expected = {3: "a", 4: "", 5: "", 6: "b", 7: "c"}
    assert list(read_rows(path)) == [(f"{path}:{line}", {"text": text}) for line, text in expected.items()]
    path.write_text("text,label\n\na,b\n\nc,d\n")
    assert [where for where, _ in read_rows(path)] == [f"{path}:3", f"{path}:5"]
    assert [row for _, row in read_rows(path, ["text"])] == [{"text": "a"}, {"text": "c"}]


def test_classes_have_their_names_in_datasets_and_in_parquet_files_made_of_them(tmp_path):
    features = datasets.Features({"label": SENTIMENT, "all": datasets.List(SENTIMENT), "id": datasets.Value("int64")})
    values = {"label": [1, 0, -1, None], "all": [[0, 1], [], [1], None], "id": [5, 6, 7, 8]}
    dataset = datasets.Dataset.from_dict(values, features=features)
    dataset.to_parquet(tmp_path / "a.parquet")
    expected = [
        {"label": "positive", "all": ["negative", "positive"], "id": 5},
        {"label": "negative", "all": [], "id": 6},
        {"label": None, "all": ["positive"], "id": 7},
        {"label": None, "all": None, "id": 8},
    ]
    for origin in (dataset, tmp_path / "a.parquet"):
        assert [row for _, row in read_rows(origin)] == expected
        assert class_names(origin, "label") == class_names(origin, "all") == ("negative", "positive")
        assert class_names(origin, "id") is None
    assert class_names(save_as("csv", tmp_path), "label") is None
    assert class_names(save_as("parquet", tmp_path), "label") is None


@pytest.mark.parametrize("ids", [[0, 7], [[0], [1, 2]]])
def test_an_id_without_a_name_is_an_error_with_its_row(tmp_path, ids):
    path = tmp_path / "rows.parquet"
    feature = datasets.List(SENTIMENT) if isinstance(ids[0], list) else SENTIMENT
    features = datasets.Features({"label": feature})
    parquet.write_table(pa.table({"label": ids}, schema=features.arrow_schema), path)
    with pytest.raises(ValueError, match=r"rows\.parquet:2: 'label' has no name for (7|\[1, 2\])$"):
        list(read_rows(path))


@pytest.mark.parametrize(
    "stored", [b"{", b'{"info": {"features": {"text": {"_type": "Strange"}}}}', b'{"info": {"features": 1}}']
)
def test_invalid_features_of_a_parquet_file_are_an_error_with_its_name(tmp_path, stored):
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.table({"text": ["a"]}).replace_schema_metadata({b"huggingface": stored}), path)
    with pytest.raises(ValueError, match=r"rows\.parquet: the features that `datasets` stored in it are not valid"):
        list(read_rows(path))


def test_a_split_of_a_dataset_is_named():
    dataset = datasets.Dataset.from_dict({"text": ["a"]}, split=datasets.Split.TEST)
    dataset.info.dataset_name = "reviews"
    assert name_of(dataset) == "reviews[test]"
    assert next(read_rows(dataset))[0] == "reviews[test]:1"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", "text\n", "a.csv: no rows"),
        ("a.jsonl", "", "a.jsonl: no rows"),
        ("a.json", "[]", "a.json: no rows"),
        ("a.json", "\n \n []", "a.json: no rows"),
        ("a.json", '\n\n[\n{"text": 1},\n{"text"}\n]', "a.json:5: not JSON"),
        ("a.jsonl", '{"text": ' + "9" * 5000 + "}", "a.jsonl:1: not a JSON object a line"),
        ("a.json", '[\n{"text": 1},\n{"text"}\n]', "a.json:3: not JSON"),
        ("a.json", '["a"]', "a.json:1: not a JSON object but a str"),
        (
            "a.txt",
            "text\n",
            "a.txt: rows are read from .csv, .json, .jsonl, .ndjson, .parquet, .tsv files, not from .txt",
        ),
        ("a", "text\n", "a: rows are read from .csv"),
    ],
)
def test_a_file_without_rows_is_an_error(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=message):
        column_names(tmp_path / name)


SEPARATORS = st.sampled_from([",", ";", "\t", "|", '"', "'", "\n", "\r\n", "\n\n", "[", "]", "{", "}", ":", "\\"])
WORDS = st.sampled_from(["text", "label", "nan", "1.0", "0", "", "a", "ä", "true", "null", "\x00", "\ufeff", '"text"'])
CONTENTS = st.lists(SEPARATORS | WORDS | st.text(max_size=3), max_size=40).map("".join)
ROW = st.fixed_dictionaries(
    {"text": st.text(max_size=5)},
    optional={"label": st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)},
)
ROWS_OF_JSON = st.lists(ROW, max_size=6).map(lambda rows: "\n".join(map(json.dumps, rows)))
BYTES = (CONTENTS | ROWS_OF_JSON).map(lambda text: text.encode(errors="replace")) | st.binary(max_size=60)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(BYTES, st.sampled_from(["csv", "tsv", "jsonl", "json", "csv.gz"]), st.booleans(), st.sampled_from(PROBLEM_TYPES))
def test_any_bytes_are_rows_that_are_used_or_counted_or_one_line_of_an_error(
    tmp_path, content, kind, header, problem_type
):
    path = tmp_path / f"any.{kind}"
    path.write_bytes(gzip.compress(content) if kind == "csv.gz" else content)
    report = ReadReport(str(path))
    try:
        examples, _ = read_texts(str(path), header=header, problem_type=problem_type, report=report)
        assert report.rows == report.used == len(examples)
        kept = clean_labels(examples, None, report)
    except (ValueError, OSError) as error:
        message = str(error)
        assert len(message.splitlines()) == 1
    else:
        assert (report.rows, report.used) == (len(examples), len(kept))
