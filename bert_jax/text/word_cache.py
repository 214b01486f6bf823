"""Words into ids, each encoded once.

Half of a text is made of a few hundred words. BERT's tokenizer looks at one word at a time and at each of its
characters by itself, so what stands between spaces may be encoded alone, kept, and looked up: the ids are the same, and
a corpus is read an order of magnitude faster. Arrow splits texts and finds what is in them more than once. What was not
met yet, as in "movie,", is put together from what stands between ASCII punctuation, which has mostly been met.
"""

from __future__ import annotations

import re
from itertools import chain, islice, repeat
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from tokenizers import models, normalizers, pre_tokenizers

if TYPE_CHECKING:
    from collections.abc import Callable

    import tokenizers

_WORD = re.compile(r"[^ !-/:-@\[-`{-~]+|[!-/:-@\[-`{-~]")
KEPT_CHARACTERS = 1 << 21  # between spaces, and as many between punctuation; some 40 MB each


class Words:
    """Encodes texts as `backend` does, which reads special tokens as text; several threads may use it."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend, self._lock, self._separable = backend, Lock(), separable(backend)
        self._words = _Kept(self._ask)
        self._chunks = _Kept(lambda chunks: self._words.encode(*self._between_punctuation(chunks)))

    def encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids of all texts, int32 [tokens], and how many each has, int32 [texts]."""
        with self._lock:
            return self._chunks.encode(*self._between_spaces(texts))

    def _between_spaces(self, texts: list[str]) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Returns what stands between spaces, as `_Kept.encode` takes it."""
        whole = [number for number, text in enumerate(texts) if not self._may_be_split(text)]
        split = texts.copy()
        for number in whole:
            split[number] = ""
        parts = pc.call_function("split_pattern", [pa.array(split, pa.string())], pc.SplitPatternOptions(" "))
        coded = parts.values.dictionary_encode()
        strings, which, ends = coded.dictionary.to_pylist(), coded.indices.to_numpy(), parts.offsets.to_numpy()
        if whole:
            which = which.copy()  # Arrow's own is not to be written
            which[ends[whole]] = len(strings) + np.arange(len(whole))
        return strings + [texts[number] for number in whole], which, ends

    def _between_punctuation(self, chunks: list[str]) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Returns words and punctuation, as `_Kept.encode` takes them."""
        split = [_WORD.findall(chunk) if self._may_be_split(chunk) else [chunk] for chunk in chunks]
        strings = list(chain.from_iterable(split))
        return strings, np.arange(len(strings)), np.cumsum(np.array([0, *map(len, split)], np.int64))

    def _may_be_split(self, text: str) -> bool:
        # Of the characters that count as space somewhere the plain one alone is printable; other texts are kept whole.
        return self._separable and text.isprintable()

    def _ask(self, words: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Has new words encoded; of plain ones the model itself is asked, which takes a seventh of the time."""
        plain = [self._separable and word.isascii() and word.isalnum() for word in words]
        others = [word for word, is_plain in zip(words, plain, strict=True) if not is_plain]
        of_others = iter(self._backend.encode_batch_fast(others, add_special_tokens=False))
        model, lower = self._backend.model, getattr(self._backend.normalizer, "lowercase", False)
        encoded = [
            [piece.id for piece in model.tokenize(word.lower() if lower else word)] if is_plain else next(of_others).ids
            for word, is_plain in zip(words, plain, strict=True)
        ]
        return np.array(list(chain.from_iterable(encoded)), np.int32), np.array(list(map(len, encoded)), np.int32)


class _Kept:
    """The ids of strings, which are asked for once: string n has ids[offsets[n]:offsets[n + 1]]."""

    def __init__(self, ask: Callable[[list[str]], tuple[np.ndarray, np.ndarray]]) -> None:
        self._ask, self._numbers = ask, dict[str, int]()
        self._ids, self._offsets = np.zeros(0, np.int32), np.zeros(1, np.int64)
        self.characters = 0

    def encode(self, strings: list[str], which: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Encodes texts that are made of strings: text i is those that `which[ends[i]:ends[i + 1]]` names.

        Args:
            which: int [any], places in `strings`.
            ends: int [texts + 1].

        Returns:
            The ids of all texts, int32 [tokens], and how many each has, int32 [texts].
        """
        if self.characters > KEPT_CHARACTERS:
            self._forget()
        numbers = np.fromiter(map(self._numbers.get, strings, repeat(-1)), np.int64, len(strings))
        if (unknown := np.flatnonzero(numbers < 0)).size:
            new = [strings[i] for i in unknown.tolist()]
            self._learn(list(dict.fromkeys(new)))
            numbers[unknown] = [self._numbers[string] for string in new]
        numbers = numbers[which]
        first = self._offsets[numbers]
        counts = self._offsets[numbers + 1] - first
        before = np.cumsum(np.concatenate([[0], counts]))
        places = np.repeat(first - before[:-1], counts) + np.arange(before[-1])
        return self._ids[places], np.diff(before[ends]).astype(np.int32)

    def _learn(self, new: list[str]) -> None:
        ids, lengths = self._ask(new)
        self._numbers.update(zip(new, range(len(self._numbers), len(self._numbers) + len(new)), strict=True))
        self._ids = np.concatenate([self._ids, ids])
        self._offsets = np.concatenate([self._offsets, self._offsets[-1] + np.cumsum(lengths, dtype=np.int64)])
        self.characters += sum(map(len, new))

    def _forget(self) -> None:
        """Keeps the older half: what is met often is met early."""
        kept = len(self._numbers) // 2
        self._numbers = dict(islice(self._numbers.items(), kept))
        self._ids, self._offsets = self._ids[: self._offsets[kept]], self._offsets[: kept + 1]
        self.characters = sum(map(len, self._numbers))


def separable(backend: tokenizers.Tokenizer) -> bool:
    """Says whether a text's ids are those of its words."""
    return (
        isinstance(backend.model, models.WordPiece)
        and isinstance(backend.normalizer, normalizers.BertNormalizer)
        and isinstance(backend.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
        and all(token.special for token in backend.get_added_tokens_decoder().values())
    )
