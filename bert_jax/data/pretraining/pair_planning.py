"""Sentence pairs for next-sentence prediction, planned from sentence lengths alone.

The tokens of a document lie in one run, so segment A and segment B are spans, and a pass over the corpus is a table of
spans: no token is read to make it. All documents of a block advance in lockstep, one pair each a round, so a round is
a few array operations however many documents there are. A block's randomness hangs on the seed, the pass and the
number of the block, and on nothing else.

References: Devlin et al., BERT, 2018, appendix A.2; create_pretraining_data.py in google-research/bert. One departure:
a random B is never taken from A's own document (the original gives up after ten draws).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator

    from bert_jax.data.pretraining.token_store import TokenStore

# Starts count tokens from the beginning of the corpus; label 0 = B follows A, 1 = B is random.
PAIR = np.dtype(
    [("a_start", np.int64), ("b_start", np.int64), ("a_length", np.int32), ("b_length", np.int32), ("label", np.int8)]
)
SPECIAL_TOKENS = 3  # [CLS] A [SEP] B [SEP]
BLOCK_DOCUMENTS = 65_536  # planned together


def plan_pairs(
    store: TokenStore, *, max_length: int, short_probability: float = 0.1, seed: int, pass_number: int
) -> Iterator[np.ndarray]:
    """Plans one pass over the corpus: before the cut, every sentence is in an A or in the B that follows it.

    Args:
        max_length: tokens of a pair, [CLS] and both [SEP] included; longer pairs are cut.
        short_probability: chance that a document aims at pairs of a random length in [2, max_length - 3] in this pass.

    Returns:
        Blocks, PAIR [pairs of the block], in the order of the corpus.

    Raises:
        ValueError: `max_length` leaves no room for a pair, or there are fewer than two documents.
    """
    check_lengths(max_length, short_probability)
    if store.num_documents < 2:
        raise ValueError(f"next-sentence prediction needs at least two documents, found {store.num_documents}")

    def block(number: int, first: int) -> np.ndarray:
        random = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, pass_number, number))))
        documents = np.arange(first, min(first + BLOCK_DOCUMENTS, store.num_documents))
        return _plan_block(store, documents, max_length - SPECIAL_TOKENS, short_probability, random)

    return (block(number, first) for number, first in enumerate(range(0, store.num_documents, BLOCK_DOCUMENTS)))


def check_lengths(max_length: int, short_probability: float) -> None:
    """Raises ValueError where no pair fits, or the probability is none."""
    if max_length < SPECIAL_TOKENS + 2:
        raise ValueError(f"max_length must be at least {SPECIAL_TOKENS + 2} to hold a pair, found {max_length}")
    if not 0 <= short_probability <= 1:
        raise ValueError(f"short_probability must lie in [0, 1], found {short_probability}")


def pair_lengths(pairs: np.ndarray) -> np.ndarray:
    """Returns the tokens of PAIR [N] with their special tokens, int64 [N]."""
    return pairs["a_length"].astype(np.int64) + pairs["b_length"] + SPECIAL_TOKENS


def _plan_block(
    store: TokenStore, document: np.ndarray, room: int, short_probability: float, random: np.random.Generator
) -> np.ndarray:
    """Plans the pairs of the documents [N], each of at most `room` tokens."""
    offsets = np.asarray(store.document_offsets)
    sentence, last = offsets[document], offsets[document + 1]
    short = random.random(document.size) < short_probability
    target = np.where(short, random.integers(2, room, document.size, endpoint=True), room)
    rounds = []
    while document.size:
        pairs, sentence = _plan_round(store, document, sentence, last, target, room, random)
        rounds.append(pairs)
        going = sentence < last
        document, sentence, last, target = document[going], sentence[going], last[going], target[going]
    pairs = np.concatenate(rounds)
    return pairs[np.argsort(pairs["a_start"])]


def _plan_round(
    store: TokenStore,
    document: np.ndarray,
    sentence: np.ndarray,
    last: np.ndarray,
    target: np.ndarray,
    room: int,
    random: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:
    """Plans the next pair of each document [N] from its next unread sentence; also returns where to read on."""
    tokens, documents = np.asarray(store.sentence_offsets), np.asarray(store.document_offsets)
    chunk_end = _accumulate(tokens, sentence, last, target)
    count = chunk_end - sentence
    a_end = sentence + 1 + random.integers(0, np.maximum(count - 1, 1))
    is_random = (count == 1) | (random.random(document.size) < 0.5)
    b_first, b_end = a_end.copy(), chunk_end.copy()

    chosen = np.flatnonzero(is_random)
    other = random.integers(0, store.num_documents - 1, chosen.size)
    other += other >= document[chosen]
    b_first[chosen] = random.integers(documents[other], documents[other + 1])
    missing = target[chosen] - (tokens[a_end[chosen]] - tokens[sentence[chosen]])
    b_end[chosen] = _accumulate(tokens, b_first[chosen], documents[other + 1], missing)

    pairs = np.empty(document.size, PAIR)
    pairs["label"] = is_random
    a_length, b_length = tokens[a_end] - tokens[sentence], tokens[b_end] - tokens[b_first]
    a_kept, b_kept = _cut(a_length, b_length, room)
    pairs["a_length"], pairs["b_length"] = a_kept, b_kept
    # Each token that goes comes off the front or the back with even odds.
    pairs["a_start"] = tokens[sentence] + random.binomial(a_length - a_kept, 0.5)
    pairs["b_start"] = tokens[b_first] + random.binomial(b_length - b_kept, 0.5)
    # After a random B the sentences that would have followed A are put back.
    return pairs, np.where(is_random, a_end, chunk_end)


def _accumulate(tokens: np.ndarray, first: np.ndarray, last: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Returns where sentences from `first` on hold `target` tokens: after one at the least, at `last` at the latest."""
    return np.clip(np.searchsorted(tokens, tokens[first] + target), first + 1, last)


def _cut(a_length: np.ndarray, b_length: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns what is left when tokens are dropped one by one from the longer segment (B in a tie) until both fit."""
    a_kept = np.minimum(a_length, np.maximum(room - b_length, (room + 1) // 2))
    return a_kept, np.minimum(b_length, room - a_kept)
