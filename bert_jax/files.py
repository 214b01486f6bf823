"""Files that are complete or absent, also after the process was killed or the power was lost.

A file is written under another name in the same folder, synced to the disk and renamed; then its folder is synced. A
reader finds the old file or the new one, never a part of it.
"""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def write_file(path: str | Path, content: str | bytes) -> None:
    """Writes a file, or replaces it, at once; text is encoded as UTF-8.

    Raises:
        OSError: the file cannot be written. A file that was there before is unchanged.
    """
    with replaced(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


@contextmanager
def replaced(path: str | Path) -> Iterator[Path]:
    """Yields the name to write a file under; it is synced and renamed to `path` if the block ends without an error."""
    path = Path(path)
    part = path.with_name(unfinished_name(path.name))
    try:
        yield part
        sync(part)
        part.replace(path)
    except Exception:
        with suppress(OSError):
            part.unlink()
        raise
    sync(path.parent)


def unfinished_name(name: str) -> str:
    """Returns the name under which a file is written before it is renamed: `.best.json.part` for `best.json`."""
    return f".{name}.part"


def sync(path: Path) -> None:
    """Returns once a file, or the names in a folder, would survive a loss of power."""
    try:
        opened = os.open(path, os.O_RDONLY)
    except PermissionError:
        if os.name == "nt":  # Windows opens no folders
            return
        raise
    try:
        os.fsync(opened)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot sync folders
            raise
    finally:
        os.close(opened)
