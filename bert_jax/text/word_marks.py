"""Where words begin: in the vocabulary, by the marks of its pieces, and in a text, by its characters.

    WordPiece             un ##believ ##able     ## marks a piece that continues a word
    Unigram, Metaspace    ▁un believ able        ▁ marks a piece that begins one
    byte-level BPE        Ġun believ able        Ġ marks a piece that begins one

▁ and Ġ stand for the space before a word. So punctuation belongs to the word before it, and so do Chinese characters:
only BERT's own tokenizer makes each of them a word. The first word of a text has no mark if the tokenizer adds no space
(`add_prefix_space` false); in a corpus it counts as the end of the sentence before. Pieces without any marks, as of a
BPE that marks the ends of words, count as whole words.
"""

import json
import unicodedata
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import tokenizers
from tokenizers import models

BYTE_LEVEL = "\u0120"  # a space as ByteLevel writes it
METASPACE = "\u2581"
# Blocks of Chinese characters, as in BERT's tokenizer.
CHINESE = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F))


def continuing_pieces(backend: tokenizers.Tokenizer, tokens: Sequence[str], special: Collection[str]) -> np.ndarray:
    """Returns whether each piece continues a word, bool [V]; special tokens do not.

    Args:
        tokens: the pieces, by id.
    """
    prefix = getattr(backend.model, "continuing_subword_prefix", None)
    if prefix:
        return np.array([token.startswith(prefix) and token not in special for token in tokens])
    mark = _mark(backend)
    if mark is None:
        return np.zeros(len(tokens), bool)
    return np.array([not token.startswith(mark) and token not in special for token in tokens])


def lacks_prefix_space(backend: tokenizers.Tokenizer) -> bool:
    """Returns whether a word alone is encoded otherwise than in a text, because no space is put before it."""
    for part in _parts(backend):
        if part["type"] == "ByteLevel" and not part.get("add_prefix_space", True):
            return True
        if part["type"] == "Metaspace" and part.get("prepend_scheme") == "never":
            return True
    return False


def kind_of(backend: tokenizers.Tokenizer) -> str:
    """Returns the kind of a tokenizer by its usual name: `WordPiece`, `byte-level BPE`, `Unigram`, ..."""
    name = type(backend.model).__name__
    return f"byte-level {name}" if any(part["type"] == "ByteLevel" for part in _parts(backend)) else name


def is_wordpiece(backend: tokenizers.Tokenizer) -> bool:
    """Returns whether the tokenizer has a WordPiece model."""
    return isinstance(backend.model, models.WordPiece)


def trimmed(text: str, offsets: np.ndarray) -> np.ndarray:
    """Returns the offsets of tokens without white space at their ends, int [n, 2].

    The token ▁owl of "an owl" has the characters 2 to 6 with its space, and 3 to 6 without. A token of white space
    alone begins where the next other character begins, and ends where the last one before it ends: so no span of tokens
    has white space at its ends.
    """
    space = np.fromiter(map(str.isspace, text), bool, len(text))
    index = np.arange(len(text) + 1)
    following = np.where(np.append(space, False), len(text), index)
    following = np.minimum.accumulate(following[::-1])[::-1]  # the first character from there on that is no space
    before = np.maximum.accumulate(np.where(np.append(False, space), 0, index))
    start, end = offsets.T
    return np.stack([following[start], before[end]], axis=1)


def word_starts(text: str, offsets: np.ndarray) -> np.ndarray:
    """Returns whether each token begins a word of a text, bool [n]: words as BERT's own tokenizer splits them.

    A word begins after white space, and at and after a punctuation mark or a Chinese character. A token that begins
    where the one before it does, as the bytes of one letter, begins no word.

    Args:
        offsets: int [n, 2], `trimmed`.
    """
    starts = offsets[:, 0].tolist()
    found = np.zeros(len(starts), bool)
    for number, start in enumerate(starts):
        moved = number == 0 or start > starts[number - 1]
        found[number] = moved and (
            start in (0, len(text)) or text[start - 1].isspace() or _alone(text[start]) or _alone(text[start - 1])
        )
    found[:1] = True
    return found


def _alone(character: str) -> bool:
    """Returns whether a character is a word by itself."""
    if character.isalnum():
        return any(first <= ord(character) <= last for first, last in CHINESE)
    ascii_mark = "!" <= character <= "~"
    return ascii_mark or unicodedata.category(character).startswith("P")


def _mark(backend: tokenizers.Tokenizer) -> str | None:
    """Returns what begins the pieces that begin a word, or None without such a mark."""
    for part in _parts(backend):
        if part["type"] == "ByteLevel":
            return BYTE_LEVEL
        if part["type"] == "Metaspace":
            return part.get("replacement", METASPACE)
        if part["type"] == "Replace" and part.get("pattern") == {"String": " "} and part.get("content") == METASPACE:
            return METASPACE
    return None


def _parts(backend: tokenizers.Tokenizer) -> list[dict[str, Any]]:
    """Returns the steps of the pre-tokenizer and of the normalizer."""
    return [*steps(backend.pre_tokenizer), *steps(backend.normalizer)]


def steps(part: Any) -> list[dict[str, Any]]:
    """Returns the steps of a pre-tokenizer or normalizer as JSON, those of sequences one by one; none of None."""
    return [] if part is None else [*_flat(json.loads(part.__getstate__()))]


def _flat(state: dict[str, Any]) -> Iterator[dict[str, Any]]:
    if state["type"] == "Sequence":
        for part in state.get("pretokenizers") or state.get("normalizers") or ():
            yield from _flat(part)
    else:
        yield state
