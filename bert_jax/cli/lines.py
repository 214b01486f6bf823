"""Lines of text from a file or a pipe, and lines of output.

Lines that can be read without waiting form one portion: a file is read in large portions, while a slow pipe or a person
at a terminal gets the output for each line at once. Texts are UTF-8.
"""

import json
import os
import select
import stat
import sys
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np

PORTION = 4096  # lines
PORTION_BYTES = 1 << 23
READ = 1 << 16


def portions(source: int) -> Iterator[list[bytes]]:
    """Yields the lines of a file descriptor in portions: those that can be read without waiting.

    Only a line feed ends a line.
    """
    lines: list[bytes] = []
    size = 0
    rest: list[bytes] = []  # blocks of a line whose end was not read yet
    while block := os.read(source, READ):
        first, *others = block.split(b"\n")
        rest.append(first)
        for other in others:
            lines.append(b"".join(rest))
            rest = [other]
        size += len(block)
        if lines and (len(lines) >= PORTION or size >= PORTION_BYTES or not _can_read(source)):
            yield lines
            lines = []
            size = 0
    last = b"".join(rest)
    if last:
        lines.append(last)
    if lines:
        yield lines


def decoded(line: bytes) -> str:
    """Returns the text of a line, without a byte order mark and a carriage return.

    Raises:
        ValueError: the line is not UTF-8.
    """
    try:
        return line.decode().removeprefix("\ufeff").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: byte 0x{line[error.start]:02x} after {error.start} bytes of the line") from None


def _can_read(source: int) -> bool:
    """Returns whether a read would return at once; True where the system cannot tell."""
    try:
        return bool(select.select([source], [], [], 0)[0])
    except (OSError, ValueError):  # Windows supports sockets only
        return True


def argument(text: str) -> str:
    """Returns an argument of the command line; raises ValueError if it was not UTF-8, which Python does not check."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"not UTF-8: {text!r:.60}") from None
    return text


def whole(source: int, name: str) -> str:
    """Returns all the text of a file descriptor; `name` stands for it in errors.

    Raises:
        ValueError: a line is not UTF-8.
    """
    lines: list[str] = []
    try:
        for line in chain.from_iterable(portions(source)):
            lines.append(decoded(line))
    except ValueError as error:
        raise ValueError(f"{name}:{len(lines) + 1}: {error}") from None
    return "\n".join(lines)


def fields(*values: object) -> str:
    """Returns values as one line, separated by tabs; white space inside a value becomes a blank.

    >>> fields("a\\nb", 0.25)
    'a b\\t0.250000'
    """
    return "\t".join(f"{value:.6f}" if isinstance(value, float) else " ".join(str(value).split()) for value in values)


def as_json(output: Any) -> str:
    """Returns a line of JSON; characters that are not printable are escaped."""
    text = json.dumps(output, ensure_ascii=False, default=lambda array: np.asarray(array).tolist())
    return text if text.isprintable() else json.dumps(json.loads(text))


def show_progress() -> bool:
    """Returns whether to show a progress bar: the output goes to a file, and stderr is a terminal."""
    return sys.stderr.isatty() and stat.S_ISREG(os.fstat(sys.stdout.fileno()).st_mode)


def columns(line: str, names: Sequence[str]) -> dict[str, str]:
    """Returns the tab-separated columns of a line by name; the last one may contain tabs.

    Raises:
        ValueError: there are too few.
    """
    found = line.split("\t", len(names) - 1)
    if len(found) != len(names):
        raise ValueError(f"expected a line of {' TAB '.join(names)}, got {line!r:.60}")
    return dict(zip(names, found, strict=True))
