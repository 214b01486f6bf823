"""Words into ids, each encoded once.

Half of a text is made of a few hundred words. BERT's tokenizer looks at one word at a time and at each of its
characters by itself, so what stands between spaces and ASCII punctuation may be encoded alone, kept, and looked up: the
ids are the same, and a corpus is read an order of magnitude faster.
"""

from __future__ import annotations

import re
from itertools import chain, repeat
from threading import Lock
from typing import TYPE_CHECKING

import numpy as np
from tokenizers import models, normalizers, pre_tokenizers

if TYPE_CHECKING:
    import tokenizers

_WORD = re.compile(r"[^ !-/:-@\[-`{-~]+|[!-/:-@\[-`{-~]")
KEPT_CHARACTERS = 1 << 20  # of words; some 20 MB


class Words:
    """Encodes texts as `backend` does, which reads special tokens as text; several threads may use it."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend, self._lock, self._separable = backend, Lock(), separable(backend)
        self._forget()

    def encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids of all texts, int32 [tokens], and how many each has, int32 [texts]."""
        # Of the characters that count as space somewhere the plain one alone is printable; other texts are kept whole.
        split = [_WORD.findall(text) if self._separable and text.isprintable() else [text] for text in texts]
        words = list(chain.from_iterable(split))
        with self._lock:
            if self._characters > KEPT_CHARACTERS:
                self._forget()
            numbers = np.fromiter(map(self._numbers.get, words, repeat(-1)), np.int64, len(words))
            if (unknown := np.flatnonzero(numbers < 0)).size:
                new = [words[i] for i in unknown.tolist()]
                self._learn(list(set(new)))
                numbers[unknown] = [self._numbers[word] for word in new]
            ids, offsets = self._ids, self._offsets
        counts = offsets[numbers + 1] - offsets[numbers]
        before = np.cumsum(np.concatenate([[0], counts]))
        places = np.repeat(offsets[numbers] - before[:-1], counts) + np.arange(before[-1])
        ends = np.cumsum(np.array([0, *map(len, split)], np.int64))
        return ids[places], np.diff(before[ends]).astype(np.int32)

    def _learn(self, new: list[str]) -> None:
        encoded = [encoding.ids for encoding in self._backend.encode_batch_fast(new, add_special_tokens=False)]
        self._numbers.update(zip(new, range(len(self._numbers), len(self._numbers) + len(new)), strict=True))
        self._ids = np.concatenate([self._ids, np.array(list(chain.from_iterable(encoded)), np.int32)])
        lengths = np.array([len(ids) for ids in encoded], np.int64)
        self._offsets = np.concatenate([self._offsets, self._offsets[-1] + np.cumsum(lengths)])
        self._characters += sum(map(len, new))

    def _forget(self) -> None:
        self._numbers: dict[str, int] = {}
        self._ids, self._offsets = (
            np.zeros(0, np.int32),
            np.zeros(1, np.int64),
        )  # word n: ids[offsets[n]:offsets[n + 1]]
        self._characters = 0


def separable(backend: tokenizers.Tokenizer) -> bool:
    """Says whether a text's ids are those of its words."""
    return (
        isinstance(backend.model, models.WordPiece)
        and isinstance(backend.normalizer, normalizers.BertNormalizer)
        and isinstance(backend.pre_tokenizer, pre_tokenizers.BertPreTokenizer)
        and all(token.special for token in backend.get_added_tokens_decoder().values())
    )
