"""Folders that are complete or absent, and that say which content they have.

A folder is filled under a temporary name, gets a file with the SHA-256 of all others and of itself, and is renamed. It
is made again if a file has other bytes, or if it was made from something else.
"""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bert_jax.data.readers.cache import new_folder, unfinished_path
from bert_jax.files import write_file

SEAL = "complete.json"
Content = dict[str, Any]


def make_once(folder: Path, made_from: Any, make: Callable[[Path], Content]) -> Content:
    """Fills a folder, unless it is there, whole, and made from the same; returns its content.

    Args:
        made_from: JSON; all that decides the content.
        make: writes files into an empty folder, and returns what is to be remembered about them, as JSON.

    Returns:
        What `make` returned, and `files`: the SHA-256 of each file.
    """
    origin = digest(made_from)
    made = _read_made(folder, origin)
    if made is not None:
        return made
    with new_folder(folder) as unfinished:
        content = {**make(unfinished), "made_from": origin, "files": _hashes(unfinished)}
        sealed = {"content": content, "sha256": digest(content)}
        (unfinished / SEAL).write_text(json.dumps(sealed, ensure_ascii=False), encoding="utf-8")
        if _read_made(folder, origin) is None:  # another process may have been quicker
            _remove(folder)
    return content


def write_whole(path: Path, content: str) -> None:
    """Writes a file at once; other processes may write the same content at the same time."""
    unfinished = unfinished_path(path)
    write_file(unfinished, content)
    unfinished.replace(path)


def read_sealed(folder: Path) -> Content | None:
    """Returns the content of a folder; None if there is none, or if a file is missing, damaged or was added."""
    return None if damaged_files(folder) else read_content(folder)


def damaged_files(folder: Path) -> list[str]:
    """Returns the names of the files of a folder that are missing, have other bytes, or were added."""
    content = read_content(folder)
    if content is None:
        return [SEAL]
    differing = content["files"].items() ^ _hashes(folder).items()
    return sorted({name for name, _ in differing})


def read_content(folder: Path) -> Content | None:
    """Returns the content of a folder, whose other files are not read; None if there is none, or if it is damaged."""
    try:
        sealed = json.loads((folder / SEAL).read_text(encoding="utf-8"))
        return sealed["content"] if digest(sealed["content"]) == sealed["sha256"] else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _read_made(folder: Path, origin: str) -> Content | None:
    content = read_sealed(folder)
    return content if content is not None and content["made_from"] == origin else None


def digest(content: Any) -> str:
    """Returns the SHA-256 of JSON."""
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _hashes(folder: Path) -> dict[str, str]:
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != SEAL and not path.name.startswith("."):  # of a file manager, or of NFS
            with path.open("rb") as file:
                found[path.relative_to(folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def _remove(folder: Path) -> None:
    """Removes a folder that is to be replaced; another process may do the same."""
    if folder.is_dir():
        damaged = unfinished_path(folder)
        try:
            folder.rename(damaged)
        except FileNotFoundError:
            return
        shutil.rmtree(damaged, ignore_errors=True)
