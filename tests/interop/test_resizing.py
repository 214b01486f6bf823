"""Resized models keep their old logits, and new rows start from the means of old ones."""

from dataclasses import replace
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_bert as small
import tokenizers
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from small_checkpoints import WORDS, assert_same_bits, model, small_tokenizer

import bert_jax
from bert_jax.interop.resizing import add_tokens, extend_positions, resize_vocabulary
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.word_cache import separable

TOLERANCE = 1e-5
ROWS = {
    "input_ids": np.array([[2, 5, 6, 7, 3], [2, 9, 3, 0, 0]]),
    "attention_mask": np.array([[1] * 5, [1, 1, 1, 0, 0]]),
}


@pytest.fixture
def bert(tmp_path):
    return replace(model("BertForMaskedLM"), vocabulary=small_tokenizer(tmp_path))


def word(bert):
    return np.asarray(bert.params["embeddings"]["word"]["embedding"])


# Tokens


def test_logits_of_old_tokens_do_not_change(bert):
    grown = add_tokens(bert, ["quokka", "owling"])
    before, after = bert(**ROWS).prediction_logits, grown(**ROWS).prediction_logits
    assert after.shape == (*before.shape[:2], small.V + 2)
    np.testing.assert_allclose(after[..., : small.V], before, atol=TOLERANCE)
    assert_same_bits(grown.params["encoder"], bert.params["encoder"])


def test_a_new_token_starts_as_the_mean_of_its_old_pieces(bert):
    old = bert.tokenizer
    grown = add_tokens(bert, ["owling", "hooteds"])
    pieces = {"owling": ["owl", "##ing"], "hooteds": ["hooted", "##s"]}
    assert grown.tokenizer.tokens == [*old.tokens, "owling", "hooteds"]
    for token, parts in pieces.items():
        (row,) = (grown.tokenizer.tokens.index(token),)
        ids = [old.tokens.index(part) for part in parts]
        assert old.encode_batch([token])[0].tokens[1:-1] == parts
        assert grown.tokenizer.encode_batch([f"an {token} !"])[0].tokens[1:-1] == ["an", token, "!"]
        np.testing.assert_allclose(word(grown)[row], word(bert)[ids].mean(0), atol=TOLERANCE)
        bias = np.asarray(bert.params["masked_lm"]["bias"])[ids].mean()
        np.testing.assert_allclose(grown.params["masked_lm"]["bias"][row], bias, atol=TOLERANCE)


def test_a_new_token_without_pieces_starts_as_the_mean_of_all(bert):
    grown = add_tokens(bert, ["東京"])
    np.testing.assert_allclose(word(grown)[-1], word(bert).mean(0), atol=TOLERANCE)


def test_new_words_begin_words_and_special_tokens_match_anywhere(bert):
    words = add_tokens(bert, ["owling"]).tokenizer
    assert words.encode_batch(["owlings anowling"], add_special_tokens=False)[0].tokens == ["owling", "##s", "[UNK]"]
    marks = add_tokens(bert, ["<e>"], special=True).tokenizer
    encoding = marks.encode_batch(["a<e>b"])[0]
    assert encoding.tokens == ["[CLS]", "a", "<e>", "b", "[SEP]"]
    assert marks.decode(encoding.ids) == "a b"


def test_words_are_added_as_the_tokenizer_normalizes_them(bert):
    grown = add_tokens(bert, ["Quokka", "quokka", "QUOKKA", "Owl"])
    assert grown.tokenizer.tokens == [*bert.tokenizer.tokens, "quokka"]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(words=st.lists(st.text("abcdefgij", min_size=2, max_size=5), min_size=1, max_size=6, unique=True))
def test_added_words_are_single_tokens_with_the_mean_of_their_pieces(bert, words):
    """They are part of the vocabulary, so a corpus is still encoded word by word, and other texts keep their ids."""
    old = bert.tokenizer
    texts = [WORDS, "j i h ; hooteds", "hijk xyz"]
    grown = add_tokens(bert, words)
    tokenizer = grown.tokenizer
    assert tokenizer.tokens == [*old.tokens, *words]
    assert grown.config.vocab_size == small.V + len(words)
    assert separable(tokenizer.backend)
    encoded, lengths = tokenizer.encode_flat([f"{word.upper()}" for word in words])
    assert encoded.tolist() == [*range(small.V, small.V + len(words))]
    assert lengths.tolist() == [1] * len(words)
    assert tokenizer.decode(encoded) == " ".join(words)
    assert tokenizer.encode_flat(texts)[0].tolist() == old.encode_flat(texts)[0].tolist()
    tables = [(word(grown), word(bert)), (grown.params["masked_lm"]["bias"], bert.params["masked_lm"]["bias"])]
    for new, before in tables:
        for row, one in enumerate(words, start=small.V):
            pieces = [i for i in old.encode_flat([one])[0] if i != old.unk_id] or range(small.V)
            np.testing.assert_allclose(new[row], np.asarray(before)[np.array(pieces)].mean(0), atol=TOLERANCE)


def test_tokens_that_are_no_words_are_added_tokens(bert):
    """The tokenizer would split them before WordPiece sees them."""
    tokens = ["e-mail", "ab cd", "東京", "##owl", "x" * 101]
    grown = add_tokens(bert, ["quokka", *tokens]).tokenizer
    assert grown.tokens == [*bert.tokenizer.tokens, "quokka", *tokens]
    assert not separable(grown.backend)
    assert grown.encode_batch(["an E-mail : ab cd quokka"])[0].tokens[1:-1] == [
        "an",
        "e-mail",
        "[UNK]",
        "ab cd",
        "quokka",
    ]


def test_markers_before_words_keep_their_ids(bert):
    grown = add_tokens(add_tokens(bert, ["<e>"], special=True), ["quokka"]).tokenizer
    assert grown.tokens == [*bert.tokenizer.tokens, "<e>", "quokka"]
    assert grown.encode_batch(["a<e>quokkas"])[0].tokens[1:-1] == ["a", "<e>", "quokka", "##s"]


def test_words_that_were_added_tokens_still_match_whole_words(bert):
    """A tokenizer of transformers may have them; in the vocabulary they would match the beginnings of words too."""
    backend = tokenizers.Tokenizer.from_str(bert.tokenizer.backend.to_str())
    backend.add_tokens([tokenizers.AddedToken("owling", single_word=True)])
    old = replace(bert, vocabulary=bert.tokenizer.with_settings(backend))
    config, params = resize_vocabulary(bert.config, bert.params, small.V + 1)
    old = replace(old, model=bert.model.clone(config=config), params=params)
    grown = add_tokens(old, ["quokka"]).tokenizer
    assert grown.tokens == [*bert.tokenizer.tokens, "owling", "quokka"]
    assert grown.encode_batch(["owling owlings"])[0].tokens[1:-1] == ["owling", "owl", "##ing", "##s"]


@pytest.mark.skipif(find_spec("transformers") is None, reason="asks transformers: needs the torch extra")
@pytest.mark.parametrize("without", ["nothing", "tokenizer.json", "vocab.txt"])
def test_transformers_gives_the_ids_of_a_larger_vocabulary(bert, without, tmp_path):
    from transformers import AutoTokenizer

    grown = add_tokens(add_tokens(bert, ["<e>"], special=True), ["quokka", "owling"])
    grown.save_pretrained(tmp_path)
    (tmp_path / without).unlink(missing_ok=True)
    text = "an Owling , quokkas <e> hooted quokka it"
    ids = grown.tokenizer.encode_batch([text])[0].ids
    assert {small.V, small.V + 1, small.V + 2} <= set(ids)
    assert AutoTokenizer.from_pretrained(tmp_path)(text)["input_ids"] == ids
    assert Tokenizer.load(tmp_path).encode_batch([text])[0].ids == ids


def test_known_tokens_add_nothing(bert):
    grown = add_tokens(bert, ["owl", "owl", "[MASK]"])
    assert grown.config == bert.config
    assert_same_bits(grown.params, bert.params)
    assert add_tokens(bert, ["quokka", "quokka"]).config.vocab_size == small.V + 1


def test_rows_are_rounded_up_and_unused_rows_are_filled_first(bert):
    padded = add_tokens(bert, ["quokka"], multiple_of=8)
    assert padded.config.vocab_size == len(word(padded)) == 32
    wider = add_tokens(bert, ["quokka", "numbat"], multiple_of=8)
    assert wider.config.vocab_size == 40
    again = add_tokens(wider, ["owling"])
    assert again.config.vocab_size == 40
    row = again.tokenizer.tokens.index("owling")
    assert row == small.V + 2
    np.testing.assert_allclose(
        word(again)[row], word(bert)[[bert.tokenizer.tokens.index(t) for t in ("owl", "##ing")]].mean(0), atol=TOLERANCE
    )


def test_a_resized_model_is_saved_and_loaded(bert, tmp_path):
    grown = extend_positions(add_tokens(bert, ["quokka", "<e>"], multiple_of=8), 17)
    grown.save_pretrained(tmp_path / "grown")
    loaded = bert_jax.load(tmp_path / "grown")
    assert loaded.config == grown.config
    assert loaded.tokenizer.fingerprint == grown.tokenizer.fingerprint
    assert_same_bits(loaded.params, grown.params)


def test_a_smaller_vocabulary_is_truncated_at_its_end():
    bert = model("BertForMaskedLM")
    config, params = resize_vocabulary(bert.config, bert.params, 29)
    assert config.vocab_size == 29
    np.testing.assert_array_equal(params["embeddings"]["word"]["embedding"], word(bert)[:29])
    np.testing.assert_array_equal(params["masked_lm"]["bias"], bert.params["masked_lm"]["bias"][:29])
    assert_same_bits(params["encoder"], bert.params["encoder"])


def test_resizing_keeps_the_dtype(bert):
    half = replace(bert, params=jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), bert.params))
    grown = extend_positions(add_tokens(half, ["quokka"]), 17)
    assert {leaf.dtype for leaf in jax.tree.leaves(grown.params)} == {jnp.dtype(jnp.bfloat16)}


# Positions


def positions(bert):
    return np.asarray(bert.params["embeddings"]["position"]["embedding"])


@pytest.mark.parametrize("length", [small.POSITIONS, 12, 21, 61])
def test_positions_are_interpolated_between_the_ends(length, bert):
    grown, old = extend_positions(bert, length), positions(bert)
    new = positions(grown)
    assert grown.config.max_position_embeddings == len(new) == length
    np.testing.assert_allclose(new[[0, -1]], old[[0, -1]], atol=TOLERANCE)
    want = [np.interp(np.linspace(0, 1, length), np.linspace(0, 1, len(old)), column) for column in old.T]
    np.testing.assert_allclose(new.T, want, atol=TOLERANCE)


def test_longer_rows_run_after_extending_positions(bert):
    long = np.full((1, 29), 5)
    with pytest.raises(ValueError, match="rows of 29 tokens exceed max_position_embeddings 11"):
        bert(long)
    assert np.isfinite(extend_positions(bert, 29)(long).prediction_logits).all()


def test_positions_cannot_be_reduced(bert):
    with pytest.raises(ValueError, match="`length` must be at least max_position_embeddings 11, got 7"):
        extend_positions(bert, 7)
