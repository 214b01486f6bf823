"""Encoding word by word gives the ids that the tokenizer gives the whole text."""

import csv
import json
import string
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from bert_jax.text import word_cache as module
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.vocabulary import wordpiece
from bert_jax.text.word_cache import WordCache, separable

SST2 = Path(__file__).parents[3] / "shared/data/sst2/dev.tsv"
PIECES = [*string.ascii_letters, *string.digits, *string.punctuation, *(f"##{c}" for c in string.ascii_letters)]
PIECES += ["film", "##s", "é", "##é", "京", "un", "##able", "ß", "##ß", "\u03c3", "##\u03c2", "“", "…", "\u00b4"]
PIECES = list(dict.fromkeys(PIECES))


def backend(**options):
    made = wordpiece(PIECES, **{"lowercase": True, "strip_accents": None, **options})
    made.encode_special_tokens = True
    return made


BACKENDS = [
    backend(),
    backend(lowercase=False),
    backend(lowercase=False, strip_accents=True),
    backend(strip_accents=False, chinese=False),
]


def assert_same(backend, found, texts):
    wanted = [encoding.ids for encoding in backend.encode_batch_fast(texts, add_special_tokens=False)]
    ids, lengths = found
    assert lengths.tolist() == [len(text) for text in wanted]
    assert ids.tolist() == [i for text in wanted for i in text]
    assert (ids.dtype, lengths.dtype) == (np.int32, np.int32)


def piecewise(kind, *, prefix=True, letters=()):
    """A byte-level BPE, or a Unigram with or without a split at all white space, which read special tokens as text."""
    content = json.loads(
        Tokenizer.train(["an able film, un able films “able” Films"] * 3, 290, kind=kind[:7]).backend.to_str()
    )
    made = tokenizers.Tokenizer.from_str(json.dumps(content))
    made.normalizer = tokenizers.normalizers.Sequence([*letters])
    if kind == "bpe":
        made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    elif kind == "unigram-metaspace":
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always" if prefix else "never")
    made.encode_special_tokens = True
    return made


LETTERS = [tokenizers.normalizers.Lowercase(), tokenizers.normalizers.NFC()]
OTHERS = [
    piecewise("bpe"),
    piecewise("bpe", letters=LETTERS),
    piecewise("bpe", prefix=False),
    piecewise("unigram", letters=[tokenizers.normalizers.Nmt(), tokenizers.normalizers.NFKC()]),
    piecewise("unigram-metaspace"),
    piecewise("unigram-metaspace", letters=LETTERS, prefix=False),
]
CHARACTERS = st.sampled_from(
    [
        *"aAbé É.,'[]-_ \t\n京ßςΣ“…\u00b4",
        "\u0301",
        "\u00a0",
        "\x00",
        "\x1c",
        "\u200d",
        "\ufffd",
        "  ",
        " able",
        "▁",
        "Ġ",
    ]
)


@settings(max_examples=150)
@given(st.lists(st.lists(st.one_of(CHARACTERS, st.characters(exclude_categories=["Cs"]))).map("".join), max_size=7))
def test_any_texts_get_the_ids_of_the_backend(texts):
    for one in BACKENDS + OTHERS:
        assert_same(one, WordCache(one).encode(texts), texts)


def test_real_sentences_get_the_ids_of_the_backend():
    if not SST2.exists():
        pytest.skip(f"{SST2} is not there")
    with SST2.open(encoding="utf-8", newline="") as file:
        texts = [row["sentence"] for row in csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)]
    for one in (BACKENDS[0], *OTHERS[2:4]):
        words = WordCache(one)
        for _ in range(2):
            assert_same(one, words.encode(texts), texts)


def test_a_special_token_in_a_text_is_text():
    texts = ["an [MASK] film", "[SEP]", ""]
    for one in BACKENDS + OTHERS:
        assert_same(one, WordCache(one).encode(texts), texts)


def test_cached_words_are_encoded_once(monkeypatch):
    asked = []
    encode = module.WordCache._encode_words
    monkeypatch.setattr(
        module.WordCache, "_encode_words", lambda self, words: asked.extend(words) or encode(self, words)
    )
    words = WordCache(BACKENDS[0])
    for texts in (["a film, unable"], ["films, a film", "film"], ["unable films,"]):
        assert_same(BACKENDS[0], words.encode(texts), texts)
    assert asked == ["a", "film", ",", "unable", "films"]


def test_a_full_cache_drops_the_newer_half(monkeypatch):
    monkeypatch.setattr(module, "MAX_CHARACTERS", 9)
    words = WordCache(BACKENDS[0])
    for texts in (["films unable"], ["films", "film, unable a b c"], ["unable é films"], [" "], []):
        assert_same(BACKENDS[0], words.encode(texts), texts)
        for kept in (words._chunks, words._words):
            assert kept.characters == sum(map(len, kept._numbers)) <= 9 + 14
    assert [*words._chunks._numbers] == ["films"]


def test_plain_words_are_split_like_the_backend_does():
    """The model alone is asked for words like these, of any length, whatever the case."""
    texts = ["unable UNABLE Films 7films z" + "a" * 120 + " " + "A" * 100, "x" * 99 + "Y"]
    for one in BACKENDS:
        assert_same(one, WordCache(one).encode(texts), texts)


def test_other_tokenizers_get_whole_texts():
    """A tokenizer that has a token across words, which splitting would miss."""
    other = backend()
    other.add_tokens([tokenizers.AddedToken("a film")])
    assert not separable(other)
    assert_same(other, WordCache(other).encode(["a film", "seen a film"]), ["a film", "seen a film"])
    lowering = backend()
    lowering.normalizer = tokenizers.normalizers.Replace("m s", "x")
    assert not separable(lowering)
    dropping = piecewise("bpe")
    dropping.model.dropout = 0.5
    spaces = piecewise("bpe", letters=[tokenizers.normalizers.NFKC()])  # \u00b4 begins with a space
    first = piecewise("unigram-metaspace")
    first.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    assert not any(map(separable, (dropping, spaces, first)))
    assert all(map(separable, BACKENDS + OTHERS))
