"""Splits sentences that are longer than a row, so that pairs can show all of their tokens.

Speech, code and text without punctuation have "sentences" of any length. In a pair they would be cut down to a row, at
about the same place in every pass, and most of their tokens would never be shown. They are split in pieces of half a
row: two neighbours make a pair that fits. Only the offsets of the sentences change, so the ids are shared with the
store that was split.

Runs of sentences (objective `mlm`) need no such pieces: `plan_runs` cuts a long sentence where a run is full, at other
tokens in each pass, and only counts them here.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bert_jax.data.pretraining.sequences import SPECIAL_TOKENS, Objective, SpecialTokens
from bert_jax.data.pretraining.token_store import TokenStore, write_offsets
from bert_jax.data.readers.cache import new_folder

SENTENCES_AT_ONCE = 1 << 20


def split_long_sentences(
    store: TokenStore,
    *,
    max_length: int,
    cache_dir: str | os.PathLike[str],
    special: SpecialTokens = SPECIAL_TOKENS,
) -> TokenStore:
    """Splits the sentences that are longer than a row, or returns the same store if there are none.

    Args:
        store: a store that `tokenize_corpus` made.
        max_length: tokens of a row, with [CLS] and both [SEP].
        cache_dir: folder for the new offsets.
        special: the numbers of special tokens of the sequences, which the tokenizer of the store decides.
    """
    room = max_length - special["mlm-nsp"]
    piece = (room + 1) // 2
    long = np.concatenate([first + np.flatnonzero(lengths > room) for first, lengths in _lengths(store)])
    if not len(long):
        return store
    folder = Path(cache_dir) / hashlib.sha256(json.dumps([store.fingerprint, max_length]).encode()).hexdigest()
    if not folder.is_dir():
        sentences = (split_lengths(lengths, room, piece) for _, lengths in _lengths(store))
        counts = {"unknown_tokens": store.unknown_tokens, "split_sentences": len(long)}
        with new_folder(folder) as unfinished:
            write_offsets(unfinished, sentences, [_document_lengths(store, long, piece)], counts)
    return store.with_offsets(folder)


def count_long_sentences(
    store: TokenStore, *, objective: Objective, max_length: int, special: SpecialTokens = SPECIAL_TOKENS
) -> int:
    """Returns the number of sentences that are longer than a row."""
    room = max_length - special[objective]
    return sum(int(np.count_nonzero(lengths > room)) for _, lengths in _lengths(store))


def split_lengths(lengths: np.ndarray, room: int, piece: int) -> np.ndarray:
    """Returns the lengths of sentences after those longer than `room` are split in pieces of up to `piece` tokens.

    >>> split_lengths(np.array([3, 12, 6]), 6, 5).tolist()
    [3, 5, 5, 2, 6]
    """
    pieces = np.where(lengths > room, -(-lengths // piece), 1)
    result = np.full(pieces.sum(), piece)
    last = np.cumsum(pieces) - 1
    result[last] = lengths - (pieces - 1) * piece
    return result


def _lengths(store: TokenStore) -> Iterator[tuple[int, np.ndarray]]:
    """Yields blocks of sentences: the index of the first, and the tokens of each."""
    for first in range(0, store.num_sentences, SENTENCES_AT_ONCE):
        yield first, np.diff(store.sentence_offsets[first : first + SENTENCES_AT_ONCE + 1])


def _document_lengths(store: TokenStore, long: np.ndarray, piece: int) -> np.ndarray:
    """Returns the sentences of each document after the sentences `long` are split, int64 [documents]."""
    tokens = store.sentence_offsets[long + 1] - store.sentence_offsets[long]
    added = np.concatenate([[0], np.cumsum(-(-tokens // piece) - 1)])
    offsets = np.asarray(store.document_offsets)
    return np.diff(offsets + added[np.searchsorted(long, offsets)])
