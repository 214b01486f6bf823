"""One line of an examination."""

from dataclasses import dataclass
from typing import Literal

Severity = Literal["fact", "warning", "problem"]


@dataclass(frozen=True)
class Finding:
    """A fact, a warning about something that is often a mistake, or a problem that will stop a program."""

    severity: Severity
    text: str


def fact(text: str) -> Finding:
    return Finding("fact", text)


def warning(text: str) -> Finding:
    return Finding("warning", text)


def problem(text: str) -> Finding:
    return Finding("problem", text)
