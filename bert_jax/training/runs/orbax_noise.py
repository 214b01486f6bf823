"""Keeps the output of Orbax and TensorStore after a failed checkpoint off the terminal: hundreds of pages.

The exception itself is not touched: Checkpoints catches it and reports one line. Two other sources are filtered:

- Orbax logs each exception with its traceback before it raises it.
- TensorStore finishes reads and writes after their event loop was closed. Their coroutines are then freed by the
  garbage collector, in any thread and as late as at exit. No `except` block can catch what they raise there: Python
  passes it to `sys.unraisablehook`, which prints it. This hook is global, but it is the only place to filter such
  errors. Everything that comes neither from Orbax nor from a closed event loop goes on to the previous hook.
"""

import gc
import logging
import sys
import traceback
from pathlib import Path
from typing import Any


def filter_orbax_logs() -> None:
    """Filters that output from now on, and nothing else. Calling it again changes nothing."""
    logging.getLogger("absl").addFilter(_is_not_orbax)
    if not isinstance(sys.unraisablehook, _UnraisableHook):
        sys.unraisablehook = _UnraisableHook(sys.unraisablehook)


def release_frames(error: BaseException) -> None:
    """Frees the unfinished reads and writes that an exception of Orbax keeps alive, before they print at exit."""
    log = logging.getLogger("asyncio")
    disabled = log.disabled
    log.disabled = True
    link: BaseException | None = error
    while link is not None:
        traceback.clear_frames(link.__traceback__)
        link = link.__cause__ or link.__context__
    gc.collect()
    log.disabled = disabled


def _is_not_orbax(record: logging.LogRecord) -> bool:
    return not _in_orbax(record.pathname)


def _in_orbax(file: str) -> bool:
    return "orbax" in Path(file).parts


class _UnraisableHook:
    """A `sys.unraisablehook` that drops unfinished reads and writes of Orbax and passes on everything else."""

    def __init__(self, previous: Any) -> None:
        self.previous = previous

    def __call__(self, unraisable: Any) -> None:
        closed = isinstance(unraisable.exc_value, RuntimeError) and str(unraisable.exc_value) == "Event loop is closed"
        coroutine = getattr(unraisable.object, "cr_code", None)
        if not closed and not (coroutine is not None and _in_orbax(coroutine.co_filename)):
            self.previous(unraisable)
