"""Splits the text of a document into sentences.

sentencex handles punctuation and the abbreviations of many languages. It does not know what a line break means: nothing
in text wrapped at a fixed width, the end of a sentence or paragraph elsewhere. This module detects wrapped text: there
a line ends only if the next word would not fit, while other lines mostly end earlier.

References: Wikimedia, sentencex, https://github.com/wikimedia/sentencex
"""

import re
import unicodedata
from collections.abc import Iterator
from itertools import groupby, pairwise

from sentencex import segment  # pyright: ignore[reportAttributeAccessIssue] (compiled, without stubs)

# Chinese and Japanese are wrapped between any two characters, and joined without a space.
_CJK = "\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef"
_WORD_END = re.compile(rf"\s|(?=[{_CJK}])")
_WRAP_IN_CJK = re.compile(rf"(?<=[{_CJK}])\n(?=[{_CJK}])")
_BLANK_LINES = re.compile(r"\n\s*\n")

# Below 1, because books are edited after they are wrapped. With these values 2,112 of the 2,125 paragraphs of
# "Moby-Dick" count as wrapped (most others are songs), and 3 % of film reviews with one sentence per line.
WRAPPED_FRACTION = 0.8
WRAPPED_FILL = 0.9
WIDEST_WRAP = 200  # lines longer than this are paragraphs

# Characters that sentencex splits at once. Its time grows with the square of them in a text with unclosed quotes.
LONGEST_PIECE = 1 << 14


def split_sentences(document: str, *, language: str = "en") -> list[str]:
    """Splits a document with one sentence per line, paragraphs, or lines wrapped at a fixed width.

    Args:
        document: a text. A blank line always ends a sentence; any other line break does if the text is not wrapped.
        language: ISO 639 code; languages without rules in sentencex are split like English.

    Returns:
        The sentences without surrounding space; none is empty.
    """
    paragraphs = [
        [line.strip() for line in paragraph.splitlines()] for paragraph in _BLANK_LINES.split(document.strip())
    ]
    if _is_wrapped(paragraphs):
        blocks = [_WRAP_IN_CJK.sub("", "\n".join(lines)).replace("\n", " ") for lines in paragraphs]
    else:
        blocks = [line for lines in paragraphs for line in lines]
    sentences = (sentence.strip() for sentence in _segment_blocks(blocks, language))
    return [sentence for sentence in sentences if sentence]


def _segment_blocks(blocks: list[str], language: str) -> Iterator[str]:
    """Yields the sentences of blocks of text; a sentence is never in two blocks."""
    for is_long, group in groupby(blocks, lambda block: len(block) > LONGEST_PIECE):
        if is_long:
            for block in group:
                yield from _segment_long(block, language)
        else:
            # sentencex splits at two line breaks in every language.
            yield from segment(language, "\n\n".join(group))


def _segment_long(block: str, language: str) -> Iterator[str]:
    """Yields the sentences of a long block in linear time.

    The last sentence of a piece may be cut off, so the next piece begins with it. A sentence as long as a piece is cut.
    """
    start = 0
    while len(block) - start > LONGEST_PIECE:
        *sentences, last = segment(language, block[start : start + LONGEST_PIECE])
        if not sentences:
            sentences = [last[: _last_gap(last + block[start + len(last)])]]
        yield from sentences
        start += sum(map(len, sentences))
    yield from segment(language, block[start:])


def _last_gap(text: str) -> int:
    """Returns where a text is cut, before its last character at the latest: after a space, else not before a mark."""
    end = text.rfind(" ", 0, -1) + 1
    if end:
        return end
    last = len(text) - 1
    characters = (i for i in range(last, last // 2, -1) if not unicodedata.category(text[i]).startswith("M"))
    return next(characters, last)


def _is_wrapped(paragraphs: list[list[str]]) -> bool:
    """Returns whether most lines had no room for the first word of the next line."""
    followed = [pair for lines in paragraphs for pair in pairwise(lines)]
    if not followed:
        return False
    width = max(len(line) for lines in paragraphs for line in lines)
    full = sum(_filled(line, following) > WRAPPED_FILL * width for line, following in followed)
    return width <= WIDEST_WRAP and full >= WRAPPED_FRACTION * len(followed)


def _filled(line: str, following: str) -> int:
    """Returns the length of `line` if the first word of the following line were on it."""
    word = _WORD_END.split(following, maxsplit=1)[0]
    return len(line) + (len(word) + 1 if word else 1)
