"""What the files of a checkpoint were when they were written: the name, size and CRC-32 of each, in manifest.json, and
that of the list itself.

Orbax finds a file that is missing or cut off when it comes to read it; a flipped bit in an array it does not find. The
manifest lies in the checkpoint's own folder and is written before the rename that makes the folder visible, so there is
no checkpoint without one. It is proof against accidents, not against somebody who writes a manifest too.
"""

import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

MANIFEST = "manifest.json"
BLOCK = 1 << 20  # bytes read at a time


class Damaged(ValueError):
    """A checkpoint is not as it was written; the message names the file."""


def seal(folder: Path) -> None:
    """Writes the manifest of all files in the folders below `folder`, each of them safe on disk by then."""
    found = {str(path.relative_to(folder)): [path.stat().st_size, checksum(path, flush=True)] for path in files(folder)}
    (folder / MANIFEST).write_text(json.dumps({"files": found, "crc": checksum_of(found)}), encoding="utf-8")


def check_seal(folder: Path) -> None:
    """Raises Damaged unless the files below `folder` are those of its manifest, byte for byte."""
    blame = f"{folder}: the checkpoint is damaged"
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        wanted = {name: (size, crc) for name, (size, crc) in manifest["files"].items()}
        intact = manifest.get("crc") in (None, checksum_of(manifest["files"]))  # older manifests have none
    except FileNotFoundError:
        raise Damaged(f"{blame}: {MANIFEST} is missing") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Damaged(f"{blame}: {MANIFEST} cannot be read") from None
    if not intact:
        raise Damaged(f"{blame}: {MANIFEST} is not as it was written")
    # Only files that are found are opened, never a path that the manifest names.
    found = {str(path.relative_to(folder)): path for path in files(folder)}
    for name, (size, crc) in wanted.items():
        if name not in found:
            raise Damaged(f"{blame}: {name} is missing")
        if (here := found[name].stat().st_size) != size:
            raise Damaged(f"{blame}: {name} has {here} bytes, {size} were written")
        if checksum(found[name]) != crc:
            raise Damaged(f"{blame}: the bytes of {name} are not those that were written")


def files(folder: Path) -> Iterator[Path]:
    """Yields the files in the folders below one, in order; those beside the manifest are Orbax's notes to itself."""
    for path in sorted(folder.glob("*/**/*")):
        if path.is_file() and not path.is_symlink():
            yield path


def checksum_of(found: dict[str, list[int]]) -> int:
    """Returns the CRC-32 of a manifest's list of files."""
    return zlib.crc32(json.dumps(found).encode())


def checksum(path: Path, *, flush: bool = False) -> int:
    """Returns a file's CRC-32; with `flush` its bytes are on disk when this returns."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            crc = zlib.crc32(block, crc)
        if flush:
            os.fsync(file.fileno())
    return crc
