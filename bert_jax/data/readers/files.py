"""Opens text files, compressed or not, and recognises files that are no text.

Compression is recognised by the first bytes of a file and never by its name, so `texts.csv` may be compressed and
`texts.csv.gz` may not be. gzip, bzip2, xz, zstd and lz4 are decompressed as a stream. Archives and documents are
refused by name: they hold other files, or no lines of text.
"""

import bz2
import codecs
import gzip
import io
import lzma
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa

from bert_jax.data.readers.remote import RemoteFile
from bert_jax.data.readers.slices import FileSlice

File = Path | RemoteFile | FileSlice

COMPRESSED_SUFFIXES = frozenset({".gz", ".bz2", ".xz", ".zst", ".lz4"})
_COMPRESSIONS = (
    (b"\x1f\x8b\x08", "gzip"),
    *((b"BZh%d1AY&SY" % level, "bzip2") for level in range(1, 10)),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"\x50\x2a\x4d\x18", "zstd"),  # a skippable frame, which parallel compressors write first
    (b"\x04\x22\x4d\x18", "lz4"),
)
_NO_TEXTS = (
    (b"PK\x03\x04", "a zip archive (.xlsx and .docx are zip archives too); unpack it, or export it as text"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive; unpack it"),
    (b"Rar!\x1a\x07", "a rar archive; unpack it"),
    (b"\x1f\x9d", "compressed by `compress`; decompress it"),
    (b"%PDF-", "a PDF document; export it as text"),
    (b"PAR1", "a parquet file; its name must end in .parquet"),
    (b"ARROW1", "an Arrow file; save it as .parquet"),
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the data; run `git lfs pull`"),
)
_TAR = slice(257, 262)  # a tar archive has b"ustar" here
_HEAD = 512  # bytes that are enough to recognise all of these
_BLOCK = 1 << 16  # bytes


@contextmanager
def open_text(path: File, encoding: str, newline: str | None = None) -> Iterator[TextIO]:
    """Opens a text file, which may be compressed, to be read once from its beginning.

    Raises:
        ValueError: the file is an archive or no text; or, while it is read, bytes that are not in the encoding, or
            compressed data that are damaged or cut off; with the line number, and for the latter the byte in the file.
        ConnectionError: a remote file cannot be read to its end.
    """
    if _is_continued(path):
        encoding = encoding.removesuffix("-sig")
    try:
        with _open_bytes(path) as data, io.TextIOWrapper(data, encoding, newline=newline) as file:
            yield file
    except UnicodeDecodeError:
        line = _undecodable_line(path, encoding)
        raise ValueError(f"{path}:{line}: not {encoding.removesuffix('-sig')}; set `encoding`") from None


def format_of(path: File) -> str:
    """Returns the suffix that names a file's format, in lower case: `.csv` for `a.csv` and for `a.CSV.gz`."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if len(suffixes) > 1 and suffixes[-1] in COMPRESSED_SUFFIXES:
        suffixes.pop()
    return suffixes[-1] if suffixes else ""


def compression_of(file: io.BufferedReader) -> str | None:
    """Returns the name of a compression by the next bytes of a file; None if they are not compressed."""
    return _matching(file.peek(_HEAD), _COMPRESSIONS)


def _is_continued(path: File) -> bool:
    """Returns whether a slice begins inside a file, where bytes do not say what the file is."""
    return isinstance(path, FileSlice) and path.start > 0


@contextmanager
def _open_bytes(path: File) -> Iterator[io.BufferedReader]:
    """Opens the bytes of a file, decompressed."""
    with path.open("rb") as file:
        if _is_continued(path):
            yield file
            return
        compression = compression_of(file)
        if compression is None:
            data: Any = file
        else:
            data = io.BufferedReader(_Decompressed(path, compression, file), _BLOCK)
        head = data.peek(_HEAD)
        refused = "a tar archive; unpack it" if head[_TAR] == b"ustar" else _matching(head, _NO_TEXTS)
        if refused:
            raise ValueError(f"{path}: {refused}")
        yield data


def _decompress(file: Any, compression: str) -> Any:
    match compression:
        case "gzip":
            return gzip.GzipFile(fileobj=file)
        case "bzip2":
            return bz2.BZ2File(file)
        case "xz":
            return lzma.LZMAFile(file)
    return pa.CompressedInputStream(pa.PythonFile(file), compression)


class _Decompressed(io.RawIOBase):
    """The bytes of a decompressor, whose errors become one kind of error with the number of a line and of a byte.

    The line is one of the decompressed text, the byte one of the file as it is stored. A decompressor reads ahead, so
    damaged data are before this byte. Data that are cut off end there.
    """

    def __init__(self, path: File, compression: str, file: io.BufferedReader) -> None:
        self._path = path
        self._compression = compression
        self._file = file
        self._stream = _decompress(file, compression)
        self._line = 1

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._stream.read1(len(buffer))
        except ConnectionError:
            raise
        except (EOFError, OSError, zlib.error, lzma.LZMAError) as error:
            what = f"the {self._compression} data are damaged or cut off at or before byte {self._file.tell():,}"
            raise ValueError(f"{self._path}:{self._line}: {what} ({error})") from None
        buffer[: len(data)] = data
        self._line += data.count(b"\n")
        return len(data)


def _matching(head: bytes, table: tuple[tuple[bytes, str], ...]) -> str | None:
    return next((meaning for magic, meaning in table if head.startswith(magic)), None)


def _undecodable_line(path: File, encoding: str) -> int:
    """Returns the number of the first line that is not in the encoding; files are decoded in blocks, without one."""
    codecs.register_error("bert_jax.mark", lambda error: ("\udc80", getattr(error, "end", 0)))
    with _open_bytes(path) as data, io.TextIOWrapper(data, encoding, errors="bert_jax.mark") as file:
        return next(number for number, line in enumerate(file, 1) if "\udc80" in line)
