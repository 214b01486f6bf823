"""Sentences of tagged words are read from CoNLL files and from tables of lists."""

import json
from collections import Counter
from pathlib import Path

import datasets
import pytest
from shared_data import shared_file

from bert_jax.data.readers.examples import TaggedExample
from bert_jax.data.readers.report import ReadReport
from bert_jax.data.readers.tagged import read_tagged, require_named_tags, without_ignored

CONLL = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O

-DOCSTART- -X- O O

Peter NNP B-NP B-PER
"""


def read(source: str, **options) -> list[TaggedExample]:
    return read_tagged(source, **options)[0]


def columns_of(source: str, **options) -> tuple[str, str | None]:
    return read_tagged(source, **options)[1][:2]


def test_blank_lines_and_the_end_of_the_file_end_a_sentence(write):
    path = write("a.conll", "\n\na b\tB-x\n#\tO\n\t\n \t \n\ufeffc\tO\n\nd\tI-x\r\n")
    assert read(path) == [
        TaggedExample(("a b", "#"), ("B-x", "O"), f"{path}:3"),
        TaggedExample(("\ufeffc",), ("O",), f"{path}:7"),
        TaggedExample(("d",), ("I-x",), f"{path}:9"),
    ]


def test_columns_are_found_by_common_names(write):
    assert columns_of(write("a.conll", CONLL)) == ("1", "4")
    assert columns_of(write("a.conll", CONLL), tag_column="2") == ("1", "2")
    assert columns_of(write("words.txt", "a\nb\n")) == ("1", None)
    rows = write("a.jsonl", '{"words": ["a"], "ner": ["O"]}\n')
    assert columns_of(rows) == ("words", "ner")
    with pytest.raises(ValueError, match="no column 'tags' among words, ner"):
        columns_of(rows, tag_column="tags")


def test_the_first_column_holds_words_and_the_last_tags_unless_named(write):
    path = write("a.conll", CONLL)
    assert read(path) == [
        TaggedExample(("EU", "rejects"), ("B-ORG", "O"), f"{path}:3"),
        TaggedExample(("Peter",), ("B-PER",), f"{path}:8"),
    ]
    examples = read(path, word_column="2", tag_column="3")
    assert [(example.words, example.tags) for example in examples] == [
        (("NNP", "VBZ"), ("B-NP", "B-VP")),
        (("NNP",), ("B-NP",)),
    ]
    for column in ("5", "0", "-1", "ner"):
        with pytest.raises(ValueError, match=rf"a\.conll: no column '{column}' among 1 to 4"):
            read(path, tag_column=column)


def test_words_may_have_no_tags(write):
    assert [(e.words, e.tags) for e in read(write("a.txt", "a\nb\n\nc"))] == [(("a", "b"), None), (("c",), None)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\tO\nb\n", r"a\.conll:2: 'b' is not a word and its tag"),
        ("a\tO\nb \t\n", r"a\.conll:2: 'b' is not a word and its tag"),
        ("a\tO\nNew York\n", r"a\.conll:2: 'New York' is not a word and its tag"),
        ("a\tO\n\tO\n", r"a\.conll:2: '\\tO' is not a word and its tag"),
        ("a O\nb c O\n", r"a\.conll:2: 3 columns, the lines before have 2"),
        ("a\n\nb O\n", r"a\.conll:3: 2 columns, the lines before have 1"),
        ("sentence\tlabel\na film\t1\n", r"a\.conll:1: 'sentence\\tlabel' is a header; a CoNLL file has one word"),
        ("token ner\na O\n", r"a\.conll:1: 'token ner' is a header; a CoNLL file has one word"),
        ("it is a film of note\t1\nnone of it is bad\t0\n", r"a\.conll: the words have 6 parts on average"),
        ("", r"a\.conll: no rows"),
        ("\n-DOCSTART- O\n\n", r"a\.conll: no rows"),
    ],
)
def test_an_error_in_a_conll_file_names_its_line(write, content, message):
    with pytest.raises(ValueError, match=message):
        read(write("a.conll", content))


def test_lists_of_words_and_tags_are_read_from_tables(write, monkeypatch):
    rows = [{"tokens": ["a", "b"], "ner_tags": ["O", 3]}, {"tokens": ["c"], "ner_tags": None}]
    path = write("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert read(path) == [
        TaggedExample(("a", "b"), ("O", "3"), f"{path}:1"),
        TaggedExample(("c",), None, f"{path}:2"),
    ]
    classes = datasets.List(datasets.ClassLabel(names=["O", "B-x"]))
    features = datasets.Features({"words": datasets.List(datasets.Value("string")), "pos": classes})
    hub = datasets.Dataset.from_dict({"words": [["a", "b"]], "pos": [[1, 0]]}, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, split: hub)
    assert read("some-one/words", tag_column="pos")[0].tags == ("B-x", "O")
    assert read("some-one/words")[0].tags is None


NAMES = ("O", "B-x", "I-x")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", '{"tokens": ["a", "b", "c", "d"], "ner_tags": [1, -100, 0, -100]}'),
        ("a.jsonl", '{"tokens": ["a", "b", "c", "d"], "ner_tags": [1.0, -100.0, "0", "-100"]}'),
        ("a.jsonl", '{"tokens": ["a", "b", "c", "d"], "ner_tags": ["B-x", -100, 0, -100]}'),
        ("a.conll", "a 1\nb -100\nc 0\nd -100\n"),
    ],
)
def test_numbers_of_tags_get_the_given_names(write, name, content):
    path = write(name, content)
    ((example,), _) = read_tagged(path, label_names=NAMES)
    assert example.tags == ("B-x", "-100", "O", "-100")
    assert without_ignored(example) == TaggedExample(("a", "c"), ("B-x", "O"), f"{path}:1")
    with pytest.raises(ValueError, match=r":1: tag [01] has no name among the 0 of `label_names`"):
        read_tagged(path, label_names=())


@pytest.mark.parametrize("tag", [-1, 3])
def test_a_number_without_a_name_is_an_error(write, tag):
    path = write("a.jsonl", json.dumps({"tokens": ["a"], "tags": [tag]}))
    with pytest.raises(ValueError, match=rf"a\.jsonl:1: tag {tag} has no name among the 3 of `label_names`"):
        read_tagged(path, label_names=NAMES)


@pytest.mark.parametrize(
    ("name", "content", "refused"),
    [
        ("a.jsonl", '{"tokens": ["a", "b"], "tags": [0, 1]}\n{"tokens": ["a"], "tags": [-100]}', True),
        ("a.jsonl", '{"tokens": ["a", "b"], "tags": ["0", 7.0]}', True),
        ("a.conll", "a 0\nb 1\n", True),
        ("a.conll", "a 0\nb B-x\n", False),
        ("a.conll", "a -100\nb -100\n", False),
        ("words.txt", "0\n1\n", False),
    ],
)
def test_tags_that_are_all_numbers_need_names(write, name, content, refused):
    examples, _ = read_tagged(write(name, content))
    require_named_tags(examples, ["0", "1", "7"])  # the names of a model
    if refused:
        with pytest.raises(
            ValueError, match=r":1: the tags are numbers, such as 0; give their names with `label_names`"
        ):
            require_named_tags(examples, ["O", "B-x"])
    else:
        require_named_tags(examples)


def test_the_features_of_a_dataset_name_its_tags_in_order(write, monkeypatch):
    features = datasets.Features({
        "tokens": datasets.List(datasets.Value("string")),
        "ner_tags": datasets.List(datasets.ClassLabel(names=["O", "B-x", "I-x"])),
    })  # fmt: skip
    rows = {"tokens": [["a", "b", "c", "d"], ["e"]], "ner_tags": [[1, -1, 2, None], None]}
    hub = datasets.Dataset.from_dict(rows, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, split: hub)
    hub.to_parquet(path := write("a.parquet", b""))
    for source in ("some-one/words", path):
        report = ReadReport(source)
        examples, columns = read_tagged(source, report=report)
        assert columns.classes == NAMES
        assert [example.tags for example in examples] == [("B-x", "-100", "I-x", "-100"), None]
        assert (report.unit, report.rows, report.used) == ("sentences", 2, 2)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, r"a\.jsonl:1: 2 words and 1 tag"),
        ({"tokens": "a b", "tags": ["O"]}, r"a\.jsonl:1: 'tokens' is not a list but 'a b'"),
        ({"tokens": ["a", None], "tags": ["O", "O"]}, r"a\.jsonl:1: 'tokens' holds None, which is not a word"),
        ({"tokens": ["a"], "tags": [None]}, r"a\.jsonl:1: 'tags' is not a class: None"),
        ({"tokens": ["a"], "tags": [" "]}, r"a\.jsonl:1: 'tags' has an empty tag"),
        ({"text": ["a"], "tags": ["O"]}, r"a\.jsonl: which column holds the words\? There are text, tags"),
    ],
)
def test_an_error_in_a_table_names_its_line(write, row, message):
    with pytest.raises(ValueError, match=message):
        read(write("a.jsonl", json.dumps(row)))


def test_a_csv_file_is_an_error(write):
    with pytest.raises(ValueError, match=r"a\.csv: tagged words are read from CoNLL, JSON and parquet files"):
        read(write("a.csv", "tokens,tags\na,O\n"))


@pytest.mark.parametrize(("name", "count", "words"), [("train", 3394, 62_730), ("dev", 1009, 15_733)])
def test_real_sentences_are_read_whole(name, count, words):
    examples = read(shared_file(f"wnut17/{name}.conll"))
    tags = Counter(tag for example in examples for tag in example.tags or ())
    assert len(examples) == count
    assert sum(tags.values()) == words
    assert len(tags) == 13


@pytest.mark.parametrize("header", [True, False])
def test_a_table_of_texts_to_classify_is_not_conll(tmp_path, header):
    lines = Path(shared_file("sst2/dev.tsv")).read_text(encoding="utf-8").splitlines(keepends=True)
    path = tmp_path / "dev.tsv"
    path.write_text("".join(lines if header else lines[1:]), encoding="utf-8")
    message = (
        r"dev\.tsv:1: 'sentence\\tlabel' is a header" if header else r"dev\.tsv: the words have 20 parts on average"
    )
    with pytest.raises(ValueError, match=message):
        read(str(path))
