"""Pipelines read texts with any tokenizer: its special tokens, its layout, its words."""

import dataclasses
from functools import cache

import numpy as np
import pytest
import small_pipelines as small
import tokenizer_kinds as kinds

from bert_jax.pipelines import Embedder, FillMask, QuestionAnswerer, TextClassifier, TokenClassifier
from bert_jax.pipelines.documents import read_documents
from bert_jax.text.tokenizer import Tokenizer

TOLERANCE = 1e-5
TEXT = "Anna Smith, of New York, believes an owl!"
QUESTION = "who believes?"
KIND = pytest.mark.parametrize("kind", ["bpe", "unigram"])


@cache
def tokenizer(kind):
    return Tokenizer(kinds.backend(kind))


def bert(head, kind, vocabulary=None, **changes):
    vocabulary = vocabulary or tokenizer(kind)
    model = small.bert(head, vocab_size=tokenizer(kind).vocab_size, max_position_embeddings=61, **changes)
    return dataclasses.replace(model, vocabulary=vocabulary)


@KIND
def test_rows_have_the_layout_of_the_tokenizer(kind):
    ours = tokenizer(kind)
    pairs = [(None, TEXT), (QUESTION, TEXT), ("", "")]
    options = {"max_length": 61, "overlap": 8, "offsets": True, "whole_first": None}
    for (first, text), document in zip(pairs, read_documents(pairs, ours, **options), strict=True):
        inputs = ours([text]) if first is None else ours([first], [text])
        (window,) = document.windows
        row = document.encoded(window)
        assert row.ids.tolist() == inputs["input_ids"][0].tolist()
        assert row.second == len(row.ids)  # no segment B
        assert len(row.ids) == len(document.ids) + (2 if first is None else 4) + len(
            ours.encode_batch([first or ""], add_special_tokens=False)[0]
        )


@KIND
def test_windows_of_a_pair_fill_the_rows(kind):
    options = {"max_length": 23, "overlap": 4, "offsets": False, "whole_first": None}
    (document,) = read_documents([(QUESTION, TEXT * 7)], tokenizer(kind), **options)
    rows = [document.encoded(window) for window in document.windows]
    assert len(rows) > 3
    assert max(len(row.ids) for row in rows) == 23
    assert {tuple(row.ids[-1:]) for row in rows} == {(tokenizer(kind).sep_id,)}


@KIND
def test_a_model_with_one_token_type_reads_pairs_without_segments(kind):
    pair = {"text": QUESTION, "text_pair": TEXT}
    model = bert("BertForSequenceClassification", kind, type_vocab_size=1, num_labels=3)
    answer = TextClassifier(model)(pair)
    logits = np.asarray(model(tokenizer(kind)([QUESTION], [TEXT])["input_ids"]).logits[0], np.float64)
    want = np.exp(logits - np.logaddexp.reduce(logits)).max()
    assert answer["score"] == pytest.approx(want, abs=TOLERANCE)


@KIND
def test_masks_are_filled_with_the_tokenizers_own_mask(kind):
    ours = tokenizer(kind)
    model = bert("BertForMaskedLM", kind)
    text = "Anna Smith <mask> an owl!"
    found = FillMask(model)(text, top=3)
    inputs = ours([text])
    (at,) = np.flatnonzero(inputs["input_ids"][0] == ours.mask_id)
    logits = np.asarray(model(inputs["input_ids"]).prediction_logits[0, at], np.float64)
    best = np.argsort(-logits)[:3]
    assert [one["token"] for one in found] == best.tolist()
    np.testing.assert_allclose([one["score"] for one in found], np.exp(logits - np.logaddexp.reduce(logits))[best],
                               rtol=1e-4)  # fmt: skip
    mark = {"bpe": "Ġ", "unigram": "▁"}[kind]
    word = next(token[1:] for token in ours.tokens if token[0] == mark and token[1:].isalpha() and len(token) > 2)
    (filled,) = FillMask(model)(text, targets=word)
    assert ours.tokens[filled["token"]] == mark + word
    assert filled["sequence"] == f"Anna Smith {word} an owl!"
    with pytest.raises(ValueError, match="the text has no <mask>: 'an"):
        FillMask(model)("an [MASK] owl")


def test_a_tokenizer_without_a_mask_does_everything_else():
    vocabulary = Tokenizer(kinds.without_mask("unigram"))
    for head, pipeline in (
        ("BertForSequenceClassification", TextClassifier),
        ("BertForTokenClassification", TokenClassifier),
        ("BertForMaskedLM", Embedder),
    ):
        pipeline(bert(head, "unigram", vocabulary))(TEXT)
    with pytest.raises(ValueError, match="the tokenizer has no mask token"):
        FillMask(bert("BertForMaskedLM", "unigram", vocabulary))


@KIND
def test_words_are_tagged_as_they_are_in_the_text(kind):
    tagger = TokenClassifier(bert("BertForTokenClassification", kind, num_labels=5, label_names=small.LABELS))
    documents = []
    list(tagger.keyed_sequences([(None, TEXT)], documents, []))
    (document,) = documents
    words = [(document.offsets[a, 0], document.offsets[b - 1, 1]) for a, b in tagger.words(document)]
    assert [TEXT[a:b] for a, b in words] == [
        "Anna", "Smith", ",", "of", "New", "York", ",", "believes", "an", "owl", "!"
    ]  # fmt: skip
    found = tagger(TEXT)
    assert found
    for one in found:
        assert one["word"] == TEXT[one["start"] : one["end"]]
        assert one["start"] in {start for start, _ in words}
        assert one["end"] in {end for _, end in words}


@KIND
def test_answers_have_the_characters_of_the_context_without_spaces_around(kind):
    answerer = QuestionAnswerer(bert("BertForQuestionAnswering", kind), max_length=31, overlap=8)
    context = f"  {TEXT}\n {TEXT}"
    for one in answerer(question=QUESTION, context=context, top=20):
        assert one["answer"] == context[one["start"] : one["end"]] == one["answer"].strip()
