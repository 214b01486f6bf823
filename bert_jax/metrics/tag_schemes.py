"""Understands tags of words: where an entity begins and ends, and its kind.

In `B-per` the letter says where the word stands in its entity, and `per` is the kind of the entity. Schemes differ in
their letters, `O` is a word outside of entities:

| scheme | first word | inside | last word | only word |
|---|---|---|---|---|
| IO | I | I | I | I |
| IOB (IOB1, IOB2, BIO) | B or I | I | I | B or I |
| IOE (IOE1, IOE2) | I | I | E or I | E or I |
| BIOES (IOBES) | B | I | E | S |
| BILOU | B | I | L | U |
| BMES | B | M | E | S |
| BMEWO (BMEWO+) | B | M | E | W |

The scheme is recognised from the set of all tags. Everything that reads tags (metrics, tasks, pipelines) gets its roles
from here.

References: Ramshaw and Marcus, Text Chunking using Transformation-Based Learning, 1995; Ratinov and Roth, Design
Challenges and Misconceptions in Named Entity Recognition, 2009 (BILOU); Carpenter, Coding Chunkers as Taggers, 2009
(BMEWO+).
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

OUTSIDE = "O"
UNNAMED = "_"  # the kind of entities whose tags are letters alone: B, I, O
ROLES = {"B": "B", "I": "I", "M": "I", "E": "E", "L": "E", "S": "S", "U": "S", "W": "S"}
LISTED_KINDS = 20

_LETTER = f"(?P<letter>[{''.join(ROLES)}{''.join(ROLES).lower()}])"
_PREFIXED = re.compile(rf"{_LETTER}[-_:/|](?P<kind>.*)", re.DOTALL)  # B-per, b_per
_SUFFIXED = re.compile(rf"(?P<kind>.+)[-_:/|]{_LETTER}", re.DOTALL)  # per-B
_LETTERS = re.compile(rf"{_LETTER}(?P<kind>)")  # B
# Outside of entities, if other tags have letters: O, its misspelling 0, placeholders, [CLS], <pad>, and in BMEWO+ the
# words next to an entity, such as BB_O_per.
_OUTSIDE = re.compile(r"[Oo0_-]|X|PAD|\[.*\]|<.*>|(BB|EE|WW)[-_]O([-_].*)?", re.DOTALL)


class Tag(NamedTuple):
    """What a tag says about its word.

    Attributes:
        role: `B` begins an entity, `I` is inside of one, `E` ends one, `S` is an entity of one word, `O` is outside.
        kind: of the entity; empty outside.
    """

    role: str
    kind: str


@dataclass(frozen=True)
class TagScheme:
    """The meaning of each tag of a set.

    Attributes:
        name: of the scheme; None if the tags are kinds without letters, as in part-of-speech tagging. Neighbours with
            the same tag are then one entity, as in IO.
        tags: each tag with its role and kind.
    """

    name: str | None
    tags: Mapping[str, Tag]

    def __getitem__(self, tag: str) -> Tag:
        """Returns the meaning of a tag.

        Raises:
            ValueError: a tag that is not in the set.
        """
        try:
            return self.tags[tag]
        except KeyError:
            raise ValueError(f"tag {tag!r} is not one of {', '.join(self.tags)}") from None

    @property
    def outside(self) -> list[str]:
        """The tags of words outside of entities."""
        return [name for name, tag in self.tags.items() if tag.role == OUTSIDE]

    @property
    def kinds(self) -> list[str]:
        """The kinds of entities, sorted."""
        return sorted({tag.kind for tag in self.tags.values() if tag.role != OUTSIDE})

    def __str__(self) -> str:
        """One line for the screen."""
        line = "tags without B-, I- and the like; neighbours with the same tag are one entity"
        if self.name is not None:
            more = ", ..." if len(self.kinds) > LISTED_KINDS else ""
            line = f"tags in the {self.name} scheme; entity kinds: {', '.join(self.kinds[:LISTED_KINDS])}{more}"
        others = [name for name in self.outside if name != OUTSIDE]
        return f"{line}; read as {OUTSIDE}: {', '.join(others)}" if others else line


def read_tag_scheme(tags: Iterable[str]) -> TagScheme:
    """Recognises the scheme of a set of tags.

    Letters may be prefixes or suffixes, in upper or lower case, with `-`, `_`, `:`, `/` or `|` next to them. Kinds that
    differ by case only are one kind.

    Args:
        tags: all tags of a dataset, or of a model.

    Raises:
        ValueError: a tag that fits no scheme together with the others.

    >>> read_tag_scheme(["O", "b_per", "i_per"])["b_per"]
    Tag(role='B', kind='per')
    """
    names = sorted(set(tags))
    inside = [name for name in names if not _OUTSIDE.fullmatch(name)]
    for pattern in (_PREFIXED, _SUFFIXED, _LETTERS):
        parts = {name: match.groupdict() for name in inside if (match := pattern.fullmatch(name))}
        if not parts or not _is_evidence(pattern, parts, complete=len(parts) == len(inside)):
            continue
        for name in inside:
            if name not in parts:
                first = next(iter(parts))
                raise ValueError(f"tag {name!r} fits no scheme together with {first!r}: no B, I or the like")
        return _scheme(names, parts)
    letters = [name for name in names if len(name) == 1]
    outside = {OUTSIDE, *(["o"] if letters == ["o"] else [])}  # among n, v and a, o is a part of speech
    return TagScheme(None, {name: Tag(OUTSIDE, "") if name in outside else Tag("I", name) for name in names})


def _is_evidence(pattern: re.Pattern[str], parts: Mapping[str, Mapping[str, str]], *, complete: bool) -> bool:
    """Returns whether parts are letters and kinds, not names such as `e-mail`, `vitamin-B` or the adverbs `B`.

    Args:
        parts: letter and kind of the tags that match the pattern.
        complete: whether all tags match.
    """
    letters = {part["letter"] for part in parts.values()}
    if pattern is _LETTERS:
        return complete and not letters.isdisjoint("BIbi")
    kinds = {part["kind"] for part in parts.values()}
    repeated = len(kinds) < len(parts)  # a kind with two letters, such as B-per and I-per
    if pattern is _SUFFIXED:
        return repeated or (complete and all(name.isupper() for name in parts))
    if complete:
        return repeated or any(map(str.isupper, letters)) or not letters.isdisjoint("bi")
    return repeated or not letters.isdisjoint("BI")


def _scheme(names: Iterable[str], parts: Mapping[str, Mapping[str, str]]) -> TagScheme:
    """Returns the scheme of tags, given letter and kind of those that are not outside."""
    letter_of: dict[str, tuple[str, str]] = {}  # role -> letter and the first tag with it
    spelling: dict[str, str] = {}  # kind in lower case -> its first spelling
    tags = {}
    for name in names:
        if name not in parts:
            tags[name] = Tag(OUTSIDE, "")
            continue
        letter = parts[name]["letter"].upper()
        known, first = letter_of.setdefault(ROLES[letter], (letter, name))
        if letter != known:
            raise ValueError(f"tags {first!r} and {name!r} are of two schemes: {known} and {letter} mean the same")
        kind = parts[name]["kind"] or UNNAMED
        tags[name] = Tag(ROLES[letter], spelling.setdefault(kind.casefold(), kind))
    return TagScheme(_name({letter for letter, _ in letter_of.values()}), tags)


def _name(letters: set[str]) -> str:
    """Returns the name of the scheme with these letters."""
    for found, name in (("LU", "BILOU"), ("W", "BMEWO"), ("M", "BMES"), ("S", "BIOES")):
        if not letters.isdisjoint(found):
            return name
    if "E" in letters:
        return "BIOES" if "B" in letters else "IOE"
    return "IOB" if "B" in letters else "IO"
