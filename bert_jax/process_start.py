"""Whether the process that wrote a file still runs, processes that end with their parent, and the cores of this one.

A process id alone may be used again: the id and the start time together identify a process, until the machine is
started again.
"""

import multiprocessing
import os
import threading
from pathlib import Path


def is_running(process: int, started: int) -> bool:
    """Returns whether a process of this machine runs, as far as is known, that started at `started`."""
    return start_time(process) in (started, 0)


def start_time(process: int) -> int | None:
    """Returns when a process started, in clock ticks since the boot; 0 if that is hidden, None if it has ended."""
    try:
        state, *fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        return None if state in "ZX" else int(fields[18])  # fields 3 and 22 of proc(5)
    except OSError:
        if os.name != "posix":
            return 0
    try:
        os.kill(process, 0)  # sends nothing
    except ProcessLookupError:
        return None
    except PermissionError:  # the process of another user
        pass
    return 0


def num_cores() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def end_with_parent() -> None:
    """Ends this process when its parent is gone, even if it was killed; otherwise a worker would wait forever."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
