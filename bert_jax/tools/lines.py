"""Texts from a file or a pipe, as they come; lines out, as they are ready.

Lines are answered together when they are there together, so a file goes in large portions, while a pipe whose other end
is slow, or a person, gets each answer before saying the next thing.
"""

import os
import select
import stat
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence

PORTION = 4096  # lines
PORTION_BYTES = 1 << 23
READ = 1 << 16


def portions(source: int) -> Iterator[list[str]]:
    """Yields the lines behind a file descriptor, some at a time: those that are there without waiting for more.

    Only a line feed ends a line. What is not UTF-8 becomes U+FFFD.
    """
    lines: list[str] = []
    size, rest = 0, []
    while block := os.read(source, READ):
        first, *others = block.split(b"\n")
        rest.append(first)
        for other in others:
            lines.append(decoded(b"".join(rest)))
            rest = [other]
        size += len(block)
        if lines and (len(lines) >= PORTION or size >= PORTION_BYTES or not more_is_there(source)):
            yield lines
            lines, size = [], 0
    if last := b"".join(rest):
        lines.append(decoded(last))
    if lines:
        yield lines


def decoded(line: bytes) -> str:
    return line.decode("utf-8-sig", "replace").removesuffix("\r")


def more_is_there(source: int) -> bool:
    """Says whether a read would return at once; where nobody can tell, yes."""
    try:
        return bool(select.select([source], [], [], 0)[0])
    except (OSError, ValueError):  # Windows asks sockets only
        return True


def whole(source: int) -> str:
    """Returns all the text behind a file descriptor."""
    return "\n".join(line for lines in portions(source) for line in lines)


def fields(*values: object) -> str:
    """Returns values as one line, with a tab between; white space inside a value becomes a blank.

    >>> fields("a\\nb", 0.25)
    'a b\\t0.250000'
    """
    return "\t".join(f"{value:.6f}" if isinstance(value, float) else " ".join(str(value).split()) for value in values)


def progress_is_welcome() -> bool:
    """Says whether a bar disturbs nobody: answers go to a file and somebody watches."""
    return sys.stderr.isatty() and stat.S_ISREG(os.fstat(sys.stdout.fileno()).st_mode)


def as_a_command(name: str, act: Callable[[], None]) -> int:
    """Runs `act` as people expect of a command and returns its exit code.

    What goes wrong is one line on stderr and exit code 1. A reader who has seen enough (`| head`) ends it in silence,
    and so does Ctrl-C.
    """

    def warn(message: Warning | str, *_where: object, **_more: object) -> None:
        print(f"{name}: warning: {one_line(message)}", file=sys.stderr)

    if sys.stdout is None:
        print(f"{name}: standard output is closed: there is nowhere to write to", file=sys.stderr)
        return 1
    shown, warnings.showwarning = warnings.showwarning, warn
    try:
        act()
        sys.stdout.flush()
        return 0
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # nothing more can be written at exit
        return 141
    except KeyboardInterrupt:
        return 130
    except (ValueError, OSError, ImportError) as error:
        print(f"{name}: {one_line(reason(error))}", file=sys.stderr)
        return 1
    finally:
        warnings.showwarning = shown


def reason(error: Exception) -> object:
    """Returns what went wrong, with the file in front where a call of the system failed on one."""
    if isinstance(error, OSError) and error.filename is not None and error.strerror:
        return f"{error.filename}: {error.strerror}"
    return error


def one_line(message: object) -> str:
    return " ".join(str(message).split())


def columns(line: str, names: Sequence[str]) -> dict[str, str]:
    """Returns the tab-separated columns of a line by name; the last one may hold tabs.

    Raises:
        ValueError: too few.
    """
    found = line.split("\t", len(names) - 1)
    if len(found) != len(names):
        raise ValueError(f"wanted a line of {' TAB '.join(names)}, got {line!r:.60}")
    return dict(zip(names, found, strict=True))
