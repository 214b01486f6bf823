"""What was found in each source: documents, bytes, tokens, [UNK], duplicates, files skipped, documents cut, scripts."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from bert_jax.data.readers.report import ReadReport
from bert_jax.messages import counted
from bert_jax.text.vocabulary import MANY_UNKNOWN

SAMPLE = 1 << 14  # characters of each batch whose script is counted
NAMED = 100  # unreadable files of a source that are named; all are counted
# Letters by script: first code points of ranges (Unicode, Blocks.txt), "" where there are none of these scripts.
_RANGES = (
    (0x0, ""), (0x41, "Latin"), (0x5B, ""), (0x61, "Latin"), (0x7B, ""), (0xC0, "Latin"), (0x2B0, ""),
    (0x370, "Greek"), (0x400, "Cyrillic"), (0x530, "Armenian"), (0x590, "Hebrew"), (0x600, "Arabic"),
    (0x700, ""), (0x750, "Arabic"), (0x780, ""), (0x8A0, "Arabic"), (0x900, "Devanagari"), (0x980, "Bengali"),
    (0xA00, "Gurmukhi"), (0xA80, "Gujarati"), (0xB00, "Odia"), (0xB80, "Tamil"), (0xC00, "Telugu"), (0xC80, "Kannada"),
    (0xD00, "Malayalam"), (0xD80, "Sinhala"), (0xE00, "Thai"), (0xE80, "Lao"), (0xF00, "Tibetan"), (0x1000, "Myanmar"),
    (0x10A0, "Georgian"), (0x1100, "Hangul"), (0x1200, "Ethiopic"), (0x13A0, ""), (0x1780, "Khmer"), (0x1800, ""),
    (0x1E00, "Latin"), (0x1F00, "Greek"), (0x2000, ""), (0x3040, "Kana"), (0x3100, ""), (0x3130, "Hangul"),
    (0x3190, ""), (0x3400, "Han"), (0xA000, ""), (0xAC00, "Hangul"), (0xD7B0, ""), (0xF900, "Han"), (0xFB00, ""),
    (0xFB50, "Arabic"), (0xFE00, ""), (0xFE70, "Arabic"), (0xFF00, ""), (0x20000, "Han"), (0x323B0, ""),
)  # fmt: skip
_STARTS = np.array([start for start, _ in _RANGES])


def count_scripts(texts: Iterable[str]) -> Counter[str]:
    """Counts the letters of each script in a sample, the first SAMPLE characters."""
    sample = []
    left = SAMPLE
    for text in texts:
        sample.append(text[:left])
        left -= len(sample[-1])
        if left <= 0:
            break
    codes = np.frombuffer("".join(sample).encode("utf-32-le", errors="replace"), np.uint32)
    of_ranges = np.bincount(np.searchsorted(_STARTS, codes, side="right") - 1, minlength=len(_RANGES))
    counts: Counter[str] = Counter()
    for (_, script), count in zip(_RANGES, of_ranges.tolist(), strict=True):
        if script and count:
            counts[script] += count
    return counts


@dataclass
class SourceReport:
    """What was found in one source.

    Attributes:
        read: the documents that were read, skipped and cut.
        bytes: of the text in UTF-8, without what was skipped.
        letters: of a sample of the text, by script.
        unreadable: the first files that were skipped, with the reason.
        num_unreadable: how many there were.
    """

    source: str
    read: ReadReport = field(init=False)
    bytes: int = 0
    tokens: int = 0
    unknown_tokens: int = 0
    letters: Counter[str] = field(default_factory=Counter)
    unreadable: list[str] = field(default_factory=list)
    num_unreadable: int = 0

    def __post_init__(self) -> None:
        self.read = ReadReport(self.source, unit="documents")

    def skip_file(self, why: str) -> None:
        """Counts a file that cannot be read; `why` names it."""
        self.num_unreadable += 1
        if len(self.unreadable) < NAMED:
            self.unreadable.append(why)

    def as_dict(self) -> dict[str, Any]:
        """Returns the report as JSON."""
        return {
            **self.read.as_dict(),
            "bytes": self.bytes,
            "tokens": self.tokens,
            "unknown_tokens": self.unknown_tokens,
            "letters": dict(sorted(self.letters.items())),
            "unreadable": self.unreadable,
            "num_unreadable": self.num_unreadable,
        }

    def add(self, saved: Mapping[str, Any]) -> None:
        """Adds a report that `as_dict` returned."""
        self.read.add(saved)
        self.bytes += saved["bytes"]
        self.tokens += saved["tokens"]
        self.unknown_tokens += saved["unknown_tokens"]
        self.letters.update(saved["letters"])
        self.num_unreadable += saved["num_unreadable"]
        self.unreadable += saved["unreadable"][: NAMED - len(self.unreadable)]

    def lines(self) -> list[str]:
        """Returns lines about the source, warnings last."""
        letters = max(self.letters.total(), 1)
        scripts = ", ".join(f"{name} {count / letters:.1%}" for name, count in self.letters.most_common(3))
        unknown = self.unknown_tokens / max(self.tokens, 1)
        lines = [
            f"{self.source}: {counted(self.read.used, 'document')}, {self.bytes:,} bytes, "
            f"{self.tokens:,} tokens, {unknown:.2%} [UNK]; {scripts or 'no letters'}",
            *self.read.lines(),
        ]
        if self.num_unreadable:
            more = f" and {self.num_unreadable - 1:,} more" if self.num_unreadable > 1 else ""
            lines.append(f"{self.source}: skipped {counted(self.num_unreadable, 'file')}: {self.unreadable[0]}{more}")
        if unknown > MANY_UNKNOWN:
            lines.append(
                f"warning: {self.source}: {unknown:.1%} of the tokens are [UNK]: check its language and encoding"
            )
        return lines


def merge_reports(parts: Iterable[Mapping[str, Mapping[str, Any]]]) -> list[SourceReport]:
    """Returns a report for each source, given those of the parts: {source: `as_dict`}."""
    merged: dict[str, SourceReport] = {}
    for part in parts:
        for source, saved in part.items():
            merged.setdefault(source, SourceReport(source)).add(saved)
    return list(merged.values())
