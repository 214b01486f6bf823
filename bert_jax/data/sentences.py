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

WRAPPED_SHARE = 0.8  # not 1: a wrapped text has the odd heading and the odd long dash
WIDEST_WRAP = 200  # lines longer than this are paragraphs


def split_sentences(document: str, *, language: str = "en") -> list[str]:
    """Splits a document that has a sentence a line, running paragraphs, or lines wrapped at a width.

    Args:
        document: text; a blank line ends a sentence always, another line break where the text is not wrapped.
        language: ISO 639 code; one that sentencex has no rules for is split as English.

    Returns:
        The sentences, stripped, none of them empty.
    """
    paragraphs = ["\n".join(_lines(paragraph)) for paragraph in _BLANK_LINES.split(document)]
    if _is_wrapped(paragraphs):
        paragraphs = [_WRAP_IN_CJK.sub("", paragraph).replace("\n", " ") for paragraph in paragraphs]
    else:
        paragraphs = [line for paragraph in paragraphs for line in paragraph.split("\n")]
    # Two line breaks are a boundary to sentencex in every language.
    sentences = (sentence.strip() for sentence in segment(language, "\n\n".join(paragraphs)))
    return [sentence for sentence in sentences if sentence]


def _lines(paragraph: str) -> list[str]:
    return [line.strip() for line in paragraph.splitlines() if line.strip()]


def _is_wrapped(paragraphs: list[str]) -> bool:
    """Whether most lines that another line follows had no room for its first word."""
    if not any("\n" in paragraph for paragraph in paragraphs):
        return False
    blocks = [paragraph.split("\n") for paragraph in paragraphs]
    width = max(len(line) for lines in blocks for line in lines)
    followed = [(line, following) for lines in blocks for line, following in pairwise(lines)]
    full = sum(_filled(line, following) > width for line, following in followed)
    return width <= WIDEST_WRAP and full >= WRAPPED_SHARE * len(followed)


def _filled(line: str, following: str) -> int:
    """The length `line` would have had with the first word of the following line on it."""
    word = _WORD_END.split(following, maxsplit=1)[0]
    return len(line) + (len(word) + 1 if word else 1)
