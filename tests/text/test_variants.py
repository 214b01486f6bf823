"""Special tokens in a text are text, however the tokenizer splits it."""

import json

import pytest
import tokenizers
from tokenizers import models, pre_tokenizers

from bert_jax.text.tokenizer import Tokenizer

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "an", "owl", "##s", "Ġan", "Ġowl"]
IDS = {piece: number for number, piece in enumerate(PIECES)}


def whole_words(tmp_path):
    (tmp_path / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"do_basic_tokenize": False}))
    return Tokenizer.load(tmp_path)


def split_at_spaces(model):
    backend = tokenizers.Tokenizer(model)
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return Tokenizer(backend)


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "words"])
def test_whole_words_that_look_like_special_tokens_are_no_special_tokens(kind, tmp_path):
    tokenizer = {
        "wordpiece": lambda: whole_words(tmp_path),
        "bpe": lambda: split_at_spaces(models.BPE(IDS, [], unk_token="[UNK]", ignore_merges=True)),
        "words": lambda: split_at_spaces(models.WordLevel(IDS, unk_token="[UNK]")),
    }[kind]()
    text = "an [SEP] owl [MASK] [PAD] [UNK]"
    for ids in (
        tokenizer.encode_flat([text])[0].tolist(),
        tokenizer.text_backend().encode(text, add_special_tokens=False).ids,
    ):
        assert {tokenizer.tokens[i] for i in ids} == {"an", "owl", "[UNK]"}
    kept = tokenizer.text_backend("[MASK]").encode(text)
    assert kept.ids.count(tokenizer.mask_id) == 1
    assert kept.ids.count(tokenizer.sep_id) == 1  # the last one
