"""Files on object stores and web servers, by URL: `s3://bucket/a.txt.gz`, `hf://datasets/org/name/*.parquet`, `https://`.

fsspec finds and opens them, with the credentials that it finds in the environment. A file is read in blocks, and each
block is a range request. If a connection breaks, the block is requested again. A web server that sends no ranges is
read as one stream; if that breaks, it is read again from its beginning, up to the same place.
"""

import glob
import io
import re
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import fsspec
import fsspec.config
from fsspec.implementations.local import LocalFileSystem

from bert_jax.messages import first_line

FIRST_BLOCK = 1 << 16  # bytes: enough to see what a file is; each further block is twice as large
LARGEST_BLOCK = 1 << 23  # bytes
WAITS = (1.0, 4.0, 16.0)  # seconds before a block is requested again
# What says that a file has changed, by the names that filesystems use; the first one that is there is used.
VERSIONS = (
    "ETag", "etag", "md5Hash", "Content-MD5", "Digest", "crc32c", "blob_id", "checksum",
    "LastModified", "Last-Modified", "last_modified", "updated", "mtime", "modificationTime", "created",
)  # fmt: skip
_EXTRA = {"s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "http": "aiohttp", "https": "aiohttp"}
_URL = re.compile(r"(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*)(://|::)")


@dataclass(frozen=True)
class RemoteFile:
    """A file that has a URL and is read like a local `Path`.

    Attributes:
        size: in bytes; None if the server does not say.
        version: ETag, checksum or time of the last change; None if the server has none of them.
    """

    url: str
    size: int | None
    version: str | None
    _filesystem: Any = field(repr=False, compare=False)
    _path: str = field(repr=False, compare=False)

    def __str__(self) -> str:
        return self.url

    @property
    def suffixes(self) -> list[str]:
        """The suffixes of the file's name, without the query of a web address."""
        # Of a chain, such as zip://a.txt::s3://bucket/b.zip, the first URL has the name.
        name = next(part for part in self.url.split("::") if "://" in part)
        return PurePosixPath(re.split("[?#]", name)[0] if self.is_web else name).suffixes

    @property
    def suffix(self) -> str:
        """The last suffix."""
        return self.suffixes[-1] if self.suffixes else ""

    @property
    def is_web(self) -> bool:
        """Whether a web server has the file."""
        return _is_web(self._filesystem)

    def open(self, mode: Literal["rb"] = "rb") -> io.BufferedReader:
        """Opens the bytes of the file; nothing is requested before they are read."""
        assert mode == "rb"
        return io.BufferedReader(_RemoteBytes(self), FIRST_BLOCK)

    def connect(self, *, ranges: bool) -> Any:
        """Returns fsspec's open file, which keeps no blocks; without `ranges` it can only be read once, in order."""
        options = {"cache_type": "none"} if ranges else {"block_size": 0}
        return self._filesystem.open(self._path, "rb", **options)


def is_url(source: str) -> bool:
    """Returns whether a source is the URL of a file."""
    return _URL.match(source) is not None


def find_remote(url: str) -> list[RemoteFile] | Path:
    """Returns the files that a URL, or a pattern of URLs, names, sorted; of a `file://` URL the local path.

    Raises:
        ValueError: no filesystem for the scheme.
        ImportError: the package of the filesystem is missing.
        OSError: no such file, no file that matches, a folder, no access, or no connection.
    """
    filesystem, path = filesystem_of(url)
    if isinstance(filesystem, LocalFileSystem):
        return Path(path)
    is_pattern = "*" in path if _is_web(filesystem) else glob.has_magic(path)  # a web address may hold ? and [
    try:
        filesystem.invalidate_cache()  # a long-lived process may have listed a folder hours ago
        if is_pattern and not filesystem.isfile(path):
            found = filesystem.glob(path, detail=True)
            names = sorted(name for name, info in found.items() if info["type"] != "directory")
            if not names:
                raise FileNotFoundError
            return [_described(filesystem, url, found[name]) for name in names]
        info = filesystem.info(path)
        if info["type"] == "directory":
            raise IsADirectoryError(f"{url} is a folder; name its files, as in {url.rstrip('/')}/*.txt")
        return [_described(filesystem, url, info)]
    except IsADirectoryError:
        raise
    except Exception as error:  # each filesystem has exceptions of its own
        if is_pattern and isinstance(error, FileNotFoundError) and _refusal(url, error):
            raise FileNotFoundError(f"no file matches {url}") from None
        raise _refusal(url, error) or ConnectionError(f"{url}: cannot be reached ({_reason(error)})") from None


def filesystem_of(url: str) -> tuple[Any, str]:
    """Returns the filesystem of a URL and the path in it."""
    match = _URL.match(url)
    assert match is not None
    scheme = match["scheme"].lower()
    try:
        return fsspec.url_to_fs(url, **(_web_options(scheme) if scheme in ("http", "https") else {}))
    except ImportError as error:
        package = _EXTRA.get(scheme)
        remedy = f'{package} is not installed: run pip install "bert_jax[remote]"' if package else first_line(error)
        raise ModuleNotFoundError(f"{url}: {remedy}") from None
    except Exception as error:
        if scheme not in fsspec.available_protocols():
            raise ValueError(f"{url}: no filesystem for the scheme {scheme}") from None
        raise _refusal(url, error) or OSError(f"{url}: cannot be opened ({_reason(error)})") from None


def _web_options(scheme: str) -> dict[str, Any]:
    """Returns options of fsspec's filesystem for the web, those of its configuration included, and a time limit.

    By default a request ends after five minutes, also if bytes still arrive.
    """
    import aiohttp  # pyright: ignore[reportMissingImports]

    limit = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
    configured = fsspec.config.conf.get(scheme, {}).get("client_kwargs", {})
    return {"client_kwargs": {"timeout": limit, **configured}}


def _described(filesystem: Any, source: str, info: dict[str, Any]) -> RemoteFile:
    """Returns a file as its filesystem describes it; a list of links has no sizes, so each file is asked about."""
    if info.get("size") is None:
        info = filesystem.info(info["name"])
    _, chain, rest = source.partition("::")
    url = filesystem.unstrip_protocol(info["name"]) + chain + rest
    version = next((f"{name} {info[name]}" for name in VERSIONS if info.get(name)), None)
    return RemoteFile(url, info.get("size"), version, filesystem, info["name"])


def _is_web(filesystem: Any) -> bool:
    return "https" in filesystem.protocol


def _refusal(url: str, error: Exception) -> OSError | None:
    """Returns the error of a server that refuses a file; None if it may be sent when it is requested again."""
    cause = error.__cause__ or error
    answer: Any = cause
    status = answer.status if hasattr(answer, "status") else getattr(answer, "code", None)
    if isinstance(error, PermissionError) or status in (401, 403):
        return PermissionError(f"{url}: no access ({_reason(error)})")
    # fsspec reports every problem of a web server as a missing file; the cause says what it was.
    is_unknown = type(cause).__module__.startswith("aiohttp") or isinstance(cause, TimeoutError)
    if status in (404, 410) or (isinstance(error, FileNotFoundError) and not is_unknown):
        return FileNotFoundError(f"no such file: {url}")
    return None


def _reason(error: Exception) -> str:
    return first_line(error.__cause__ or error)


class _RemoteBytes(io.RawIOBase):
    """The bytes of a remote file, which are requested in blocks, and again if a connection breaks."""

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._ranges = file.size is not None
        self._connection: Any = None
        self._connected_at = 0  # position of the connection, if it is a stream
        self._block = b""
        self._start = 0  # position of the block
        self._position = 0
        self._next_size = FIRST_BLOCK

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return self._ranges

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_CUR:
            offset += self._position
        elif whence == io.SEEK_END:
            if self._file.size is None:
                raise io.UnsupportedOperation(f"{self._file}: the server does not say how long the file is")
            offset += self._file.size
        self._position = offset
        return offset

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        offset = self._position - self._start
        if not 0 <= offset < len(self._block):
            self._read_block(len(buffer))
            offset = 0
        data = self._block[offset : offset + len(buffer)]
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._disconnect()
        super().close()

    def _read_block(self, wanted: int) -> None:
        """Reads the block at the position; it is empty at the end of the file."""
        follows = self._position == self._start + len(self._block)
        size = min(max(wanted, self._next_size if follows else FIRST_BLOCK), LARGEST_BLOCK)
        if self._file.size is not None:
            size = min(size, self._file.size - self._position)
        self._block = self._request(size) if size > 0 else b""
        self._start = self._position
        self._next_size = 2 * size

    def _request(self, size: int) -> bytes:
        """Returns up to `size` bytes at the position, none only at the end of a file of unknown size."""
        of = "" if self._file.size is None else f" of {self._file.size:,}"
        reason = ""
        for wait in (0.0, *WAITS):
            time.sleep(wait)
            try:
                data = self._receive(size)
            except Exception as error:  # each filesystem has exceptions of its own
                self._disconnect()
                refusal = _refusal(str(self._file), error)
                if refusal is not None:
                    raise refusal from None
                reason = _reason(error)
            else:
                if data or self._file.size is None:
                    return data
                self._disconnect()
                reason = "no more bytes arrive"
        raise ConnectionError(
            f"{self._file}: the connection broke at byte {self._position:,}{of}, and again when it was tried "
            f"{len(WAITS)} more times ({reason})"
        )

    def _receive(self, size: int) -> bytes:
        if self._ranges:
            try:
                if self._connection is None:
                    self._connection = self._file.connect(ranges=True)
                self._connection.seek(self._position)
                return self._connection.read(size)
            except ValueError:
                if not self._file.is_web:
                    raise
                self._disconnect()
                self._ranges = False  # the server sends the whole file whatever range is requested
        if self._connection is None or self._connected_at > self._position:
            self._disconnect()
            self._connection = self._file.connect(ranges=False)
            self._connected_at = 0
        while self._connected_at < self._position:
            skipped = len(self._connection.read(min(LARGEST_BLOCK, self._position - self._connected_at)))
            if not skipped:
                return b""
            self._connected_at += skipped
        data = self._connection.read(size)
        self._connected_at += len(data)
        return data

    def _disconnect(self) -> None:
        if self._connection is not None:
            with suppress(Exception):
                self._connection.close()
            self._connection = None
