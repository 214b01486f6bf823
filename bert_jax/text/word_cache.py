"""A cache of the ids of words, for encoding a corpus an order of magnitude faster.

A few hundred words make up half of a text. The tokenizers of BERT, RoBERTa and XLM-R encode each word independently,
so the chunks between spaces can be encoded once and looked up: the ids are the same. Arrow splits texts and finds
repeated chunks. For BERT, a new chunk such as "movie," is split at ASCII punctuation, because its parts are mostly in
the cache already.

Chunks of "an old film", and what the pre-tokenizers make of each alone, as in the text:

    BertPreTokenizer                    an     old      film      an old film
    ByteLevel, Metaspace                an     old      film      Ġan Ġold Ġfilm     they put a space before a text
    ByteLevel without prefix space      an     " old"   " film"   an Ġold Ġfilm      so chunks keep theirs
"""

import re
from collections.abc import Callable
from itertools import chain, islice, repeat
from threading import Lock

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tokenizers
from tokenizers import models

from bert_jax.text.word_marks import METASPACE, is_wordpiece, steps

ASCII_WORD = re.compile(r"[^ !-/:-@\[-`{-~]+|[!-/:-@\[-`{-~]")
MAX_CHARACTERS = 1 << 21  # of the chunks in a cache; about 40 MB
# Normalizers that change each word independently, and never make a space or take one away.
IN_WORDS = {"NFC", "NFD", "Lowercase", "StripAccents"}
MAKES_SPACES = {"NFKC", "NFKD", "Nmt"}  # \u00b4 becomes a space and an accent


class WordCache:
    """Encodes texts like `backend`, which must read special tokens as text; thread-safe."""

    def __init__(self, backend: tokenizers.Tokenizer) -> None:
        self._backend = backend
        self._lock = Lock()
        self._space = space_of_chunks(backend)
        self._separable = self._space is not None
        self._words = _IdCache(self._encode_words)
        self._wordpiece = is_wordpiece(backend)
        if self._wordpiece:
            self._chunks = _IdCache(lambda chunks: self._words.encode(*self._split_at_punctuation(chunks)))
        else:
            self._chunks = _IdCache(self._encode_whole)

    def encode(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids of all texts, int32 [tokens], and the number of tokens of each text, int32 [texts]."""
        with self._lock:
            return self._chunks.encode(*self._split_at_spaces(texts))

    def _split_at_spaces(self, texts: list[str]) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Returns the chunks between spaces as the arguments of `_IdCache.encode`."""
        whole = [number for number, text in enumerate(texts) if not self._may_be_split(text)]
        split = texts.copy()
        for number in whole:
            split[number] = ""
        if self._space:
            split = [text.replace(" ", "\n ") for text in split]
        pattern = pc.SplitPatternOptions("\n" if self._space else " ")
        parts = pc.call_function("split_pattern", [pa.array(split, pa.string())], pattern)
        coded = parts.values.dictionary_encode()
        strings = coded.dictionary.to_pylist()
        which = coded.indices.to_numpy()
        ends = parts.offsets.to_numpy()
        if whole:
            which = which.copy()  # Arrow's memory is read-only
            which[ends[whole]] = len(strings) + np.arange(len(whole))
        return strings + [texts[number] for number in whole], which, ends

    def _split_at_punctuation(self, chunks: list[str]) -> tuple[list[str], np.ndarray, np.ndarray]:
        """Returns words and punctuation as the arguments of `_IdCache.encode`."""
        split = [ASCII_WORD.findall(chunk) if self._may_be_split(chunk) else [chunk] for chunk in chunks]
        strings = list(chain.from_iterable(split))
        return strings, np.arange(len(strings)), np.cumsum(np.array([0, *map(len, split)], np.int64))

    def _may_be_split(self, text: str) -> bool:
        # The plain space is the only printable space character; texts with others are not split.
        if not (self._separable and text.isprintable()):
            return False
        # Only BERT's tokenizer reads several spaces like one.
        return self._wordpiece or not ("  " in text or text[:1] == " " or text[-1:] == " " or METASPACE in text)

    def _encode_whole(self, texts: list[str]) -> tuple[np.ndarray, np.ndarray]:
        ids = [encoding.ids for encoding in self._backend.encode_batch_fast(texts, add_special_tokens=False)]
        return np.array(list(chain.from_iterable(ids)), np.int32), np.array(list(map(len, ids)), np.int32)

    def _encode_words(self, words: list[str]) -> tuple[np.ndarray, np.ndarray]:
        """Encodes words; plain ones by the WordPiece model alone, which takes a seventh of the time."""
        plain = [self._separable and word.isascii() and word.isalnum() for word in words]
        others = [word for word, is_plain in zip(words, plain, strict=True) if not is_plain]
        of_others = iter(self._backend.encode_batch_fast(others, add_special_tokens=False))
        model = self._backend.model
        lower = getattr(self._backend.normalizer, "lowercase", False)
        encoded = [
            [piece.id for piece in model.tokenize(word.lower() if lower else word)] if is_plain else next(of_others).ids
            for word, is_plain in zip(words, plain, strict=True)
        ]
        return np.array(list(chain.from_iterable(encoded)), np.int32), np.array(list(map(len, encoded)), np.int32)


class _IdCache:
    """The ids of strings, each encoded once: string n has `ids[offsets[n]:offsets[n + 1]]`."""

    def __init__(self, encode_new: Callable[[list[str]], tuple[np.ndarray, np.ndarray]]) -> None:
        self._encode_new = encode_new
        self._numbers: dict[str, int] = {}
        self._ids = np.zeros(0, np.int32)
        self._offsets = np.zeros(1, np.int64)
        self.characters = 0

    def encode(self, strings: list[str], which: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Encodes texts made of strings: text i is `strings[n] for n in which[ends[i]:ends[i + 1]]`.

        For the texts "a b a" and "b": strings a b, which 0 1 0 1, ends 0 3 4.

        Args:
            which: int, indices into `strings`.
            ends: int [texts + 1].

        Returns:
            The ids of all texts, int32 [tokens], and the number of tokens of each text, int32 [texts].
        """
        if self.characters > MAX_CHARACTERS:
            self._drop_newer_half()
        numbers = np.fromiter(map(self._numbers.get, strings, repeat(-1)), np.int64, len(strings))
        unknown = np.flatnonzero(numbers < 0)
        if unknown.size:
            new = [strings[i] for i in unknown.tolist()]
            self._add(list(dict.fromkeys(new)))
            numbers[unknown] = [self._numbers[string] for string in new]
        numbers = numbers[which]
        first = self._offsets[numbers]
        counts = self._offsets[numbers + 1] - first
        before = np.cumsum(np.concatenate([[0], counts]))
        places = np.repeat(first - before[:-1], counts) + np.arange(before[-1])
        return self._ids[places], np.diff(before[ends]).astype(np.int32)

    def _add(self, new: list[str]) -> None:
        ids, lengths = self._encode_new(new)
        self._numbers.update(zip(new, range(len(self._numbers), len(self._numbers) + len(new)), strict=True))
        self._ids = np.concatenate([self._ids, ids])
        self._offsets = np.concatenate([self._offsets, self._offsets[-1] + np.cumsum(lengths, dtype=np.int64)])
        self.characters += sum(map(len, new))

    def _drop_newer_half(self) -> None:
        """Keeps the older half of the strings: frequent ones occur early."""
        kept = len(self._numbers) // 2
        self._numbers = dict(islice(self._numbers.items(), kept))
        self._ids = self._ids[: self._offsets[kept]]
        self._offsets = self._offsets[: kept + 1]
        self.characters = sum(map(len, self._numbers))


def space_of_chunks(backend: tokenizers.Tokenizer) -> str | None:
    """Returns what must be before a chunk of a text for it to get the ids that it has there: nothing, or its space.

    None: the tokenizer may encode a word otherwise in another text.
    """
    if not all(token.special for token in backend.get_added_tokens_decoder().values()):
        return None
    normalizer = {step["type"] for step in steps(backend.normalizer)}
    splitter = steps(backend.pre_tokenizer)
    types = [step["type"] for step in splitter]
    model = backend.model
    if isinstance(model, models.WordPiece):
        return "" if normalizer == {"BertNormalizer"} and types == ["BertPreTokenizer"] else None
    if not isinstance(model, models.BPE | models.Unigram) or getattr(model, "dropout", None):
        return None
    if types == ["ByteLevel"] and splitter[0]["use_regex"] and normalizer <= IN_WORDS:
        return "" if splitter[0]["add_prefix_space"] else " "
    if types == ["WhitespaceSplit", "Metaspace"] and normalizer <= IN_WORDS | MAKES_SPACES:
        return "" if splitter[1]["prepend_scheme"] == "always" else None
    if types == ["Metaspace"] and splitter[0]["split"] and normalizer <= IN_WORDS:
        return {"always": "", "never": " "}.get(splitter[0]["prepend_scheme"])
    return None


def separable(backend: tokenizers.Tokenizer) -> bool:
    """Returns whether the tokenizer encodes each word independently of its text."""
    return space_of_chunks(backend) is not None
