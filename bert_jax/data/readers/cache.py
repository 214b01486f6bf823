"""Cache folders that are complete or absent.

Data computed from a corpus is cached in a folder named after a hash of its inputs. The folder is filled under a
temporary name and then renamed: a folder that exists is complete, even if a process was killed. Of two processes that
compute the same data, the later one finds the folder of the first and deletes its own.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

CACHE_DIR = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "bert_jax")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty folder to fill; it is renamed to `folder` if the block ends without an error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.{uuid4().hex}")
    unfinished.mkdir()
    try:
        yield unfinished
        try:
            os.rename(unfinished, folder)
        except OSError:
            if not folder.is_dir():
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
