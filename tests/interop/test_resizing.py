"""Resized models keep their old logits, and new rows start from the means of old ones."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_bert as small
from small_checkpoints import assert_same_bits, model, small_tokenizer

import bert_jax
from bert_jax.interop.resizing import add_tokens, extend_positions, resize_vocabulary

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


def test_new_words_match_whole_words_and_special_tokens_match_anywhere(bert):
    words = add_tokens(bert, ["ab"]).tokenizer
    assert "ab" not in words.encode_batch(["abc"])[0].tokens
    marks = add_tokens(bert, ["<e>"], special=True).tokenizer
    encoding = marks.encode_batch(["a<e>b"])[0]
    assert encoding.tokens == ["[CLS]", "a", "<e>", "b", "[SEP]"]
    assert marks.decode(encoding.ids) == "a b"


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
