"""Sentences of tagged words are read from CoNLL files and from tables of lists."""

import json
from collections import Counter

import datasets
import pytest
from shared_data import shared_file

from bert_jax.data.readers.examples import TaggedExample
from bert_jax.data.readers.tagged import find_tag_columns, read_tagged

CONLL = """-DOCSTART- -X- -X- O

EU NNP B-NP B-ORG
rejects VBZ B-VP O

-DOCSTART- -X- O O

Peter NNP B-NP B-PER
"""


def test_a_lone_tab_an_empty_line_and_the_end_close_a_sentence(write):
    path = write("a.conll", "\n\na b\tB-x\n#\tO\n\t\n \t \n\ufeffc\tO\n\nd\tI-x\r\n")
    assert read_tagged(path) == [
        TaggedExample(("a b", "#"), ("B-x", "O"), f"{path}:3"),
        TaggedExample(("\ufeffc",), ("O",), f"{path}:7"),
        TaggedExample(("d",), ("I-x",), f"{path}:9"),
    ]


def test_columns_are_told(write):
    assert find_tag_columns(write("a.conll", CONLL)) == ("1", "4")
    assert find_tag_columns(write("a.conll", CONLL), tag_column="2") == ("1", "2")
    assert find_tag_columns(write("words.txt", "a\nb\n")) == ("1", None)
    rows = write("a.jsonl", '{"words": ["a"], "ner": ["O"]}\n')
    assert find_tag_columns(rows) == ("words", "ner")
    with pytest.raises(ValueError, match="no column 'tags' among words, ner"):
        find_tag_columns(rows, tag_column="tags")


def test_the_first_column_holds_words_and_the_last_tags_unless_named(write):
    path = write("a.conll", CONLL)
    assert read_tagged(path) == [
        TaggedExample(("EU", "rejects"), ("B-ORG", "O"), f"{path}:3"),
        TaggedExample(("Peter",), ("B-PER",), f"{path}:8"),
    ]
    read = read_tagged(path, word_column="2", tag_column="3")
    assert [(example.words, example.tags) for example in read] == [
        (("NNP", "VBZ"), ("B-NP", "B-VP")),
        (("NNP",), ("B-NP",)),
    ]
    for column in ("5", "0", "-1", "ner"):
        with pytest.raises(ValueError, match=rf"a\.conll: no column '{column}' among 1 to 4"):
            read_tagged(path, tag_column=column)


def test_words_alone_have_no_tags(write):
    assert [(e.words, e.tags) for e in read_tagged(write("a.txt", "a\nb\n\nc"))] == [(("a", "b"), None), (("c",), None)]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a\tO\nb\n", r"a\.conll:2: 'b' is not a word and its tag"),
        ("a\tO\nb \t\n", r"a\.conll:2: 'b' is not a word and its tag"),
        ("a\tO\nNew York\n", r"a\.conll:2: 'New York' is not a word and its tag"),
        ("a\tO\n\tO\n", r"a\.conll:2: '\\tO' is not a word and its tag"),
        ("a O\nb c O\n", r"a\.conll:2: 3 columns, the lines before have 2"),
        ("a\n\nb O\n", r"a\.conll:3: 2 columns, the lines before have 1"),
        ("", r"a\.conll: no rows"),
        ("\n-DOCSTART- O\n\n", r"a\.conll: no rows"),
    ],
)
def test_a_mistake_in_a_conll_file_is_told_with_its_line(write, content, message):
    with pytest.raises(ValueError, match=message):
        read_tagged(write("a.conll", content))


def test_lists_of_words_and_tags_are_read_from_tables(write, monkeypatch):
    rows = [{"tokens": ["a", "b"], "ner_tags": ["O", 3]}, {"tokens": ["c"], "ner_tags": None}]
    path = write("a.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    assert read_tagged(path) == [
        TaggedExample(("a", "b"), ("O", "3"), f"{path}:1"),
        TaggedExample(("c",), None, f"{path}:2"),
    ]
    classes = datasets.List(datasets.ClassLabel(names=["O", "B-x"]))
    features = datasets.Features({"words": datasets.List(datasets.Value("string")), "pos": classes})
    hub = datasets.Dataset.from_dict({"words": [["a", "b"]], "pos": [[1, 0]]}, features=features)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, split: hub)
    assert read_tagged("some-one/words", tag_column="pos")[0].tags == ("B-x", "O")
    assert read_tagged("some-one/words")[0].tags is None


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, r"a\.jsonl:1: 2 words and 1 tags"),
        ({"tokens": "a b", "tags": ["O"]}, r"a\.jsonl:1: 'tokens' is not a list but a str"),
        ({"tokens": ["a", None], "tags": ["O", "O"]}, r"a\.jsonl:1: 'tokens' holds None, which is not a word"),
        ({"tokens": ["a"], "tags": [None]}, r"a\.jsonl:1: 'tags' is no class but None"),
        ({"text": ["a"], "tags": ["O"]}, r"a\.jsonl: which column holds the words\? There are text, tags"),
    ],
)
def test_a_mistake_in_a_table_is_told_with_its_line(write, row, message):
    with pytest.raises(ValueError, match=message):
        read_tagged(write("a.jsonl", json.dumps(row)))


def test_a_csv_has_no_lists_of_words(write):
    with pytest.raises(ValueError, match=r"a\.csv: tagged words are read from CoNLL, JSON and parquet files"):
        read_tagged(write("a.csv", "tokens,tags\na,O\n"))


@pytest.mark.parametrize(("name", "count", "words"), [("train", 3394, 62_730), ("dev", 1009, 15_733)])
def test_real_sentences_are_read_whole(name, count, words):
    examples = read_tagged(shared_file(f"wnut17/{name}.conll"))
    tags = Counter(tag for example in examples for tag in example.tags or ())
    assert len(examples) == count
    assert sum(tags.values()) == words
    assert len(tags) == 13
