"""The text of a run: its vocabulary follows the language and is kept, and what it holds is reported before training."""

import gzip
from pathlib import Path

import pytest
from small_runs import tokenized_corpus, write_corpus

from bert_jax.data.readers.sources import Texts
from bert_jax.pretraining import corpus as module
from bert_jax.pretraining.checks import check
from bert_jax.pretraining.corpus import Corpus
from bert_jax.pretraining.presets import make_settings
from bert_jax.text.tokenizer import Tokenizer

# (language, text, words that must stay as they are)
LANGUAGES = [
    ("hi", "किताब कुतुब फूल मूल की कि", ["किताब", "कुतुब", "फूल", "कि"]),
    ("ja", "が か ば は ぱ", ["が", "ば", "ぱ"]),
    ("th", "ที่ นี่ กี่ กัน กิน", ["ที่", "กัน", "กิน"]),
    ("ru", "мой мои ёж еж", ["мой", "ёж"]),
    ("de", "schon schön fur für", ["schön", "für"]),
    ("vi", "ma má mà mả", ["má", "mà", "mả"]),
]


@pytest.fixture
def read(tmp_path):
    def read_text(text: str | Path, **changes) -> Corpus:
        path = text
        if isinstance(text, str):
            path = tmp_path / "text.txt"
            path.write_text(text, encoding="utf-8")
        options = {"vocab_size": 300, "max_length": 24, "cache_dir": str(tmp_path / "cache"), "held_out": 0.2}
        return tokenized_corpus(make_settings("tiny", corpus=(str(path),), **options | changes))

    return read_text


@pytest.mark.parametrize(("language", "text", "words"), LANGUAGES)
def test_marks_that_belong_to_words_are_kept(read, language, text, words):
    corpus = read("\n\n".join(f"{text} {number}.\n{text}" for number in range(11)), language=language)
    for word in words:
        assert corpus.tokenizer.decode(corpus.tokenizer.encode_flat([word])[0]) == word
    assert corpus.lines()[0].endswith(f"language {language}; text is lower-cased, accents and other marks are kept")
    assert corpus.report()["vocabulary"]["strip_accents"] is False


@pytest.mark.parametrize(
    ("changes", "word", "expected", "described"),
    [
        ({}, "Café", "cafe", "lower-cased, accents and other marks are stripped"),
        ({"language": "en-US"}, "Café", "cafe", "lower-cased, accents and other marks are stripped"),
        ({"lowercase": False}, "Café", "Café", "in its own case, accents and other marks are kept"),
        ({"strip_accents": False}, "Café", "café", "lower-cased, accents and other marks are kept"),
        ({"language": "fr"}, "Café", "café", "lower-cased, accents and other marks are kept"),
        ({"language": "fr", "strip_accents": True}, "Café", "cafe", "lower-cased, accents and other marks are stripp"),
    ],
)
def test_english_is_cleaned_as_by_bert_and_settings_win(read, changes, word, expected, described):
    corpus = read("\n\n".join(f"A Café {number}.\nThe café." for number in range(11)), **changes)
    assert corpus.tokenizer.decode(corpus.tokenizer.encode_flat([word])[0]) == expected
    assert described in corpus.lines()[0]


def test_a_trained_vocabulary_is_kept_in_the_cache(read, tmp_path, monkeypatch):
    text = write_corpus(tmp_path / "films.txt")
    first = read(text)
    with monkeypatch.context() as patch:
        patch.setattr(Tokenizer, "train", lambda *_, **__: pytest.fail("trained again"))
        assert read(text).tokenizer.fingerprint == first.tokenizer.fingerprint
    for changes in ({"vocab_size": 101}, {"lowercase": False}, {"min_frequency": 7}, {"seed": 3}):
        trained = []
        with monkeypatch.context() as patch:
            train = Tokenizer.train
            patch.setattr(Tokenizer, "train", lambda *a, t=train, s=trained, **o: s.append(1) or t(*a, **o))
            read(text, **changes)
        assert trained == [1], changes
    assert len(list((tmp_path / "cache").glob("vocabulary-*"))) == 5


def test_a_damaged_vocabulary_in_the_cache_is_named(read, tmp_path):
    text = write_corpus(tmp_path / "films.txt")
    read(text)
    (kept,) = (tmp_path / "cache").glob("vocabulary-*")
    (kept / "tokenizer.json").write_text("")
    with pytest.raises(ValueError, match=r"vocabulary-\w+: not a cached vocabulary .*; delete it"):
        read(text)


def test_a_compressed_corpus_is_read_as_what_it_holds(read, tmp_path):
    text = write_corpus(tmp_path / "films.txt")
    packed = tmp_path / "films.txt.gz"
    packed.write_bytes(gzip.compress(text.read_bytes()))
    for encoding in ("utf-8", "latin-1"):
        assert read(packed, encoding=encoding).train.fingerprint == read(text).train.fingerprint


def test_a_line_may_be_a_document(read, monkeypatch):
    lines = [f"The film {number} was good. I loved it." for number in range(23)]
    found = []
    split = module.split_documents

    def record(documents, *rest, **options):
        found.append(list(Texts(documents)))
        return split(documents, *rest, **options)

    monkeypatch.setattr(module, "split_documents", record)
    read("\n".join([*lines, "", "  "]), document="line")
    assert found == [lines]
    with pytest.raises(ValueError, match="found 1"):
        read("\n".join(lines))


def test_the_report_has_both_sides_and_the_vocabulary(read, tmp_path):
    corpus = read(write_corpus(tmp_path / "films.txt"))
    report = corpus.report()
    assert set(report) == {"train", "held_out", "vocabulary"}
    assert report["train"]["documents"] + report["held_out"]["documents"] == 60
    assert report["vocabulary"] == {"size": corpus.tokenizer.vocab_size, "lowercase": True, "strip_accents": True}
    assert corpus.lines()[1].startswith(f"corpus: {report['train']['documents']} documents, ")


@pytest.mark.parametrize("cache", ["run", "run/cache", "run/../run/a/b"])
def test_a_cache_inside_the_output_is_refused_before_any_work(tmp_path, cache):
    settings = make_settings("tiny", output=str(tmp_path / "run"), cache_dir=str(tmp_path / cache))
    with pytest.raises(ValueError, match=r"`cache_dir"):
        check(settings)


@pytest.mark.parametrize("cache", ["cache", "run-cache", "."])
def test_a_cache_beside_or_above_the_output_is_accepted(tmp_path, cache):
    check(make_settings("tiny", output=str(tmp_path / "run"), cache_dir=str(tmp_path / cache)))


def test_a_line_is_printed_before_each_long_step(tmp_path, monkeypatch, capsys):
    (tmp_path / "a.txt").write_text("\n\n".join(f"the owl hooted .\n{number} times ." for number in range(7)))
    printed = []

    def watch(owner, name):
        function = getattr(owner, name)

        def watched(*arguments, **options):
            printed.append(capsys.readouterr().out)
            return function(*arguments, **options)

        monkeypatch.setattr(owner, name, watched)

    watch(module, "read_corpus")
    watch(module.Tokenizer, "train")
    watch(module, "tokenize_corpus")
    settings = make_settings("tiny", corpus=(str(tmp_path / "a.txt"),), vocab_size=37, cache_dir=str(tmp_path / "c"))
    read = tokenized_corpus(settings)
    assert printed == [
        f"reading {tmp_path / 'a.txt'}\n",
        "training a vocabulary of 37 tokens\n",
        "tokenizing 7 documents\n",
        "",  # the held-out documents
    ]
    assert read.train.num_documents + read.held_out.num_documents == 7
