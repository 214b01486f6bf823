"""Trains a WordPiece vocabulary on the counts of words, reproducibly.

`tokenizers` trains it. The library breaks ties between equally frequent pairs by ids that follow the order of a
randomly seeded hash table, so the same corpus would give different vocabularies in different processes. Here it gets
the characters that may begin and continue a word in a fixed order, which fixes the result; ids are then assigned by
frequency.

The library counts words itself and takes no counts, so it is given each word as often as it occurs. Counts of a corpus
of more than MAX_WORDS words are divided by a common factor and rounded: with a factor of 1,000, words that occur less
than 500 times are left out, while the rarest piece of a large vocabulary occurs a million times.
"""

import math
import sys
from collections.abc import Iterator
from functools import partial
from itertools import chain

import numpy as np
import pyarrow as pa
import tokenizers
from tokenizers import models, pre_tokenizers, trainers

from bert_jax.text.vocabulary import CONTINUATION, SPECIAL_TOKENS, UNK, require_room, split_words, wordpiece
from bert_jax.text.word_counts import SPLIT_ROWS, count_ids, frequent_characters, normalized_counts

MAX_WORDS = 1 << 27  # that the library is given, at about 5 million a second
FED_CHARACTERS = 1 << 12  # in one text


def train_wordpiece(
    counts: pa.Table, vocab_size: int, min_frequency: int, *, lowercase: bool, strip_accents: bool | None
) -> tokenizers.Tokenizer:
    """Trains a vocabulary: the special tokens first, then pieces by frequency, ties by text.

    Args:
        counts: the result of `count_words`.
    """
    make = partial(wordpiece, lowercase=lowercase, strip_accents=strip_accents)
    words = normalized_counts(counts, make([]))
    initials, continuations = _alphabet(words, make([]))
    require_room(vocab_size, len(initials) + len(continuations))
    factor = max(1, math.ceil(words["count"].to_numpy().sum() / MAX_WORDS))
    trainer = trainers.WordPieceTrainer(
        vocab_size=vocab_size,
        min_frequency=math.ceil(min_frequency / factor),
        initial_alphabet=initials,
        limit_alphabet=len(initials),
        # Listed here, these get their ids before the library iterates over its hash table.
        special_tokens=[*SPECIAL_TOKENS, *continuations],
        show_progress=sys.stderr.isatty(),
    )
    library = tokenizers.Tokenizer(models.WordPiece(unk_token=UNK))
    library.pre_tokenizer = pre_tokenizers.CharDelimiterSplit(" ")
    library.train_from_iterator(_repeated(words, factor), trainer)
    pieces = sorted(set(library.get_vocab()) - set(SPECIAL_TOKENS))
    frequencies = _frequencies(pieces, words)
    pieces.sort(key=lambda piece: (-frequencies[piece], piece))
    return make(pieces)


def _alphabet(words: pa.Table, backend: tokenizers.Tokenizer) -> tuple[list[str], list[str]]:
    """Returns the characters that may begin a word, and with the prefix ## those that may continue one, sorted."""
    initials = sorted(frequent_characters(words))
    # Punctuation and Chinese characters are words by themselves and never continue one.
    continuing = [character for character in initials if len(split_words(backend, "a" + character)) == 1]
    return initials, [CONTINUATION + character for character in continuing]


def _repeated(words: pa.Table, factor: int) -> Iterator[str]:
    """Yields texts with all words, each as often as its count, divided by a factor and rounded, says."""
    text = ""
    for batch in words.to_batches(SPLIT_ROWS):
        times = (batch["count"].to_numpy() + factor // 2) // factor
        for word, count in zip(batch["word"].to_pylist(), times.tolist(), strict=True):
            unit = f"{word} "
            fit = FED_CHARACTERS // len(unit) + 1
            for _ in range(count // fit):
                yield unit * fit
            text += unit * (count % fit)
            if len(text) >= FED_CHARACTERS:
                yield text
                text = ""
    yield text


def _frequencies(pieces: list[str], words: pa.Table) -> dict[str, int]:
    """Returns how often each piece occurs in the words."""
    vocabulary = {piece: number for number, piece in enumerate([*pieces, UNK])}
    model = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token=UNK))

    def encode(batch: list[str]) -> tuple[np.ndarray, np.ndarray]:
        ids = [encoding.ids for encoding in model.encode_batch_fast(batch, add_special_tokens=False)]
        return np.array(list(chain.from_iterable(ids)), np.int64), np.array(list(map(len, ids)))

    return dict(zip(pieces, count_ids(words, encode, len(vocabulary)).tolist(), strict=False))
