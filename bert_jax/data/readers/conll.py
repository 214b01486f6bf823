"""Reads CoNLL files: one word and its tag per line, and a blank line after each sentence.

The first line with a word shows the number of columns and whether they are separated by tabs or by blanks. Only the
ASCII space and the tab separate; blanks at the end of a line are ignored. Files differ in what else they hold:

- Comments begin with `#`, as do words. A line is a comment if it begins a sentence or has another number of columns,
  unless its tag is one of the file: `#id 17 domain=en` is a comment, `# O` is a word. `# key = value` always is one.
- The first column may number the words of each sentence. Then the second one holds the words, and lines numbered `1-2`
  (a contraction of the words 1 and 2) or `1.1` (a word that is not in the text) are skipped.

References: Tjong Kim Sang and De Meulder, Introduction to the CoNLL-2003 Shared Task, 2003; Nivre et al., Universal
Dependencies v2 (the CoNLL-U format), 2020.
"""

import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

from bert_jax.data.readers.examples import TaggedExample
from bert_jax.data.readers.files import File, format_of, open_text
from bert_jax.data.readers.report import ReadReport
from bert_jax.data.readers.texts import LABELS, TEXTS
from bert_jax.messages import counted
from bert_jax.metrics.tag_schemes import OUTSIDE, read_tag_scheme

WORDS = ("tokens", "words")
TAGS = ("ner_tags", "tags", "labels", "ner", "pos_tags")
HEADER_WORDS = frozenset({*TEXTS, *WORDS, "token", "word"})  # what a header calls the first column of a table
HEADER_TAGS = frozenset({*LABELS, *TAGS, "tag"})  # and the last one
DOCUMENT_START = "-DOCSTART-"
MAX_PARTS_PER_WORD = 4.0  # on average; columns of more space-separated parts hold texts
CONLL = "a CoNLL file has one word and its tag per line, and a blank line after each sentence"
CONLLU_WIDTH = 10  # columns: number, word, lemma, part of speech, ...
CONLLU_TAGS = "4"

_BLANKS = re.compile(r"[ \t]+")
_NUMBER = re.compile(r"(\d+)([-.]\d+)?[ \t]")  # the first column of a numbered word, a contraction or a word not there
_KEY_VALUE = re.compile(r"# *[^\s=]+( [^\s=]+)* = ")  # the metadata of CoNLL-U: `# sent_id = 7`


class TagColumns(NamedTuple):
    """The columns of words and tags: names, or in CoNLL files numbers from 1; `tags` is None without tags.

    Attributes:
        classes: the tags in the order of their ids, if the source declares them.
    """

    words: str
    tags: str | None
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class ChosenColumns:
    """The columns of words and tags that are named, and those that a model was trained on, by role."""

    words: str | None
    tags: str | None
    trained_on: Mapping[str, str]

    def among(self, names: Collection[str]) -> tuple[str | None, str | None]:
        """Returns the columns that are named, else those among `names` that the model was trained on, else None."""
        known = {role: name for role, name in self.trained_on.items() if name in names}
        return self.words or known.get("words"), self.tags or known.get("tags")


@dataclass(frozen=True)
class _Layout:
    """How the lines of a file are read.

    Attributes:
        separator: between columns: a tab, or None for any blanks.
        width: number of columns.
        numbered: whether the first column numbers the words of a sentence.
    """

    separator: str | None
    width: int
    numbered: bool

    def split(self, line: str) -> list[str]:
        """Returns the fields of a line."""
        return line.split("\t") if self.separator else _BLANKS.split(line.strip(" \t"))

    @property
    def names(self) -> list[str]:
        """The names of the columns: numbers from 1."""
        return [str(number + 1) for number in range(self.width)]

    def columns(self, words: str | None, tags: str | None) -> TagColumns:
        """Returns the columns that are named, and the usual ones for the others."""
        usual = CONLLU_TAGS if self.numbered and self.width == CONLLU_WIDTH else str(self.width)
        return TagColumns(words or ("2" if self.numbered else "1"), (tags or usual) if self.width > 1 else None)


def read_conll(
    path: File,
    chosen: ChosenColumns,
    *,
    encoding: str,
    on_columns: Callable[[TagColumns], None],
    report: ReadReport,
) -> list[TaggedExample]:
    """Reads the sentences of a CoNLL file; see `read_tagged` for the arguments.

    Counts the lines that are not blank in `report`, and skips those that are no words.

    Raises:
        OSError, ValueError: a line that is not a word and its tag, or a file that is not CoNLL, with file and line.
    """
    if format_of(path) == ".csv":
        raise ValueError(f"{path}: tagged words are read from CoNLL, JSON and parquet files, not from .csv")
    report.unit = "lines"
    layout = _find_layout(path, encoding)
    if layout is None:
        return []
    columns = layout.columns(*chosen.among(layout.names))
    on_columns(columns)
    word_index = _field_index(path, columns.words, layout.width)
    tag_index = _field_index(path, columns.tags, layout.width) if columns.tags else None
    words = _split_words(path, encoding, layout, tag_index, report)
    examples = list(_sentences(path, words, word_index, tag_index))
    _require_words(path, examples)
    return examples


def _read_lines(path: File, encoding: str) -> Iterator[tuple[int, str]]:
    """Yields line numbers and lines without blanks at their end; an empty line where a sentence ends."""
    with open_text(path, encoding) as file:
        for number, line in enumerate(file, 1):
            ends = line.isspace() or line.startswith(DOCUMENT_START)
            yield number, "" if ends else line.rstrip(" \t\r\n")


def _find_layout(path: File, encoding: str) -> _Layout | None:
    """Returns the layout that the first line with a word shows; None without such a line.

    Raises:
        ValueError: this line is the header of a table.
    """
    lines = [next(_lines_with_text(path, encoding, comments=comments), None) for comments in (False, True)]
    first = next((line for line in lines if line), None)
    if first is None:
        return None
    number, line = first
    layout = _Layout("\t" if "\t" in line else None, 0, False)
    fields = layout.split(line)
    if fields[0].lower() in HEADER_WORDS and fields[-1].lower() in HEADER_TAGS:
        raise ValueError(f"{path}:{number}: {line!r} is a header; {CONLL}")
    numbered = len(fields) > 2 and _are_numbered(line for _, line in _read_lines(path, encoding))
    return _Layout(layout.separator, len(fields), numbered)


def _lines_with_text(path: File, encoding: str, *, comments: bool) -> Iterator[tuple[int, str]]:
    """Yields the lines that are not empty, with or without those that begin with `#`."""
    for number, line in _read_lines(path, encoding):
        if line and (comments or line[0] != "#"):
            yield number, line


def _are_numbered(lines: Iterable[str]) -> bool:
    """Returns whether the first column numbers the words of all sentences, 1, 2, 3, ..., one with two words or more."""
    last = 0
    longest = 0
    for line in lines:
        if not line:
            last = 0
        elif not line.startswith("#"):
            match = _NUMBER.match(line)
            if match is None or not (match[2] or int(match[1]) == last + 1):
                return False
            last += not match[2]
            longest = max(longest, last)
    return longest > 1


def _split_words(
    path: File, encoding: str, layout: _Layout, tag_index: int | None, report: ReadReport
) -> Iterator[tuple[int, list[str]]]:
    """Yields line numbers and fields of words: the same number in all lines, and none where a sentence ends."""

    @cache
    def tags() -> frozenset[str]:
        """The tags of lines that do not begin with `#`."""
        words = (layout.split(line) for _, line in _lines_with_text(path, encoding, comments=False))
        return frozenset(fields[tag_index or 0].strip() for fields in words if len(fields) == layout.width)

    within = False  # a sentence
    for number, line in _read_lines(path, encoding):
        if not line:
            within = False
            yield number, []
            continue
        report.rows += 1
        fields = layout.split(line)
        if line[0] == "#" and _is_comment(line, fields, layout, tag_index, tags, within=within):
            report.skip("comments", f"{path}:{number}")
        elif layout.numbered and (match := _NUMBER.match(line)) and match[2]:
            report.skip("lines of contractions or of words that are not in the text", f"{path}:{number}")
        elif not fields[0] or len(fields) == 1 < layout.width:
            raise ValueError(f"{path}:{number}: {line!r} is not a word and its tag")
        elif len(fields) != layout.width:
            raise ValueError(f"{path}:{number}: {counted(len(fields), 'column')}, the lines before have {layout.width}")
        else:
            within = True
            yield number, fields
    yield 0, []


def _is_comment(
    line: str,
    fields: Sequence[str],
    layout: _Layout,
    tag_index: int | None,
    tags: Callable[[], Collection[str]],
    *,
    within: bool,
) -> bool:
    """Returns whether a line that begins with `#` is a comment.

    Args:
        tags: returns the tags of the other lines.
        within: whether a word of the same sentence is before this line.
    """
    if layout.numbered or _KEY_VALUE.match(line):
        return True
    if len(fields) != layout.width:
        return not within or line[1:2] in (" ", "\t")  # `#word` within a sentence lacks its tag
    if tag_index is None or within:
        return False
    tag = fields[tag_index].strip()
    looks_like_tag = tag == OUTSIDE or read_tag_scheme([tag]).name is not None  # even if no other line has it
    return not looks_like_tag and tag not in tags()


def _sentences(
    path: File, lines: Iterable[tuple[int, Sequence[str]]], word_index: int, tag_index: int | None
) -> Iterator[TaggedExample]:
    """Yields the sentences, given the fields of words and the indices of the columns."""
    words: list[str] = []
    tags: list[str] = []
    where = ""
    for number, fields in lines:
        if fields:
            where = where or f"{path}:{number}"
            words.append(fields[word_index])
            if tag_index is not None:
                tags.append(fields[tag_index].strip())
        elif words:
            yield TaggedExample(tuple(words), tuple(tags) or None, where)
            words = []
            tags = []
            where = ""


def _field_index(path: File, column: str, width: int) -> int:
    """Returns the index of the column with a number from 1."""
    if not column.isdecimal() or not 1 <= int(column) <= width:
        raise ValueError(f"{path}: no column {column!r} among 1 to {width}; columns of a CoNLL file are numbered")
    return int(column) - 1


def _require_words(path: File, examples: Sequence[TaggedExample]) -> None:
    """Raises ValueError if the first columns are texts, as in a table to classify, not words."""
    parts = [len(word.split()) for example in examples for word in example.words]
    if parts and sum(parts) > MAX_PARTS_PER_WORD * len(parts):
        mean = sum(parts) / len(parts)
        raise ValueError(f"{path}: the words have {mean:.0f} parts on average, so they are texts; {CONLL}")
