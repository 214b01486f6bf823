"""Vocabularies of every kind that are trained on a corpus: the same everywhere, and read by transformers."""

import os
import subprocess
import sys

import numpy as np
import pytest
import tokenizer_kinds as kinds

from bert_jax.text import vocabulary, vocabulary_training
from bert_jax.text.cleaning import cleaning
from bert_jax.text.layout import Layout
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.vocabulary import KINDS, SPECIAL_TOKENS
from bert_jax.text.word_cache import separable

# Every pair of letters is as frequent as its mirror image: ties everywhere.
TIES = [f"{a}{b}{c} {c}{b}{a}." for a in "abcdefgh" for b in "abcdefgh" for c in "abcdefgh"]
TEXTS = [f"{sentence} An able owlet hoots at unable owlets." for sentence in kinds.SENTENCES]
KIND = pytest.mark.parametrize("kind", KINDS)
SIZES = {"wordpiece": 150, "bpe": 320, "unigram": 150}
PROGRAM = f"""
from bert_jax.text.tokenizer import Tokenizer
for kind, size in {SIZES}.items():
    print(Tokenizer.train({TIES}, size - 40, kind=kind).fingerprint)
"""


@pytest.fixture(scope="module")
def trained():
    return {kind: Tokenizer.train(TEXTS, SIZES[kind], kind=kind, lowercase=False) for kind in KINDS}


def test_ties_give_the_same_vocabularies_in_every_process_with_any_number_of_threads():
    wanted = [Tokenizer.train(TIES, SIZES[kind] - 40, kind=kind).fingerprint for kind in KINDS]
    path = os.pathsep.join(path for path in sys.path if path)
    for threads, parallel in (("1", "false"), ("3", "true")):
        environment = {"RAYON_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": parallel, "OMP_NUM_THREADS": threads}
        program = [sys.executable, "-c", PROGRAM]
        found = subprocess.run(
            program, env=os.environ | environment | {"PYTHONPATH": path}, capture_output=True, text=True, check=True
        )
        assert found.stdout.split() == wanted


@KIND
def test_special_tokens_and_layout_are_berts(kind, trained):
    tokenizer = trained[kind]
    assert tokenizer.tokens[:5] == [*SPECIAL_TOKENS]
    assert tokenizer.layout == Layout.bert(2, 3)
    assert tokenizer.special_ids.tolist() == [0, 1, 2, 3, 4]
    assert tokenizer.vocab_size <= SIZES[kind]
    masked = tokenizer.backend.encode("an [MASK] owl", "hoots")
    assert [i for i in masked.ids if i < 5] == [2, 4, 3, 3]
    assert masked.type_ids[-2:] == [1, 1]
    assert separable(tokenizer._variant(tokenizer.backend, special=frozenset()))


@KIND
def test_a_trained_vocabulary_marks_where_words_begin(kind, trained):
    tokenizer = trained[kind]
    text = "An able owlet hoots"
    ids, _ = tokenizer.encode_flat([text])
    starts = np.flatnonzero(~tokenizer.continuation[ids])
    words = [tokenizer.decode(part) for part in np.split(ids, starts[1:])]
    assert words == text.split()
    assert tokenizer.decode(ids) == text
    assert not (ids == tokenizer.unk_id).any()


@KIND
def test_case_and_accents_are_cleaned_as_asked(kind):
    for lowercase, strip, wanted in (
        (True, None, "cafe i"),
        (True, False, "café i"),
        (False, None, "Café I"),
        (False, True, "Cafe I"),
    ):
        tokenizer = Tokenizer.train(["Café I"] * 3, 290, kind=kind, lowercase=lowercase, strip_accents=strip)
        assert tokenizer.decode(tokenizer.encode_flat(["Café I"])[0]) == wanted
        assert cleaning(tokenizer.backend) == {"lowercase": lowercase, "strip_accents": wanted[3] == "e"}


def test_a_normalizer_that_does_more_has_no_description():
    assert cleaning(kinds.backend("bpe")) == {"lowercase": False, "strip_accents": False}
    other = kinds.backend("unigram")
    other.normalizer = kinds.normalizers.Replace("a", "b")
    assert cleaning(other) == {}


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_rare_pieces_are_left_out(kind):
    texts = ["often often often rare"] * 2
    assert "rare" in "".join(Tokenizer.train(texts, 300, kind=kind).tokens[5:])
    few = Tokenizer.train(texts, 300, kind=kind, min_frequency=3)
    assert not any("rar" in token for token in few.tokens)
    assert any("often" in token for token in few.tokens)


def test_very_rare_characters_are_unknown_to_a_unigram(monkeypatch):
    monkeypatch.setattr(vocabulary, "CHARACTER_COVERAGE", 0.9)
    tokenizer = Tokenizer.train(["owl owl owl owl owlétte"], 50, kind="unigram", strip_accents=False)
    assert "é" not in tokenizer.tokens
    assert tokenizer.unk_id in tokenizer.encode_flat(["owlé"])[0]


def test_a_large_corpus_is_read_in_part(monkeypatch):
    monkeypatch.setattr(vocabulary_training, "MAX_DISTINCT_CHUNKS", 3)
    tokenizer = Tokenizer.train(["aa bb aa bb", "cc dd", "xx yy"], 50, kind="unigram", min_frequency=1)
    assert "x" not in "".join(tokenizer.tokens[5:])


@pytest.mark.parametrize(
    ("kind", "texts", "size", "message"),
    [
        ("bpe", [" ", ""], 400, "no text"),
        ("unigram", [" ", ""], 400, "no text"),
        ("bpe", ["owl"], 260, "too small for the characters of the corpus, which need 261"),
        ("unigram", ["owl"], 8, "too small for the characters of the corpus, which need 9"),
        ("unigram", iter(["owl"]), 80, "not an iterator"),
        ("bpe", ["owl"], 5, "no room besides the 5 special tokens"),
        ("words", ["owl"], 80, "`kind` must be one of wordpiece, bpe, unigram; got 'words'"),
    ],
)
def test_impossible_training_is_an_error(kind, texts, size, message):
    with pytest.raises(ValueError, match=message):
        Tokenizer.train(texts, size, kind=kind)


@pytest.mark.filterwarnings("default")
@KIND
def test_transformers_reads_what_is_saved(kind, trained, tmp_path):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed: the peer to compare with")
    ours = trained[kind]
    ours.save(tmp_path)
    assert Tokenizer.load(tmp_path).fingerprint == ours.fingerprint
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path)
    texts = kinds.unicode_texts(400)
    found = theirs(texts, texts[::-1], return_offsets_mapping=True)
    encodings = ours.encode_batch(texts, texts[::-1])
    assert [encoding.ids for encoding in encodings] == found["input_ids"]
    assert [encoding.offsets for encoding in encodings] == found["offset_mapping"]
    assert [encoding.type_ids for encoding in encodings] == found["token_type_ids"]
    ids = [encoding.ids for encoding in encodings[:50]]
    assert theirs.batch_decode(ids, clean_up_tokenization_spaces=False) == [
        ours.decode(one, skip_special_tokens=False) for one in ids
    ]
