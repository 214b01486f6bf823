"""Counts what a reader made of a source, so that nothing is skipped or changed without a word.

A reader counts every row that it reads, every row that it skips and every row that it changes, with the reason and the
first place. The programs print `lines()` and write `as_dict()` to data.json.

Example: of 100 rows, 3 without a label:

    report = ReadReport("train.csv")
    report.rows = 100
    for where in ("train.csv:17", "train.csv:40", "train.csv:77"):
        report.skip("rows without a label", where)
    report.used      # 97
    report.lines()   # ["train.csv: skipped 3 of 100 rows: rows without a label (first: train.csv:17)"]
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Tally:
    """How many rows share a reason, and where the first one is."""

    count: int
    first: str


@dataclass
class ReadReport:
    """What a reader made of one source.

    Attributes:
        source: the name of the file, pattern or dataset.
        unit: what is counted, in the plural: rows, sentences, questions, documents.
        rows: the number of units in the source, skipped ones included.
        skipped: reason -> units that are not used. The reason is a plural noun phrase: "rows without a label".
        changed: reason -> units or values that are used, but not as they are written: "answers that were moved".
        columns: role -> name of the column: {"text": "review", "label": "stars"}.
    """

    source: str
    unit: str = "rows"
    rows: int = 0
    skipped: dict[str, Tally] = field(default_factory=dict)
    changed: dict[str, Tally] = field(default_factory=dict)
    columns: dict[str, str] = field(default_factory=dict)

    def skip(self, reason: str, where: str) -> None:
        """Counts a unit that is not used."""
        _count(self.skipped, reason, where)

    def change(self, reason: str, where: str) -> None:
        """Counts a unit, or a value, that is used with a change."""
        _count(self.changed, reason, where)

    @property
    def used(self) -> int:
        """The number of units that are used."""
        return self.rows - sum(tally.count for tally in self.skipped.values())

    def add(self, saved: Mapping[str, Any]) -> None:
        """Adds the counts of a report that `as_dict` returned.

        Raises:
            KeyError, TypeError: `saved` is something else.
        """
        self.rows += saved["read"]
        for tallies, added in ((self.skipped, saved["skipped"]), (self.changed, saved["changed"])):
            for reason, tally in added.items():
                _count(tallies, reason, tally["first"], tally["count"])

    def lines(self) -> list[str]:
        """Returns one line per reason; none if everything is used as it is written."""
        skipped = [
            f"{self.source}: skipped {tally.count:,} of {self.rows:,} {self.unit}: {reason} (first: {tally.first})"
            for reason, tally in self.skipped.items()
        ]
        changed = [
            f"{self.source}: {reason}: {tally.count:,} (first: {tally.first})" for reason, tally in self.changed.items()
        ]
        return skipped + changed

    def as_dict(self) -> dict[str, Any]:
        """Returns the same as JSON: counts, reasons with the first place, columns."""
        return {
            "source": self.source,
            "unit": self.unit,
            "read": self.rows,
            "used": self.used,
            "skipped": {reason: vars(tally) for reason, tally in self.skipped.items()},
            "changed": {reason: vars(tally) for reason, tally in self.changed.items()},
            "columns": self.columns,
        }


def _count(tallies: dict[str, Tally], reason: str, where: str, count: int = 1) -> None:
    if reason in tallies:
        tallies[reason].count += count
    else:
        tallies[reason] = Tally(count, where)
