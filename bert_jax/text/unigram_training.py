"""Trains a Unigram vocabulary: the pieces under which the words of a corpus are most probable, reproducibly.

Candidates are the frequent substrings of the words. EM estimates their probabilities over all ways to split the words;
then the pieces that the words would miss least are dropped, a quarter at a time, until the vocabulary has its size.

The trainer of `tokenizers` adds floating-point numbers in the order of a randomly seeded hash table, so its scores
differ from process to process. Here all sums have a fixed order, in one thread.

Axes: C characters of all words, W words, N nodes, E edges, P pieces. A word of n characters has n + 1 nodes, the places
between its characters; an edge is a piece between two of them. "ab" has two paths with the pieces a, b and ab:

    node 0 --a-- node 1 --b-- node 2
    node 0 --------ab-------- node 2

References: Kudo, Subword Regularization, 2018, section 3.2; Kudo, Richardson, SentencePiece, 2018.
"""

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import digamma

from bert_jax.text.word_counts import split_counts

LONGEST_PIECE = 16  # characters
LONGEST_WORD = 32  # characters; longer words, as in text without spaces, are cut
MAX_CHARACTERS = 1 << 20  # C; the most frequent words are used, and rarer ones not
CANDIDATES = 20  # pieces before the first round, for each one to keep
KEPT = 0.75  # fraction of the pieces that a round keeps
ITERATIONS = 2  # of EM in a round
FEWEST = 0.5  # expected occurrences below which a piece is dropped


def train_unigram(words: pa.Table, size: int, min_frequency: int) -> list[tuple[str, float]]:
    """Returns pieces and their scores, log probabilities: the best first, ties by text.

    Args:
        words: their counts, see `word_counts.py`. All their characters become pieces.
        size: number of pieces, at least that of different characters; a small corpus gives fewer.
        min_frequency: minimum number of occurrences of a substring that becomes a piece.
    """
    texts, frequencies = _most_frequent(words)
    pieces, edges = _candidates(texts, frequencies, min_frequency, CANDIDATES * size)
    lengths = np.array(list(map(len, texts)))
    splits = Lattice.of(edges, lengths)
    mirrored = Lattice.of(edges.mirrored(lengths), lengths)
    replacements = Lattice.of(_replacements(edges, pieces, lengths), pieces.lengths)
    expected = pieces.counts
    while True:
        for _ in range(ITERATIONS):
            expected = _expected_counts(splits, mirrored, _scores(expected), frequencies)
            kept = (pieces.lengths == 1) | (expected >= FEWEST)
            expected = expected[kept]
            pieces = pieces.keep(kept)
            splits, mirrored = splits.keep(kept), mirrored.keep(kept)
            replacements = replacements.keep(kept, words=kept)
        scores = _scores(expected)
        if len(scores) <= size:
            break
        # Each occurrence of a dropped piece becomes the best sequence of other pieces.
        loss = expected * (scores - replacements.best(scores))
        order = np.lexsort((-np.round(loss, 6), pieces.lengths > 1))  # single characters first
        kept = np.zeros(len(loss), bool)
        kept[order[: max(size, int(KEPT * len(loss)))]] = True
        expected = expected[kept]
        pieces = pieces.keep(kept)
        splits, mirrored = splits.keep(kept), mirrored.keep(kept)
        replacements = replacements.keep(kept, words=kept)
    joined = "".join(texts)
    found = [joined[start : start + length] for start, length in zip(*pieces[:2], strict=True)]
    return sorted(zip(found, np.round(scores, 6).tolist(), strict=True), key=lambda piece: (-piece[1], piece[0]))


class Pieces(NamedTuple):
    """Pieces by their first occurrence: start and length in characters, int [P], and number of occurrences, [P]."""

    starts: np.ndarray
    lengths: np.ndarray
    counts: np.ndarray

    def keep(self, kept: np.ndarray) -> "Pieces":
        return Pieces(*(column[kept] for column in self))


class Edges(NamedTuple):
    """Where pieces are in words: the word, the first character in it, the number of characters, the piece, int [E]."""

    word: np.ndarray
    begin: np.ndarray
    length: np.ndarray
    piece: np.ndarray

    def mirrored(self, lengths: np.ndarray) -> "Edges":
        """Returns the edges of the words read backwards."""
        return self._replace(begin=lengths[self.word] - self.begin - self.length)


@dataclass(frozen=True)
class Lattice:
    """The edges of all words, by the depth of their ends in the word, then by their ends.

    Attributes:
        start, end: nodes, int [E].
        depth: characters before the end, int [E].
        word: int [E].
        piece: int [E].
        last: the last node of each word, int [W]; the first one is `num_characters` before it.
        num_nodes: N.
    """

    start: np.ndarray
    end: np.ndarray
    depth: np.ndarray
    word: np.ndarray
    piece: np.ndarray
    last: np.ndarray
    num_nodes: int

    @classmethod
    def of(cls, edges: Edges, lengths: np.ndarray) -> "Lattice":
        last = np.cumsum(lengths + 1) - 1
        start = (last - lengths)[edges.word] + edges.begin
        end = start + edges.length
        depth = edges.begin + edges.length
        order = np.lexsort((start, end, depth))

        def ordered(column: np.ndarray) -> np.ndarray:
            return column[order].astype(np.int32)

        return cls(
            start=ordered(start),
            end=ordered(end),
            depth=ordered(depth),
            word=ordered(edges.word),
            piece=ordered(edges.piece),
            last=last,
            num_nodes=int(lengths.sum()) + len(lengths),
        )

    def keep(self, kept: np.ndarray, words: np.ndarray | None = None) -> "Lattice":
        """Returns the lattice with some of the pieces, bool [P], and of the words, bool [W], numbered again."""
        edges = kept[self.piece]
        last = self.last
        word = self.word[edges]
        if words is not None:
            edges &= words[self.word]
            word = (np.cumsum(words, dtype=np.int32) - 1)[self.word[edges]]
            last = last[words]
        piece = (np.cumsum(kept, dtype=np.int32) - 1)[self.piece[edges]]
        return replace(
            self,
            start=self.start[edges], end=self.end[edges], depth=self.depth[edges], word=word, piece=piece, last=last,
        )  # fmt: skip

    def totals(self, scores: np.ndarray, combine: np.ufunc) -> np.ndarray:
        """Returns for each node what `combine` makes of the scores of the paths that lead to it, float64 [N].

        Args:
            scores: log probabilities of the pieces, float64 [P].
            combine: `np.logaddexp` for the probability of all paths, `np.maximum` for the best one.
        """
        totals = np.zeros(self.num_nodes)
        firsts = np.flatnonzero(np.diff(self.end, prepend=-1))  # the first edge to each node
        bounds = np.searchsorted(self.depth[firsts], np.arange(1, self.depth.max(initial=0) + 2))
        for begin, stop in pairwise(bounds.tolist()):
            if begin == stop:
                continue
            edges = slice(firsts[begin], firsts[stop] if stop < len(firsts) else None)
            values = totals[self.start[edges]] + scores[self.piece[edges]]
            totals[self.end[firsts[begin:stop]]] = combine.reduceat(values, firsts[begin:stop] - firsts[begin])
        return totals

    def best(self, scores: np.ndarray) -> np.ndarray:
        """Returns the score of the best path through each word, [W]."""
        return self.totals(scores, np.maximum)[self.last]


def _expected_counts(splits: Lattice, mirrored: Lattice, scores: np.ndarray, frequencies: np.ndarray) -> np.ndarray:
    """Returns how often each piece is expected in the words, float64 [P]: the E-step."""
    before = splits.totals(scores, np.logaddexp)
    after = mirrored.totals(scores, np.logaddexp)
    last = splits.last[splits.word]
    first = np.concatenate([[0], splits.last[:-1] + 1])[splits.word]
    path = before[splits.start] + scores[splits.piece] + after[first + last - splits.end] - before[last]
    return np.bincount(splits.piece, weights=np.exp(path) * frequencies[splits.word], minlength=len(scores))


def _scores(expected: np.ndarray) -> np.ndarray:
    """Returns the log probabilities of the pieces, as SentencePiece: digamma favours frequent pieces over rare ones."""
    counts = np.maximum(expected, FEWEST)
    return digamma(counts) - digamma(counts.sum())


def _most_frequent(words: pa.Table) -> tuple[list[str], np.ndarray]:
    """Returns words of up to LONGEST_WORD characters, the most frequent first, and their frequencies, float64 [W]."""
    ranked = split_counts(words, _cut).sort_by([("count", "descending"), ("word", "ascending")])
    total = np.cumsum(pc.call_function("utf8_length", [ranked["word"]]).to_numpy())
    used = ranked.slice(0, int(np.searchsorted(total, MAX_CHARACTERS, side="right")))
    return used["word"].to_pylist(), used["count"].to_numpy().astype(np.float64)


def _cut(word: str) -> list[str]:
    return [word[start : start + LONGEST_WORD] for start in range(0, len(word), LONGEST_WORD)]


def _candidates(texts: list[str], frequencies: np.ndarray, min_frequency: int, limit: int) -> tuple[Pieces, Edges]:
    """Returns all characters and the `limit` substrings with the most characters in the corpus, and their places.

    A substring of n + 1 characters is frequent only if both of its substrings of n characters are.
    """
    lengths = np.array(list(map(len, texts)))
    word = np.repeat(np.arange(len(texts)), lengths)  # [C]
    ends = np.cumsum(lengths)[word]
    codes = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32).astype(np.int64)
    _, number = np.unique(codes, return_inverse=True)  # [C], of the substring that starts here; -1 if it is rare
    places = np.arange(len(codes))
    found: list[tuple[Pieces, np.ndarray, np.ndarray]] = []  # pieces of each length; their places, and which is where
    for length in range(1, LONGEST_PIECE + 1):
        if length > 1:
            places = places[places + length <= ends[places]]
            places = places[(number[places] >= 0) & (number[places + 1] >= 0)]
            keys = number[places] * (number.max(initial=0) + 1) + number[places + 1]
            _, which = np.unique(keys, return_inverse=True)
        else:
            which = number
        counts = np.bincount(which, weights=frequencies[word[places]])
        kept = (counts >= min_frequency) | (length == 1)
        renumbered = np.cumsum(kept) - 1
        places, which = places[kept[which]], renumbered[which[kept[which]]]
        if not len(places):
            break
        _, first = np.unique(which, return_index=True)
        found.append((Pieces(places[first], np.full(len(first), length), counts[kept]), places, which))
        number = np.full(len(codes), -1)
        number[places] = which
    pieces = Pieces(*(np.concatenate(columns) for columns in zip(*(each[0] for each in found), strict=True)))
    before = np.cumsum([0, *(len(each[0].starts) for each in found)])
    piece = np.concatenate([which + shift for (_, _, which), shift in zip(found, before, strict=False)])
    place = np.concatenate([places for _, places, _ in found])
    many = pieces.counts * pieces.lengths
    order = np.lexsort((-many, pieces.lengths > 1))
    kept = np.zeros(len(order), bool)
    kept[order[: len(found[0][0].starts) + limit]] = True
    used = kept[piece]
    renumbered = np.cumsum(kept) - 1
    place, piece = place[used], renumbered[piece[used]]
    pieces = pieces.keep(kept)
    first = (np.cumsum(lengths) - lengths)[word[place]]
    return pieces, Edges(word[place], place - first, pieces.lengths[piece], piece)


def _replacements(edges: Edges, pieces: Pieces, lengths: np.ndarray) -> Edges:
    """Returns the edges within each piece, as a word, without the piece itself: what may replace it."""
    place = (np.cumsum(lengths) - lengths)[edges.word] + edges.begin
    order = np.argsort(place, kind="stable")
    rows = np.searchsorted(place[order], np.arange(lengths.sum() + 1))  # the first edge from each character
    owner = np.repeat(np.arange(len(pieces.starts)), pieces.lengths)  # each character of each piece
    begin = np.arange(len(owner)) - (np.cumsum(pieces.lengths) - pieces.lengths)[owner]
    character = pieces.starts[owner] + begin
    counts = rows[character + 1] - rows[character]
    within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    edge = order[np.repeat(rows[character], counts) + within]
    owner, begin = np.repeat(owner, counts), np.repeat(begin, counts)
    fits = (begin + edges.length[edge] <= pieces.lengths[owner]) & (edges.piece[edge] != owner)
    return Edges(owner[fits], begin[fits], edges.length[edge[fits]], edges.piece[edge[fits]])
