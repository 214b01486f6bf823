"""The report of a corpus counts what a reader would count, and warns where little can be learned."""

import dataclasses
import json

import datasets
import pytest

from bert_jax.data.pretraining.corpus_report import CorpusReport, describe_corpus
from bert_jax.data.pretraining.loader import BatchSettings
from bert_jax.data.pretraining.long_sentences import split_long_sentences
from bert_jax.data.pretraining.token_store import TokenStore, tokenize_corpus
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.vocabulary import wordpiece

SETTINGS = BatchSettings(max_length=23, short_probability=0.0)
KNOWN = "one two three four five"
GOOD = ["\n\n".join([KNOWN] * 7)] * 31


@pytest.fixture
def report_of(tmp_path):
    tokenizer = Tokenizer(wordpiece(KNOWN.split(), lowercase=True, strip_accents=None))

    def make(texts: list[str], num_proc: int = 1, objective: str = "mlm-nsp") -> CorpusReport:
        documents = datasets.Dataset.from_dict({"text": texts})
        store = tokenize_corpus(documents, tokenizer, cache_dir=tmp_path, num_proc=num_proc)
        if objective == "mlm-nsp":
            store = split_long_sentences(store, max_length=23, cache_dir=tmp_path)
        return CorpusReport.of(store, dataclasses.replace(SETTINGS, objective=objective))

    return make


def warnings(train: CorpusReport, held_out: CorpusReport) -> list[str]:
    return [line for line in describe_corpus(train, held_out) if line.startswith("warning: ")]


def test_an_ordinary_corpus_gives_lines_without_a_warning(report_of):
    report = report_of(GOOD)
    assert (report.documents, report.sentences, report.tokens) == (31, 217, 1085)
    assert (report.unknown_tokens, report.one_sentence_documents, report.split_sentences) == (0, 0, 0)
    assert 0.3 < report.random_pairs < 0.7
    assert 0.7 < report.shown_tokens <= 1
    lines = describe_corpus(report, report)
    assert lines[0] == "corpus: 31 documents, 217 sentences, 1,085 tokens; held out: 31 documents"
    assert "0.00% of the tokens are [UNK] (held out: 0.00%)" in lines[1]
    assert warnings(report, report) == []


@pytest.mark.parametrize("num_proc", [1, 2])
def test_unknown_tokens_are_counted_while_tokenizing(report_of, num_proc):
    report = report_of(["one two six\n\nseven one", "eight. Two"], num_proc)
    assert (report.unknown_tokens, report.tokens) == (4, 8)  # six, seven, eight and the full stop


@pytest.mark.parametrize(
    "text",
    ["one два три четыре пять", "one " + "กา" * 60, "one " + "cafe\u0301 nai\u0308ve"],
    ids=["another language", "no spaces", "decomposed accents"],
)
def test_a_vocabulary_that_does_not_fit_is_a_warning_with_its_fraction(report_of, text):
    good = report_of(GOOD)
    bad = report_of([f"{text}\n\n{KNOWN}"] * 3)
    for train, held_out in ((bad, good), (good, bad)):
        (warning,) = warnings(train, held_out)
        assert f"{bad.unknown:.2%}" in warning
        assert "the vocabulary does not fit the text" in warning


def test_a_little_unknown_is_no_warning(report_of):
    report = report_of([*GOOD, "six"])
    assert report.unknown_tokens == 1
    assert warnings(report, report) == []


def test_text_of_unknown_words_alone_is_an_error(report_of):
    nothing = report_of(["กา" * 60] * 3)
    with pytest.raises(ValueError, match=r"all tokens of the corpus are \[UNK\]: the vocabulary does not fit"):
        describe_corpus(nothing, nothing)


@pytest.mark.parametrize("texts", [[KNOWN] * 7, [KNOWN] * 61 + GOOD[:1]])
def test_documents_of_one_sentence_are_a_warning(report_of, texts):
    report = report_of(texts)
    (warning,) = warnings(report, report)
    share = report.one_sentence_documents / len(texts)
    assert f"because {share:.0%} of the documents have one sentence" in warning
    assert warning.endswith("The objective mlm needs no second sentences")


def test_without_pairs_every_token_is_shown_and_documents_of_one_sentence_are_no_warning(report_of):
    report = report_of([KNOWN] * 7 + [" ".join([KNOWN] * 20)] * 2, objective="mlm")
    assert (report.random_pairs, report.shown_tokens) == (None, 1.0)
    assert (report.one_sentence_documents, report.split_sentences) == (9, 2)
    assert warnings(report, report) == []
    line = describe_corpus(report, report)[2]
    assert line.startswith("corpus: 2 sentences longer than a row were split; the first pass shows every token once,")
    assert json.loads(json.dumps(report.as_dict(), allow_nan=False))["random_pairs"] is None


def test_some_documents_of_one_sentence_are_no_warning(report_of):
    report = report_of([KNOWN, KNOWN, *GOOD])
    assert report.one_sentence_documents == 2
    assert warnings(report, report) == []


def test_split_sentences_are_counted(report_of):
    report = report_of([" ".join([KNOWN] * 20), KNOWN])
    assert report.split_sentences == 1
    assert report.one_sentence_documents == 1
    assert report.shown_tokens > 0.9


def test_the_numbers_are_json(report_of):
    assert report_of(GOOD).as_dict()["tokens"] == 1085


def test_a_store_in_memory_has_a_report():
    from token_stores import store_of

    store: TokenStore = store_of([[[5, 6], [7]], [[8]]])
    assert CorpusReport.of(store, SETTINGS).one_sentence_documents == 1
