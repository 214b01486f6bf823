"""The Unigram trainer: expected counts and best paths equal those of all ways to split a word, written out."""

import itertools
import math
import random

import numpy as np
import pyarrow as pa
import pytest

from bert_jax.text import unigram_training as module
from bert_jax.text.unigram_training import train_unigram
from bert_jax.text.word_counts import SCHEMA

WORDS = {"▁banana": 5, "▁bandana": 3, "▁an": 11, "▁nab": 2, "▁cabana": 7, "x" * 5: 1}
TOLERANCE = 1e-9


def table(words):
    return pa.table({"word": [*words], "count": [*words.values()]}, schema=SCHEMA)


def splits(word, pieces):
    """All ways to write a word as pieces."""
    for cuts in itertools.product([False, True], repeat=len(word) - 1):
        places = [0, *(i + 1 for i, cut in enumerate(cuts) if cut), len(word)]
        parts = [word[a:b] for a, b in itertools.pairwise(places)]
        if all(part in pieces for part in parts):
            yield parts


def prepared(min_frequency=3, limit=1000):
    texts, frequencies = module._most_frequent(table(WORDS))
    pieces, edges = module._candidates(texts, frequencies, min_frequency, limit)
    joined = "".join(texts)
    names = [joined[start : start + length] for start, length in zip(*pieces[:2], strict=True)]
    lengths = np.array(list(map(len, texts)))
    return texts, frequencies, pieces, edges, names, lengths


def test_candidates_are_the_characters_and_the_frequent_substrings():
    counts = {}
    for word, count in WORDS.items():
        for start, stop in itertools.combinations(range(len(word) + 1), 2):
            counts[word[start:stop]] = counts.get(word[start:stop], 0) + count
    *_, pieces, _, names, _ = prepared()
    wanted = {piece: count for piece, count in counts.items() if count >= 3 or len(piece) == 1}
    assert dict(zip(names, pieces.counts.tolist(), strict=True)) == wanted
    *_, few, _ = prepared(limit=2)
    characters = {character for word in WORDS for character in word}
    longest = sorted(set(wanted) - characters, key=lambda piece: -wanted[piece] * len(piece))[:2]
    assert set(few) == characters | set(longest)


def test_expected_counts_and_best_paths_are_those_of_all_splits():
    texts, frequencies, pieces, edges, names, lengths = prepared()
    scores = np.log(np.random.default_rng(5).dirichlet(np.ones(len(names))))
    probability = dict(zip(names, np.exp(scores), strict=True))
    lattice = module.Lattice.of(edges, lengths)
    mirrored = module.Lattice.of(edges.mirrored(lengths), lengths)
    wanted = dict.fromkeys(names, 0.0)
    best = []
    for word, frequency in zip(texts, frequencies, strict=True):
        weights = {tuple(split): math.prod(probability[part] for part in split) for split in splits(word, probability)}
        best.append(math.log(max(weights.values())))
        for split, weight in weights.items():
            for part in split:
                wanted[part] += frequency * weight / sum(weights.values())
    found = module._expected_counts(lattice, mirrored, scores, frequencies)
    np.testing.assert_allclose(found, [wanted[name] for name in names], rtol=TOLERANCE)
    np.testing.assert_allclose(lattice.best(scores), best, rtol=TOLERANCE)
    replaced = module.Lattice.of(module._replacements(edges, pieces, lengths), pieces.lengths).best(scores)
    for name, found in zip(names, replaced.tolist(), strict=True):
        if len(name) > 1:
            others = [split for split in splits(name, probability) if len(split) > 1]
            assert found == pytest.approx(
                max(sum(math.log(probability[part]) for part in split) for split in others), rel=TOLERANCE
            )


def test_dropped_pieces_and_words_leave_the_lattice_of_the_others():
    _, _, _, edges, names, lengths = prepared()
    scores = np.log(np.random.default_rng(6).dirichlet(np.ones(len(names))))
    lattice = module.Lattice.of(edges, lengths)
    kept = np.array([len(name) != 2 for name in names])
    words = np.array([True, False, True, True, False, True])
    smaller = lattice.keep(kept, words=words)
    np.testing.assert_allclose(smaller.best(scores[kept]), lattice.keep(kept).best(scores[kept])[words])
    assert (lattice.keep(kept).best(scores[kept]) <= lattice.best(scores)).all()


def test_the_vocabulary_has_its_size_all_characters_and_useful_pieces():
    draw = random.Random(3)
    stems = ["play", "walk", "jump", "count"]
    words = {f"▁{stem}{end}": draw.randint(5, 50) for stem in stems for end in ("", "s", "ed", "ing", "er")}
    characters = {character for word in words for character in word}
    pieces = train_unigram(table(words), len(characters) + 8, 2)
    assert len(pieces) == len(characters) + 8
    assert characters <= {piece for piece, _ in pieces}
    assert {f"▁{stem}" for stem in stems} <= {piece for piece, _ in pieces}
    assert [score for _, score in pieces] == sorted((score for _, score in pieces), reverse=True)
    assert sum(math.exp(score) for _, score in pieces) == pytest.approx(1, abs=0.05)
    assert len(train_unigram(table(words), 1000, 2)) < 300  # a small corpus has no more


def test_the_order_of_the_words_does_not_matter():
    shuffled = dict(sorted(WORDS.items(), key=lambda item: hash(item[0][::-1])))
    assert train_unigram(table(shuffled), 15, 2) == train_unigram(table(WORDS), 15, 2)


def test_long_words_are_cut_and_rare_words_left_out(monkeypatch):
    monkeypatch.setattr(module, "LONGEST_WORD", 4)
    texts, frequencies = module._most_frequent(table({"abcdabcdab": 3, "ab": 5}))
    assert (texts, frequencies.tolist()) == (["ab", "abcd"], [8.0, 6.0])
    monkeypatch.setattr(module, "MAX_CHARACTERS", 5)
    assert module._most_frequent(table({"abcdabcdab": 3, "ab": 5}))[0] == ["ab"]
