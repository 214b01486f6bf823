"""Slices of files that are read like files, and the borders at which a file can be cut.

A text file is cut at document borders, a parquet file between row groups. Both are found with a few small reads.
"""

import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bert_jax.data.readers.remote import RemoteFile

BLOCK = 1 << 16  # bytes
# Encodings in which the byte of a line break is part of no other character.
_LINE_BREAK_IS_A_BYTE = re.compile(
    r"utf-8(-sig)?|ascii|iso8859-\d+|cp125\d|cp9(32|49|50)|tis-620|koi8-\w|mac-\w+|gbk|gb18030|gb2312|big5(hkscs)?|shift_jis|euc_\w+"
)
_AFTER_LINE = re.compile(rb"\n")
_AFTER_BLANK_LINE = re.compile(rb"\n[ \t\r\f\v]*\n")


@dataclass(frozen=True)
class FileSlice:
    """The bytes of a file from `start` to `end`, which are borders of documents."""

    file: Path | RemoteFile
    start: int
    end: int

    def __str__(self) -> str:
        return f"{self.file}[bytes {self.start}-{self.end}]"

    @property
    def suffixes(self) -> list[str]:
        return self.file.suffixes

    @property
    def suffix(self) -> str:
        return self.file.suffix

    def open(self, mode: Literal["rb"] = "rb") -> io.BufferedReader:
        """Opens the bytes of the slice."""
        assert mode == "rb"
        return io.BufferedReader(_SliceBytes(self), BLOCK)


@dataclass(frozen=True)
class RowGroups(FileSlice):
    """The row groups of a parquet file from number `start` to before `end`."""

    def __str__(self) -> str:
        return f"{self.file}[row groups {self.start}-{self.end - 1}]"

    def open(self, mode: Literal["rb"] = "rb") -> Any:
        """Opens the whole file."""
        return self.file.open(mode)


class _SliceBytes(io.RawIOBase):
    def __init__(self, part: FileSlice) -> None:
        self._file: Any = part.file.open("rb")
        self._file.seek(part.start)
        self._left = part.end - part.start

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(min(len(buffer), self._left))
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def can_be_cut(encoding: str) -> bool:
    """Returns whether text in an encoding, by its canonical name, can be cut after the byte of a line break."""
    return _LINE_BREAK_IS_A_BYTE.fullmatch(encoding) is not None


def find_borders(file: Any, size: int, pieces: int, *, after_blank_lines: bool) -> list[int]:
    """Returns where to cut a text file in about equal pieces, at borders of documents: [0, ..., size].

    There are fewer pieces if documents are long.

    Args:
        file: open for reading bytes.
        after_blank_lines: documents end with a blank line, and not with each line.
    """
    borders = [0]
    for number in range(1, pieces):
        position = number * size // pieces
        if position > borders[-1]:
            borders.append(_next_border(file, position, size, _AFTER_BLANK_LINE if after_blank_lines else _AFTER_LINE))
    return [*borders, size] if borders[-1] < size else borders


def _next_border(file: Any, position: int, size: int, pattern: re.Pattern[bytes]) -> int:
    """Returns the end of the first match of `pattern` after a position; `size` without one."""
    file.seek(position)
    tail = b""
    while block := file.read(BLOCK):
        data = tail + block
        if match := pattern.search(data):
            return position + match.end()
        last = data.rfind(b"\n")  # a blank line may end in the next block
        tail = data[last:] if last >= 0 and len(data) - last < BLOCK else b""
        position += len(data) - len(tail)
    return size
