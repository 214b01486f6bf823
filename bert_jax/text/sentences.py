"""One document's text into sentences.

The punctuation is left to sentencex, which knows the abbreviations of many languages. What it cannot know is what a
line break means: nothing, in text wrapped at a width; the end of a sentence or a paragraph, elsewhere. The text shows
it: whoever wraps breaks a line only where the next word would not have fitted, whoever ends a line for another reason
mostly breaks it earlier.

References: Wikimedia, sentencex, https://github.com/wikimedia/sentencex
"""

from __future__ import annotations

import re
from itertools import pairwise

from sentencex import segment  # pyright: ignore[reportAttributeAccessIssue] (compiled, without stubs)

# Chinese and Japanese are wrapped between any two characters, and joined without a space.
_CJK = "\u3000-\u30ff\u3400-\u9fff\uf900-\ufaff\uff00-\uffef"
_WORD_END = re.compile(rf"\s|(?=[{_CJK}])")
_WRAP_IN_CJK = re.compile(rf"(?<=[{_CJK}])\n(?=[{_CJK}])")
_BLANK_LINES = re.compile(r"\n\s*\n")

# Not 1: books get edited after they are wrapped. So 2,112 of the 2,125 paragraphs of "Moby-Dick" count as wrapped, and
# the rest is mostly songs; of film reviews, written a sentence a line, 3 % do.
WRAPPED_SHARE, WRAPPED_FILL = 0.8, 0.9
WIDEST_WRAP = 200  # lines longer than this are paragraphs


def split_sentences(document: str, *, language: str = "en") -> list[str]:
    """Splits a document that has a sentence a line, running paragraphs, or lines wrapped at a width.

    Args:
        document: text; a blank line ends a sentence always, another line break where the text is not wrapped.
        language: ISO 639 code; one that sentencex has no rules for is split as English.

    Returns:
        The sentences, stripped, none of them empty.
    """
    paragraphs = [
        [line.strip() for line in paragraph.splitlines()] for paragraph in _BLANK_LINES.split(document.strip())
    ]
    if _is_wrapped(paragraphs):
        blocks = [_WRAP_IN_CJK.sub("", "\n".join(lines)).replace("\n", " ") for lines in paragraphs]
    else:
        blocks = [line for lines in paragraphs for line in lines]
    # Two line breaks are a boundary to sentencex in every language.
    sentences = (sentence.strip() for sentence in segment(language, "\n\n".join(blocks)))
    return [sentence for sentence in sentences if sentence]


def _is_wrapped(paragraphs: list[list[str]]) -> bool:
    """Whether most lines that another line follows had hardly room for its first word."""
    followed = [pair for lines in paragraphs for pair in pairwise(lines)]
    if not followed:
        return False
    width = max(len(line) for lines in paragraphs for line in lines)
    full = sum(_filled(line, following) > WRAPPED_FILL * width for line, following in followed)
    return width <= WIDEST_WRAP and full >= WRAPPED_SHARE * len(followed)


def _filled(line: str, following: str) -> int:
    """The length `line` would have had with the first word of the following line on it."""
    word = _WORD_END.split(following, maxsplit=1)[0]
    return len(line) + (len(word) + 1 if word else 1)
