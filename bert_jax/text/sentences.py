"""Splits the text of a document into sentences.

sentencex handles punctuation and the abbreviations of many languages. It does not know what a line break means: nothing
in text wrapped at a fixed width, the end of a sentence or paragraph elsewhere. This module detects wrapped text: there
a line ends only if the next word would not fit, while other lines mostly end earlier.

References: Wikimedia, sentencex, https://github.com/wikimedia/sentencex
"""

import re
from itertools import pairwise

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
    # sentencex splits at two line breaks in every language.
    sentences = (sentence.strip() for sentence in segment(language, "\n\n".join(blocks)))
    return [sentence for sentence in sentences if sentence]


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
