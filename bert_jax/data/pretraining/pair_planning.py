"""Plans sentence pairs for next-sentence prediction from sentence lengths alone, for `plan_sequences`.

All documents of a block advance in lockstep, one pair per round, so a round is a few array operations for any number of
documents.

Two rounds of a document with sentences of 5, 3, 4, 6 and 2 tokens (offsets 0 5 8 12 18 20), `max_length` 15, which
leaves room for 12 tokens:
    round 1  starts at sentence 0. Sentences 0, 1, 2 reach 12 tokens and are the chunk; it is split after sentence 1.
             A = tokens 0..8. Either B = tokens 8..12 (label 0), and the next round starts at sentence 3; or B =
             sentences of another document, until they reach 4 tokens or its end (label 1), and the
             next round starts at sentence 2, which is unused.
    round 2  from sentence 3: sentences 3 and 4, 8 tokens, end the document. A = tokens 12..18, B = tokens 18..20 or
             random. With a random B sentence 4 is left for a round 3, where B is always random: nothing follows it.

Axes: N documents, or pairs, of a block.

References: Devlin et al., BERT, 2018, appendix A.2; create_pretraining_data.py in google-research/bert. One departure:
a random B is never taken from A's document (the original gives up after ten draws).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bert_jax.data.pretraining.sequences import SEQUENCE, draw_targets

if TYPE_CHECKING:  # so that rows can be described without `datasets`
    from bert_jax.data.pretraining.token_store import TokenStore


class _Unread(NamedTuple):
    """Documents with sentences left: int [N] each."""

    document: np.ndarray
    sentence: np.ndarray  # the next one to read
    end: np.ndarray  # one past the document's last sentence
    target: np.ndarray  # tokens of A and B together that a pair aims at


def plan_pairs(
    store: TokenStore, document: np.ndarray, room: int, short_probability: float, random: np.random.Generator
) -> np.ndarray:
    """Plans the pairs of the documents [N]: every sentence is in an A or in the B that follows it, before truncation.

    Args:
        room: maximum number of tokens of A and B together; longer pairs are truncated.
        short_probability: probability that a document's pairs get a random target length in [2, room].

    Returns:
        SEQUENCE, in the order of the corpus. No segment is empty.
    """
    offsets = np.asarray(store.document_offsets)
    target = draw_targets(document.size, room, short_probability, random)
    unread = _Unread(document, offsets[document], offsets[document + 1], target)
    rounds = []
    while unread.document.size:
        pairs, sentence = _plan_round(store, unread, room, random)
        rounds.append(pairs)
        more = sentence < unread.end
        unread = _Unread(*(values[more] for values in unread._replace(sentence=sentence)))
    pairs = np.concatenate(rounds)
    return pairs[np.argsort(pairs["a_start"])]


def _plan_round(
    store: TokenStore, unread: _Unread, room: int, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the next pair of each document, SEQUENCE [N], and the sentence from which the next round reads, [N]."""
    tokens = np.asarray(store.sentence_offsets)
    sentence = unread.sentence
    chunk_end = _reach(tokens, sentence, unread.end, unread.target)
    count = chunk_end - sentence
    a_end = sentence + 1 + random.integers(0, np.maximum(count - 1, 1))  # a chunk of one sentence is all A
    is_random = (count == 1) | (random.random(len(count)) < 0.5)
    b_first = a_end.copy()
    b_end = chunk_end.copy()
    # With a random B the chunk's other sentences are not used: the next round starts at them.
    chosen = np.flatnonzero(is_random)
    missing = unread.target[chosen] - (tokens[a_end[chosen]] - tokens[sentence[chosen]])
    b_first[chosen], b_end[chosen] = _random_segments(store, unread.document[chosen], missing, random)

    a_length = tokens[a_end] - tokens[sentence]
    b_length = tokens[b_end] - tokens[b_first]
    a_kept, b_kept = _truncate(a_length, b_length, room)
    pairs = np.empty(len(count), SEQUENCE)
    pairs["label"] = is_random
    pairs["a_length"] = a_kept
    pairs["b_length"] = b_kept
    # Each dropped token comes off the front or the back with equal probability.
    pairs["a_start"] = tokens[sentence] + random.binomial(a_length - a_kept, 0.5)
    pairs["b_start"] = tokens[b_first] + random.binomial(b_length - b_kept, 0.5)
    return pairs, np.where(is_random, a_end, chunk_end)


def _random_segments(
    store: TokenStore, document: np.ndarray, missing: np.ndarray, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the first and the end sentence, [N], of segments of about `missing` tokens from other documents."""
    documents = np.asarray(store.document_offsets)
    other = random.integers(0, store.num_documents - 1, document.size)
    other += other >= document  # skips the document itself
    first = random.integers(documents[other], documents[other + 1])
    return first, _reach(np.asarray(store.sentence_offsets), first, documents[other + 1], missing)


def _reach(tokens: np.ndarray, first: np.ndarray, end: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Returns where the sentences from `first` on reach `target` tokens: after at least one, at `end` at the latest."""
    return np.clip(np.searchsorted(tokens, tokens[first] + target), first + 1, end)


def _truncate(a_length: np.ndarray, b_length: np.ndarray, room: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns the lengths after tokens are dropped one by one from the longer segment (B in a tie) until both fit.

    Lengths 9 and 7 in a room of 12: 8 7, 7 7, 7 6, 6 6. Lengths 9 and 2: nothing is dropped.
    """
    a_kept = np.minimum(a_length, np.maximum(room - b_length, (room + 1) // 2))
    return a_kept, np.minimum(b_length, room - a_kept)
