"""Cache folders that are complete or absent.

Data computed from a corpus is cached in a folder named after a hash of its inputs. The folder is filled under a
temporary name and then renamed: a folder that exists is complete, even if a process was killed. Of two processes that
compute the same data, the later one finds the folder of the first and deletes its own.

The temporary name says which process fills the folder. The next process that fills one deletes those of processes that
are gone. What runs on another machine, or in another container, is unknown here: such folders stay.
"""

import os
import re
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from bert_jax.process_start import is_running, start_time

CACHE_DIR = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "bert_jax")
# .NAME@MACHINE@PID@START@RANDOM
_UNFINISHED = re.compile(r"\..+@(?P<machine>[^@]+)@(?P<pid>\d+)@(?P<start>\d+)@[0-9a-f]+")


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """Yields an empty folder to fill; it is renamed to `folder` if the block ends without an error."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    for abandoned in abandoned_folders(folder.parent):
        shutil.rmtree(abandoned, ignore_errors=True)
    unfinished = unfinished_path(folder)
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


def unfinished_path(path: Path) -> Path:
    """Returns a new temporary name, which says that this process has it."""
    pid = os.getpid()
    return path.with_name(f".{path.name}@{_machine()}@{pid}@{start_time(pid)}@{uuid4().hex[:8]}")


def abandoned_folders(cache_dir: Path, *, other_machines: bool = False) -> list[Path]:
    """Returns the unfinished folders of this machine's processes that are gone, and of all processes of others."""
    found = []
    for path in sorted(cache_dir.glob(".*@*")):
        owner = _UNFINISHED.fullmatch(path.name)
        if owner is None:
            continue
        is_ours = owner["machine"] == _machine()
        if other_machines if not is_ours else not is_running(int(owner["pid"]), int(owner["start"])):
            found.append(path)
    return found


def _machine() -> str:
    """Returns the name of this machine and, on Linux, its space of process ids: a container has another one."""
    host = re.sub(r"[^\w.-]", "_", socket.gethostname())[:64]
    try:
        return f"{host}-{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return host
