"""The manifest of a checkpoint: name, size and CRC-32 of each file, and the CRC-32 of this list, in manifest.json.

Orbax reports a missing or truncated file when it reads it, but not a flipped bit in an array. The manifest lies in the
checkpoint's own folder and is written before the rename that completes the checkpoint, so every checkpoint has one. It
protects against accidents, not against an attacker, who can write a manifest too.
"""

import json
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

from bert_jax.files import write_file

CHECKPOINTS = "checkpoints"  # a run's folder of checkpoints
MANIFEST = "manifest.json"  # in the folder of each
_BLOCK = 1 << 20  # bytes read at a time


class Damaged(ValueError):
    """A checkpoint was changed after it was written; the message names the file."""


def write_manifest(folder: Path) -> None:
    """Writes the manifest of all files in the subfolders of `folder`, after syncing each of them to disk."""
    found = {
        str(path.relative_to(folder)): [path.stat().st_size, _crc(path, sync=True)] for path in checkpoint_files(folder)
    }
    write_file(folder / MANIFEST, json.dumps({"files": found, "crc": crc_of_list(found)}))


def check_manifest(folder: Path) -> None:
    """Raises Damaged unless the files in `folder` are those of its manifest, byte for byte."""
    blame = f"{folder}: the checkpoint is damaged"
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        wanted = {name: (size, crc) for name, (size, crc) in manifest["files"].items()}
        intact = manifest.get("crc") in (None, crc_of_list(manifest["files"]))  # early manifests have no crc
    except FileNotFoundError:
        raise Damaged(f"{blame}: {MANIFEST} is missing") from None
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise Damaged(f"{blame}: {MANIFEST} cannot be read") from None
    if not intact:
        raise Damaged(f"{blame}: {MANIFEST} has changed since it was written")
    # Opens only files that are found, never a path that the manifest names.
    found = {str(path.relative_to(folder)): path for path in checkpoint_files(folder)}
    for name, (size, crc) in wanted.items():
        if name not in found:
            raise Damaged(f"{blame}: {name} is missing")
        actual = found[name].stat().st_size
        if actual != size:
            raise Damaged(f"{blame}: {name} has {actual} bytes, {size} were written")
        if _crc(found[name]) != crc:
            raise Damaged(f"{blame}: the content of {name} has changed since it was written")


def crc_of_list(files: dict[str, list[int]]) -> int:
    """Returns the CRC-32 of a manifest's list of files."""
    return zlib.crc32(json.dumps(files).encode())


def checkpoint_files(folder: Path) -> Iterator[Path]:
    """Yields the files in the subfolders, sorted; Orbax still changes those beside the manifest."""
    for path in sorted(folder.glob("*/**/*")):
        if path.is_file() and not path.is_symlink():
            yield path


def _crc(path: Path, *, sync: bool = False) -> int:
    """Returns a file's CRC-32; with `sync`, its bytes are on disk when this returns."""
    crc = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            crc = zlib.crc32(block, crc)
        if sync:
            os.fsync(file.fileno())
    return crc
