"""Texts from a file or a pipe, as they come; lines out, as they are ready.

Lines are answered together when they are there together, so a file goes in large portions, while a pipe whose other end
is slow, or a person, gets each answer before saying the next thing. Texts are UTF-8.
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
    """Yields the lines behind a file descriptor, some at a time: those that are there without waiting for more.

    Only a line feed ends a line.
    """
    lines: list[bytes] = []
    size, rest = 0, []
    while block := os.read(source, READ):
        first, *others = block.split(b"\n")
        rest.append(first)
        for other in others:
            lines.append(b"".join(rest))
            rest = [other]
        size += len(block)
        if lines and (len(lines) >= PORTION or size >= PORTION_BYTES or not more_is_there(source)):
            yield lines
            lines, size = [], 0
    if last := b"".join(rest):
        lines.append(last)
    if lines:
        yield lines


def decoded(line: bytes) -> str:
    """Returns the text of a line, without the marks that some systems put round it.

    Raises:
        ValueError: it is not UTF-8.
    """
    try:
        return line.decode().removeprefix("\ufeff").removesuffix("\r")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8: byte 0x{line[error.start]:02x} after {error.start} bytes of the line") from None


def more_is_there(source: int) -> bool:
    """Says whether a read would return at once; where nobody can tell, yes."""
    try:
        return bool(select.select([source], [], [], 0)[0])
    except (OSError, ValueError):  # Windows asks sockets only
        return True


def argument(text: str) -> str:
    """Returns a text from the command line, once it is known to have been UTF-8: Python lets other bytes through."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"not UTF-8: {text!r:.60}") from None
    return text


def whole(source: int, name: str) -> str:
    """Returns all the text behind a file descriptor; `name` is what an error calls it.

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
    """Returns values as one line, with a tab between; white space inside a value becomes a blank.

    >>> fields("a\\nb", 0.25)
    'a b\\t0.250000'
    """
    return "\t".join(f"{value:.6f}" if isinstance(value, float) else " ".join(str(value).split()) for value in values)


def as_json(answer: Any) -> str:
    """Returns a line of JSON; characters that are no text on their own are escaped."""
    text = json.dumps(answer, ensure_ascii=False, default=lambda array: np.asarray(array).tolist())
    return text if text.isprintable() else json.dumps(json.loads(text))


def progress_is_welcome() -> bool:
    """Says whether a bar disturbs nobody: answers go to a file and somebody watches."""
    return sys.stderr.isatty() and stat.S_ISREG(os.fstat(sys.stdout.fileno()).st_mode)


def columns(line: str, names: Sequence[str]) -> dict[str, str]:
    """Returns the tab-separated columns of a line by name; the last one may hold tabs.

    Raises:
        ValueError: too few.
    """
    found = line.split("\t", len(names) - 1)
    if len(found) != len(names):
        raise ValueError(f"wanted a line of {' TAB '.join(names)}, got {line!r:.60}")
    return dict(zip(names, found, strict=True))
