"""Vocabularies of every kind that are trained on a corpus: the same everywhere, and read by transformers."""

import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest
import tokenizer_kinds as kinds
from tokenizers import trainers

from bert_jax.text import word_counts, wordpiece_training
from bert_jax.text.cleaning import cleaning
from bert_jax.text.layout import Layout
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.vocabulary import KINDS, SPECIAL_TOKENS, split_words, wordpiece
from bert_jax.text.word_cache import separable
from bert_jax.text.word_counts import SCHEMA, count_words, merge_counts

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
    monkeypatch.setattr(word_counts, "CHARACTER_COVERAGE", 0.9)
    tokenizer = Tokenizer.train(["owl owl owl owl owlétte"], 50, kind="unigram", strip_accents=False)
    assert "é" not in tokenizer.tokens
    assert tokenizer.unk_id in tokenizer.encode_flat(["owlé"])[0]


@KIND
def test_an_iterator_is_a_corpus_as_a_list_is(kind, trained):
    assert (
        Tokenizer.train(iter(TEXTS), SIZES[kind], kind=kind, lowercase=False).fingerprint == trained[kind].fingerprint
    )


@pytest.mark.parametrize("kind", ["wordpiece", "unigram"])
def test_counts_of_parts_give_the_vocabulary_of_their_texts(kind, trained):
    parts = [count_words(TEXTS[start::3]) for start in (2, 0, 1)]
    tokenizer = Tokenizer.train(merge_counts(parts), SIZES[kind], kind=kind, lowercase=False)
    assert tokenizer.fingerprint == trained[kind].fingerprint


def test_counts_give_the_pieces_that_the_library_finds_in_the_texts():
    ours = set(Tokenizer.train(TEXTS, 150).tokens)
    library = wordpiece([], lowercase=True, strip_accents=None)
    characters = sorted(token for token in ours if len(token) == 1)
    continuing = sorted(token for token in ours if len(token) == 3 and token.startswith("##"))
    options = {"initial_alphabet": characters, "limit_alphabet": len(characters), "show_progress": False}
    trainer = trainers.WordPieceTrainer(vocab_size=150, special_tokens=[*SPECIAL_TOKENS, *continuing], **options)
    library.train_from_iterator(TEXTS, trainer)
    assert set(library.get_vocab()) == ours


def test_counts_above_the_cap_are_scaled_and_words_that_round_to_zero_change_nothing(monkeypatch):
    def pieces(counts, min_frequency):
        return set(Tokenizer.train(counts, 900, min_frequency=min_frequency, lowercase=False).tokens)

    def with_rare_word(count):
        return merge_counts([many, pa.table({"word": ["letwo"], "count": [count]}, schema=SCHEMA)])

    counts = count_words(TEXTS)
    many = merge_counts([counts] * 7)
    exact = pieces(counts, 2)
    backend = wordpiece([], lowercase=False, strip_accents=None)
    num_words = sum(len(split_words(backend, text)) for text in TEXTS)
    monkeypatch.setattr(wordpiece_training, "MAX_WORDS", 7 * num_words)
    assert pieces(many, 14) == exact
    monkeypatch.setattr(wordpiece_training, "MAX_WORDS", num_words + 2)  # a factor of 7
    assert pieces(many, 14) == pieces(many, 8) == pieces(with_rare_word(3), 14) == exact
    assert "letwo" not in pieces(with_rare_word(10), 14)  # 1 after scaling
    assert "letwo" in pieces(with_rare_word(11), 14)  # 2


@pytest.mark.parametrize(
    ("kind", "texts", "size", "message"),
    [
        ("bpe", [" ", ""], 400, "no text"),
        ("unigram", [" ", ""], 400, "no text"),
        ("bpe", ["owl"], 260, "too small for the characters of the corpus, which need 261"),
        ("unigram", ["owl"], 8, "too small for the characters of the corpus, which need 9"),
        ("bpe", count_words(["owl"]), 400, "is trained on texts, not on counts of words"),
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
