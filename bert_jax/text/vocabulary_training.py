"""Trains a vocabulary on a corpus: WordPiece, byte-level BPE or Unigram, reproducibly.

All kinds have BERT's special tokens, with the ids 0 to 4, and BERT's layout of sequences, so any of them serves any
objective. Otherwise they are as their families have them:

    WordPiece   as BERT      ## marks the pieces that continue a word; punctuation marks are words; some text is [UNK]
    BPE         as RoBERTa   \u0120 marks the beginning of a word; pieces are bytes, so nothing is [UNK]
    Unigram     as XLM-R     \u2581 marks the beginning of a word; some text is [UNK]

Unlike RoBERTa's, a BPE here puts a space before each text, so that its first word has a mark too.

BPE's trainer in `tokenizers` is reproducible: it counts in integers, and breaks ties by ids, which follow the order of
bytes and merges. That of WordPiece is made so in `vocabulary.py`, and Unigram's is not: `unigram_training.py`.

References: Sennrich et al., Neural Machine Translation of Rare Words with Subword Units, 2016 (BPE). Radford et al.,
GPT-2, 2019, section 2.2 (bytes). Kudo, Subword Regularization, 2018 (Unigram). Lan et al., ALBERT, 2020 (Unigram with
BERT's special tokens).
"""

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any

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
    frequent_characters,
    require_room,
    split_words,
    train_wordpiece,
)

MAX_DISTINCT_CHUNKS = 1 << 20  # text between spaces; a corpus with more is read up to there


def train_vocabulary(
    texts: Iterable[str],
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
    if isinstance(texts, Iterator):
        raise ValueError("texts are read several times; pass a list or the column of a dataset, not an iterator")
    if kind == "wordpiece":
        return train_wordpiece(texts, vocab_size, min_frequency, lowercase=lowercase, strip_accents=strip_accents)
    letters = letter_normalizers(lowercase=lowercase, strip_accents=strip_accents)
    if kind == "bpe":
        return _train_bpe(texts, vocab_size, min_frequency, letters)
    return _train_unigram(texts, vocab_size, min_frequency, letters)


def _special_tokens() -> list[tokenizers.AddedToken]:
    """Returns the special tokens; a mask takes the space before it with it, as the word does that it stands for."""
    return [tokenizers.AddedToken(token, lstrip=token == MASK, special=True) for token in SPECIAL_TOKENS]


def _train_bpe(texts: Iterable[str], vocab_size: int, min_frequency: int, letters: list[Any]) -> tokenizers.Tokenizer:
    """Trains a byte-level BPE: the special tokens, the 256 bytes, then the merges in their order."""
    has_text = any(text.strip() for text in texts)
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


def _train_unigram(
    texts: Iterable[str], vocab_size: int, min_frequency: int, letters: list[Any]
) -> tokenizers.Tokenizer:
    """Trains a Unigram: the special tokens, then pieces by probability, ties by text."""
    backend = tokenizers.Tokenizer(models.Unigram())
    backend.normalizer = normalizers.Sequence([normalizers.Nmt(), normalizers.NFKC(), *letters])
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    backend.decoder = decoders.Metaspace()
    words = _count_words(texts, backend)
    require_room(vocab_size, len(set().union(*words)))
    pieces = train_unigram(words, vocab_size - len(SPECIAL_TOKENS), min_frequency)
    backend.model = models.Unigram(
        [*((token, 0.0) for token in SPECIAL_TOKENS), *pieces], SPECIAL_TOKENS.index(UNK), byte_fallback=False
    )
    backend.add_special_tokens(_special_tokens())
    return backend


def _count_words(texts: Iterable[str], backend: tokenizers.Tokenizer) -> Counter[str]:
    """Counts the words of a corpus with their marks, as the tokenizer splits them, cut at very rare characters."""
    chunks: Counter[str] = Counter()
    for text in texts:
        chunks.update(text.split())
        if len(chunks) > MAX_DISTINCT_CHUNKS:
            break
    words: Counter[str] = Counter()
    for chunk, count in chunks.items():
        for word in split_words(backend, chunk):
            words[word] += count
    characters: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            characters[character] += count
    rare = {ord(character): " " for character in characters.keys() - {*frequent_characters(characters)}}
    cut: Counter[str] = Counter()
    for word, count in words.items():
        for part in word.translate(rare).split(" "):
            if part:
                cut[part] += count
    return cut
