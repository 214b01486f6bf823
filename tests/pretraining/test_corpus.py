"""The text of a run: its vocabulary follows the language and is kept, and what it holds is reported before training."""

import gzip
import json
from pathlib import Path

import pytest
from small_runs import tokenized_corpus, write_corpus

from bert_jax.data.readers.sources import Texts
from bert_jax.pretraining import corpus as module
from bert_jax.pretraining.checks import check
from bert_jax.pretraining.corpus import Corpus
from bert_jax.pretraining.plan import plan
from bert_jax.pretraining.presets import make_settings
from bert_jax.pretraining.settings import CONTENTS, CORPUS_HASH, MAY_CHANGE_ON_RESUME, Settings
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training.runs.folder import check_run
from bert_jax.training.settings import as_record, defaults_of

# (language, text, words that must stay as they are, whether the text is lower-cased)
LANGUAGES = [
    ("hi", "किताब कुतुब फूल मूल की कि", ["किताब", "कुतुब", "फूल", "कि"], False),
    ("ja", "が か ば は ぱ", ["が", "ば", "ぱ"], False),
    ("th", "ที่ นี่ กี่ กัน กิน", ["ที่", "กัน", "กิน"], False),
    ("ru", "мой мои ёж еж", ["мой", "ёж"], True),
    ("de", "schon schön fur für Essen essen", ["schön", "für", "Essen"], False),
    ("bn", "বই কি কী কুকুর", ["কি", "কী"], False),
    ("ta", "படம் பட நாள் நல்", ["படம்", "நாள்"], False),
    ("tr", "ılık ilik Işık İlik", ["ılık", "ilik", "Işık", "İlik"], False),  # noqa: RUF001
    ("ar", "كتب كُتِبَ كَتَبَ", ["كُتِبَ", "كَتَبَ"], False),
    ("vi", "ma má mà mả", ["má", "mà", "mả"], True),
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


@pytest.mark.parametrize(("language", "text", "words", "lowercase"), LANGUAGES)
def test_marks_and_capitals_that_belong_to_words_are_kept(read, language, text, words, lowercase):
    corpus = read("\n\n".join(f"{text} {number}.\n{text}" for number in range(11)), language=language)
    for word in words:
        assert corpus.tokenizer.decode(corpus.tokenizer.encode_flat([word])[0]) == word
    case = "lower-cased" if lowercase else "in its own case"
    assert corpus.lines()[0].endswith(f"language {language}; text is {case}, accents and other marks are kept")
    assert corpus.report()["vocabulary"]["strip_accents"] is False
    assert corpus.report()["vocabulary"]["lowercase"] is lowercase


@pytest.mark.parametrize(
    ("changes", "word", "expected", "described"),
    [
        ({}, "Café", "cafe", "lower-cased, accents and other marks are stripped"),
        ({"language": "en-US"}, "Café", "cafe", "lower-cased, accents and other marks are stripped"),
        ({"lowercase": False}, "Café", "Café", "in its own case, accents and other marks are kept"),
        ({"strip_accents": False}, "Café", "café", "lower-cased, accents and other marks are kept"),
        ({"language": "fr"}, "Café", "café", "lower-cased, accents and other marks are kept"),
        ({"language": "de-AT"}, "Café", "Café", "in its own case, accents and other marks are kept"),
        ({"language": "de", "lowercase": True}, "Café", "café", "lower-cased, accents and other marks are kept"),
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
    assert set(report) == {"sources", "train", "held_out", "vocabulary"}
    assert [source["used"] for source in report["sources"]] == [60]
    assert report["train"]["documents"] + report["held_out"]["documents"] == 60
    assert report["vocabulary"] == {"size": corpus.tokenizer.vocab_size, "lowercase": True, "strip_accents": True}
    assert corpus.lines()[1].startswith(f"corpus: {report['train']['documents']} documents, ")


def test_what_was_skipped_and_dropped_is_printed_and_reported(read, tmp_path):
    texts = [f"The film {number % 17} was good. I loved it." for number in range(23)] + ["", " "]
    path = tmp_path / "films.jsonl"
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    for _ in ("read", "from the cache"):
        corpus = read(path, drop_duplicates=True)
        assert corpus.lines()[1:3] == [
            f"corpus: skipped 6 of 25 documents: duplicates of earlier documents (first: {path}:18)",
            f"corpus: skipped 2 of 25 documents: documents without text (first: {path}:24)",
        ]
        assert corpus.report()["sources"][0]["used"] == corpus.train.num_documents + corpus.held_out.num_documents == 17
    assert [line for line in read(path).lines() if "skipped" in line] == [
        f"corpus: skipped 2 of 25 documents: documents without text (first: {path}:24)"
    ]


def test_a_run_is_resumed_with_the_same_choice_about_duplicates(tmp_path):
    before = make_settings("tiny", corpus=("a.txt",))
    record = as_record(before)
    del record["text"]["drop_duplicates"]  # of a run that began before there was a choice
    (tmp_path / "checkpoints" / "7").mkdir(parents=True)
    (tmp_path / "training.json").write_text(json.dumps({"settings": record | {"text read": {CORPUS_HASH: "x"}}}))

    def check_again(**changes):
        options = {"begin": False, "overwrite": False, "may_change": MAY_CHANGE_ON_RESUME, "contents": CONTENTS}
        now = as_record(before.replace(**changes))
        check_run(tmp_path, now, resume=True, defaults=defaults_of(Settings), **options)

    check_again()
    with pytest.raises(ValueError, match="it began with drop_duplicates False, now drop_duplicates is True"):
        check_again(drop_duplicates=True)


@pytest.mark.parametrize("lowercase", [True, False])
def test_a_run_that_recorded_whether_text_is_lower_cased_is_resumed_with_it(tmp_path, lowercase):
    record = as_record(make_settings("tiny", corpus=("a.txt",), language="de", lowercase=lowercase))
    (tmp_path / "training.json").write_text(json.dumps({"settings": record}))
    assert make_settings("tiny", output=tmp_path, resume=True).text.lowercase is lowercase


def test_urls_are_checked_before_a_plan_is_made(tmp_path):
    settings = make_settings("tiny", corpus=("memory://absent/*.txt",), plan=True)
    with pytest.raises(FileNotFoundError, match=r"^no file matches memory://absent/\*\.txt$"):
        next(plan(settings))


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
        "training a wordpiece vocabulary of 37 tokens\n",
        "tokenizing 7 documents\n",
        "",  # the held-out documents
    ]
    assert read.train.num_documents + read.held_out.num_documents == 7
