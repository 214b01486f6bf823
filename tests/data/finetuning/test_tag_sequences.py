"""Each word is labelled once, by its first piece, and gets its own label back."""

import numpy as np
import pytest
import small_pipelines as small
from hypothesis import given, settings
from hypothesis import strategies as st
from shared_data import shared_file

from bert_jax.data.finetuning.tags import encode_tagged
from bert_jax.data.readers.examples import TaggedExample
from bert_jax.data.readers.labels import label_names
from bert_jax.data.readers.tagged import read_tagged

NAMES = ("O", "B-place", "I-place")
# Several pieces, no piece at all, several words by the tokenizer's rules, and one longer than a window.
WORDS = ("owl", "recorded", "\x00", "", "don't", "Oakland", "hooted", "!?" * 14, "x" * 200)
SENTENCES = st.lists(st.lists(st.tuples(st.sampled_from(WORDS), st.sampled_from(NAMES)), max_size=40), max_size=4)


def tagged(*sentences):
    return [
        TaggedExample(tuple(word for word, _ in sentence), tuple(tag for _, tag in sentence), f"train.conll:{number}")
        for number, sentence in enumerate(sentences)
    ]


def encode(examples, **options):
    return encode_tagged(examples, small.tokenizer(), **{"names": NAMES, "max_length": 17, "overlap": 4, **options})


@settings(max_examples=60)
@given(SENTENCES, st.integers(3, 23), st.integers(0, 30))
def test_each_word_gets_its_own_label(sentences, max_length, overlap):
    examples = tagged(*sentences)
    sequences = encode(examples, max_length=max_length, overlap=overlap)
    found = sequences.by_sentence(sequences.labels, missing=-1)
    assert len(found) == len(examples)
    for example, labels in zip(examples, found, strict=True):
        pieces = small.tokenizer().encode_batch([list(example.words)], add_special_tokens=False)[0]
        spoken = set(pieces.word_ids)
        expected = [NAMES.index(tag) if word in spoken else -1 for word, tag in enumerate(example.tags)]
        assert labels.tolist() == expected
    assert (sequences.labels >= 0).sum() + sequences.words_without_token == sum(map(len, sentences))
    assert sequences.words_without_token == sum(word in ("", "\x00") for sentence in sentences for word, _ in sentence)


@settings(max_examples=60)
@given(SENTENCES)
def test_a_short_sentence_is_encoded_like_the_tokenizer_does(sentences):
    tokenizer = small.tokenizer()
    sequences = encode(tagged(*sentences), max_length=2000)
    assert sequences.sentences.tolist() == list(range(len(sentences)))
    for number, sentence in enumerate(sentences):
        (encoding,) = tokenizer.encode_batch([[word for word, _ in sentence]])
        here = slice(*sequences.offsets[number : number + 2])
        assert sequences.ids[here].tolist() == encoding.ids
        assert sequences.second[number] == len(encoding)
        starts = [
            i for i, word in enumerate(encoding.word_ids) if word is not None and word != encoding.word_ids[i - 1]
        ]
        assert np.flatnonzero(sequences.words[here] >= 0).tolist() == starts
        assert [NAMES[label] for label in sequences.labels[here][starts]] == [
            sentence[encoding.word_ids[i]][1] for i in starts
        ]


def test_windows_of_a_long_sentence_share_its_tokens():
    sentence = [("owl", "B-place")] * 30
    sequences = encode(tagged(sentence, sentence[:3]), max_length=12, overlap=4)
    assert sequences.sentences.tolist() == [0, 0, 0, 0, 0, 1]
    assert sequences.lengths.tolist() == [12, 12, 12, 12, 8, 5]
    # Of four shared tokens each window speaks for two.
    assert np.add.reduceat(sequences.labels == 1, sequences.offsets[:-1]).tolist() == [8, 6, 6, 6, 4, 3]
    assert sequences.take([4, 5]).labels.tolist() == sequences.labels[sequences.offsets[4] :].tolist()


def test_a_sentence_without_tags_is_read_and_has_no_labels():
    sequences = encode([TaggedExample(("an", "owl"), None, "")], names=())
    assert (sequences.labels == -100).all()
    predicted = np.arange(len(sequences.ids))
    assert [labels.tolist() for labels in sequences.by_sentence(predicted, missing=0)] == [[1, 2]]


def test_invalid_examples_are_errors():
    with pytest.raises(ValueError, match=r"train.conll:1: tag 'B-owl' is not one of O, B-place, I-place"):
        encode(tagged([("owl", "O")], [("owl", "B-owl")]))
    with pytest.raises(ValueError, match=r"`max_length` must be at least 3 and `overlap` at least 0, got 2 and 4"):
        encode([], max_length=2)


def test_every_word_of_wnut_gets_its_tag():
    examples, _ = read_tagged(shared_file("wnut17/dev.conll"))
    names = label_names(examples)
    sequences = encode(examples, names=names, max_length=40, overlap=10)
    assert len(sequences) > len(examples)
    found = sequences.by_sentence(sequences.labels, missing=names.index("O"))
    tags = [tuple(names[label] for label in labels) for labels in found]
    unlike = [
        word
        for example, tag in zip(examples, tags, strict=True)
        for word, ours, theirs in zip(example.words, tag, example.tags, strict=True)
        if ours != theirs
    ]
    assert unlike == []
    assert (sequences.labels >= 0).sum() == sum(
        len(example.words) for example in examples
    ) - sequences.words_without_token
