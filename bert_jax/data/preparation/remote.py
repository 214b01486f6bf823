"""Stores on object stores: copied to the cache once, with their hashes checked."""

import glob
import json
from functools import cache
from pathlib import Path, PurePosixPath

from tqdm import tqdm

from bert_jax.data.preparation.manifest import MANIFEST, SIDES, STORE, part_name
from bert_jax.data.preparation.sealed import read_sealed
from bert_jax.data.readers.cache import new_folder
from bert_jax.data.readers.remote import filesystem_of

NOT_COPIED = ("words", "duplicates")  # stages before the tokens


@cache
def is_remote_store(url: str) -> bool:
    """Returns whether a URL, one without a suffix, names a complete store."""
    if glob.has_magic(url) or PurePosixPath(url.rstrip("/")).suffix:
        return False
    filesystem, path = filesystem_of(url)
    try:
        return filesystem.isfile(f"{path.rstrip('/')}/{STORE}")
    except Exception:  # each filesystem has exceptions of its own; the readers report them
        return False


def fetch_store(url: str, cache_dir: Path) -> Path:
    """Copies a store to the cache, unless it is there; returns its folder.

    Raises:
        ValueError: a file has other bytes than when it was prepared.
        OSError: it cannot be copied.
    """
    filesystem, path = filesystem_of(url)
    path = path.rstrip("/")
    try:
        content = json.loads(filesystem.cat_file(f"{path}/{STORE}"))
        folder = cache_dir / f"store-{content['fingerprint'][:32]}"
        if folder.is_dir():
            return folder
        names = [PurePosixPath(name).relative_to(path) for name in filesystem.find(path)]
        wanted = [name for name in names if name.parts[0] not in NOT_COPIED and not name.parts[0].startswith(".")]
        with new_folder(folder) as unfinished:
            for name in tqdm(wanted, "copying", unit=" files", disable=None):
                target = unfinished / name
                target.parent.mkdir(parents=True, exist_ok=True)
                filesystem.get_file(f"{path}/{name}", str(target))
            _require_whole(url, unfinished)
    except (OSError, ValueError):
        raise
    except Exception as error:
        raise OSError(f"{url}: cannot be copied ({error!r:.200})") from None
    return folder


def _require_whole(url: str, folder: Path) -> None:
    """Raises ValueError unless all parts are there, with the hashes that they were prepared with."""
    parts = len(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))["parts"])
    for name in (*SIDES, *map(part_name, range(parts))):
        if read_sealed(folder / name) is None:
            raise ValueError(f"{url}/{name}: a file is missing or has other bytes than when it was prepared")
