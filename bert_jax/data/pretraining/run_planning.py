"""Plans runs of consecutive sentences for masked words alone, as in RoBERTa, from sentence lengths alone.

The runs of a pass tile the corpus: every token is in exactly one of them, and no run has tokens of two documents. A run
ends at the last border of a sentence that its target length permits. All documents of a block advance in lockstep, one
run per round.

A document with sentences of 5, 3, 4, 6 and 2 tokens (borders 0 5 8 12 18 20) in a room of 12 tokens:
    pass 0   the first run aims at 9 tokens: 0..8; the others at 12: 8..20.
    pass 1   the first run aims at 6 tokens: 0..5; the others at 12: 5..12 (the next border, 18, is too far), 12..20.
A random first target moves the borders of all later runs from pass to pass. A document that fits into one run is not
cut. A sentence that is longer than a row is cut where the run is full.

Axes: N documents of a block.

Reference: Liu et al., RoBERTa, 2019, section 4.2, "DOC-SENTENCES".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from bert_jax.data.pretraining.sequences import SEQUENCE, draw_targets

if TYPE_CHECKING:  # so that rows can be described without `datasets`
    from bert_jax.data.pretraining.token_store import TokenStore


def plan_runs(
    store: TokenStore, document: np.ndarray, room: int, short_probability: float, random: np.random.Generator
) -> np.ndarray:
    """Plans the runs of the documents [N], each run with at most `room` tokens, SEQUENCE without B.

    Args:
        short_probability: probability that a document's runs get a random target length in [2, room].
    """
    borders = np.asarray(store.sentence_offsets)
    sentences = np.asarray(store.document_offsets)
    start = borders[sentences[document]]  # [N], the next token to read
    end = borders[sentences[document + 1]]
    target = draw_targets(document.size, room, short_probability, random)
    first_target = random.integers(1, target, endpoint=True)
    aim = np.where(end - start > target, first_target, target)
    rounds = []
    while start.size:
        stop = _run_end(borders, start, end, aim, room)
        runs = np.zeros(start.size, SEQUENCE)
        runs["a_start"] = start
        runs["a_length"] = stop - start
        rounds.append(runs)
        more = stop < end
        start = stop[more]
        end = end[more]
        target = target[more]
        aim = target
    runs = np.concatenate(rounds)
    return runs[np.argsort(runs["a_start"])]


def _run_end(borders: np.ndarray, start: np.ndarray, end: np.ndarray, aim: np.ndarray, room: int) -> np.ndarray:
    """Returns where the runs from `start` on end, [N]: at most `aim` tokens later, or after one longer sentence."""
    after = np.searchsorted(borders, start, side="right")  # the first border behind `start`
    last = np.searchsorted(borders, start + aim, side="right") - 1
    stop = np.minimum(borders[np.maximum(last, after)], end)
    return np.where(stop - start <= room, stop, start + aim)
