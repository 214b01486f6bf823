"""Trains a vocabulary on a corpus: WordPiece, byte-level BPE or Unigram, reproducibly.

All kinds have BERT's special tokens, with the ids 0 to 4, and BERT's layout of sequences, so any of them serves any
objective. Otherwise they are as their families have them:

    WordPiece   as BERT      ## marks the pieces that continue a word; punctuation marks are words; some text is [UNK]
    BPE         as RoBERTa   \u0120 marks the beginning of a word; pieces are bytes, so nothing is [UNK]
    Unigram     as XLM-R     \u2581 marks the beginning of a word; some text is [UNK]

Unlike RoBERTa's, a BPE here puts a space before each text, so that its first word has a mark too.

BPE's trainer in `tokenizers` is reproducible: it counts in integers, and breaks ties by ids, which follow the order of
bytes and merges. That of WordPiece is made so in `wordpiece_training.py`, and Unigram's is not: `unigram_training.py`.
Both are trained on the counts of words, so a corpus is read once and need not be there.

References: Sennrich et al., Neural Machine Translation of Rare Words with Subword Units, 2016 (BPE). Radford et al.,
GPT-2, 2019, section 2.2 (bytes). Kudo, Subword Regularization, 2018 (Unigram). Lan et al., ALBERT, 2020 (Unigram with
BERT's special tokens).
"""

import re
import sys
from collections.abc import Iterable
from itertools import tee
from typing import Any

import pyarrow as pa
import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors, trainers

from bert_jax.text.cleaning import letter_normalizers
from bert_jax.text.unigram_training import train_unigram
from bert_jax.text.vocabulary import (
    BYTES,
    KINDS,
    MASK,
    SPECIAL_TOKENS,
    UNK,
    require_room,
)
from bert_jax.text.word_counts import count_words, frequent_characters, normalized_counts, split_counts
from bert_jax.text.wordpiece_training import train_wordpiece


def train_vocabulary(
    corpus: Iterable[str] | pa.Table,
    vocab_size: int,
    *,
    kind: str,
    lowercase: bool,
    strip_accents: bool | None,
    min_frequency: int,
) -> tokenizers.Tokenizer:
    """Trains a tokenizer; the arguments and errors are those of `Tokenizer.train`."""
    if kind not in KINDS:
        raise ValueError(f"`kind` must be one of {', '.join(KINDS)}; got {kind!r:.60}")
    if vocab_size <= len(SPECIAL_TOKENS):
        raise ValueError(f"`vocab_size` {vocab_size} has no room besides the {len(SPECIAL_TOKENS)} special tokens")
    letters = letter_normalizers(lowercase=lowercase, strip_accents=strip_accents)
    if kind == "bpe":
        if isinstance(corpus, pa.Table):
            raise ValueError("a BPE is trained on texts, not on counts of words: white space is part of its pieces")
        return _train_bpe(corpus, vocab_size, min_frequency, letters)
    counts = corpus if isinstance(corpus, pa.Table) else count_words(corpus, split_chinese=kind == "wordpiece")
    if kind == "unigram":
        return _train_unigram(counts, vocab_size, min_frequency, letters)
    return train_wordpiece(counts, vocab_size, min_frequency, lowercase=lowercase, strip_accents=strip_accents)


def _special_tokens() -> list[tokenizers.AddedToken]:
    """Returns the special tokens; a mask takes the space before it with it, as the word does that it stands for."""
    return [tokenizers.AddedToken(token, lstrip=token == MASK, special=True) for token in SPECIAL_TOKENS]


def _train_bpe(texts: Iterable[str], vocab_size: int, min_frequency: int, letters: list[Any]) -> tokenizers.Tokenizer:
    """Trains a byte-level BPE: the special tokens, the 256 bytes, then the merges in their order."""
    texts, ahead = tee(texts)
    has_text = any(text.strip() for text in ahead)
    del ahead  # it would keep the texts in memory
    require_room(vocab_size, BYTES if has_text else 0)
    backend = tokenizers.Tokenizer(models.BPE())
    if letters:
        backend.normalizer = normalizers.Sequence(letters)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.Sequence([decoders.ByteLevel(), decoders.Strip(" ", 1, 0)])
    backend.post_processor = processors.ByteLevel(trim_offsets=True)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=min_frequency,
        special_tokens=_special_tokens(),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=sys.stderr.isatty(),
    )
    backend.train_from_iterator(texts, trainer)
    return backend


def _train_unigram(counts: pa.Table, vocab_size: int, min_frequency: int, letters: list[Any]) -> tokenizers.Tokenizer:
    """Trains a Unigram: the special tokens, then pieces by probability, ties by text."""
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), *letters])
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    backend.decoder = decoders.Metaspace()
    words = normalized_counts(counts, backend)
    characters = frequent_characters(words)
    require_room(vocab_size, len(characters))
    words = split_counts(words, re.compile(f"[{re.escape(''.join(characters))}]+").findall)  # cut at rare ones
    pieces = train_unigram(words, vocab_size - len(SPECIAL_TOKENS), min_frequency)
    backend.model = models.Unigram(
        [*((token, 0.0) for token in SPECIAL_TOKENS), *pieces], SPECIAL_TOKENS.index(UNK), byte_fallback=False
    )
    backend.add_special_tokens(_special_tokens())
    return backend
