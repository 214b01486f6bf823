"""The comparison of the kinds of vocabularies has a row for each, and its words are those of the texts."""

import tokenizer_kinds as kinds
import tokenizers_compared

from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.vocabulary import KINDS


def test_each_kind_has_a_row():
    rows = tokenizers_compared.compare(kinds.SENTENCES, kinds.SENTENCES[:3], 300)[2:]
    assert [row.split(" | ")[0] for row in rows] == [f"| {kind}" for kind in KINDS]
    for row in rows:
        assert 1 <= float(row.split(" | ")[2]) < 4


def test_words_are_split_at_their_marks():
    tokenizer = Tokenizer.train(kinds.SENTENCES, 300, kind="bpe", lowercase=False)
    words = tokenizers_compared._pieces_of_words(tokenizer, ["An owl hooted"])
    assert [tokenizer.decode(word) for word in words] == ["An", "owl", "hooted"]
