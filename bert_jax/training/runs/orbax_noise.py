"""What Orbax and TensorStore print of a checkpoint that fails: hundreds of pages, kept from the terminal.

The failure itself is raised, and told in one line by whoever catches it. What is kept back here comes besides: Orbax
logs every exception with its trace before it raises it, and reads and writes that TensorStore finishes after their
event loop was closed complain when they find it so, or when the interpreter frees them.
"""

import gc
import logging
import sys
import traceback
from pathlib import Path
from typing import Any


def filter_logs() -> None:
    """Keeps that noise back from now on, and nothing else."""
    logging.getLogger("absl").addFilter(not_of_orbax)
    if not isinstance(sys.unraisablehook, Hook):
        sys.unraisablehook = Hook(sys.unraisablehook)


def release(error: BaseException) -> None:
    """Frees what a failure of Orbax has left unfinished, so that it is not met again at exit."""
    log = logging.getLogger("asyncio")
    disabled, log.disabled = log.disabled, True
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
    gc.collect()
    log.disabled = disabled


def not_of_orbax(record: logging.LogRecord) -> bool:
    return not in_orbax(record.pathname)


def in_orbax(file: str) -> bool:
    return "orbax" in Path(file).parts


class Hook:
    """A hook for exceptions that nobody can catch: passes on all but those of reads and writes left unfinished."""

    def __init__(self, before: Any) -> None:
        self.before = before

    def __call__(self, found: Any) -> None:
        late = isinstance(found.exc_value, RuntimeError) and str(found.exc_value) == "Event loop is closed"
        coroutine = getattr(found.object, "cr_code", None)
        if not late and not (coroutine is not None and in_orbax(coroutine.co_filename)):
            self.before(found)
