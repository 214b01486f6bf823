"""Measurements that want a process of their own: of memory, and of what a process does but once.

A script starts itself again, `apart(__file__, ...)`, and `options_of` prints in the new process what it measured as one
line of JSON. Memory is what Linux counts for the process.
"""

import argparse
import ctypes
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

PROCESS = Path("/proc/self")
LOOK_EVERY = 0.005  # seconds
MEBI = 2**20


def apart(script: str, environment: Mapping[str, str] | None = None, **settings: Any) -> dict[str, Any]:
    """Runs `script --apart SETTINGS`, settings as JSON, in a new process; returns the JSON that it prints last."""
    command = [sys.executable, script, "--apart", json.dumps(settings)]
    environment = {**os.environ, **(environment or {})}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def options_of(parser: argparse.ArgumentParser, measure: Callable[..., object]) -> argparse.Namespace:
    """Returns the options of the command line. A process that `apart` started prints what `measure` finds, and ends."""
    parser.add_argument("--apart", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.apart:
        print(json.dumps(measure(**options.apart)))
        sys.exit()
    return options


def resident(name: str) -> int:
    """Returns bytes: VmRSS, what is resident, VmHWM, the most that has been, or RssAnon, without mapped files."""
    found = re.search(rf"{name}:\s+(\d+) kB", (PROCESS / "status").read_text(encoding="utf-8"))
    if found is None:
        raise OSError(f"{PROCESS}/status does not say {name}: memory is measured on Linux")
    return int(found.group(1)) * 1024


class Peak:
    """A `with` block; `bytes` is then how far the process's resident memory rose in it.

    That is the high-water mark that Linux keeps, reset when the block is entered.
    """

    bytes = 0

    def __enter__(self) -> "Peak":
        give_back_freed()
        self.start = resident("VmRSS")
        (PROCESS / "clear_refs").write_text("5")
        return self

    def __exit__(self, *error: object) -> None:
        self.bytes = resident("VmHWM") - self.start


class PrivatePeak:
    """A `with` block; `bytes` is then how far the process's own memory rose in it, looked at every few milliseconds.

    Mapped files are left out: the kernel takes their pages away when others need the room.
    """

    bytes = 0

    def __enter__(self) -> "PrivatePeak":
        give_back_freed()
        self.start, self.over = resident("RssAnon"), threading.Event()
        self.watcher = threading.Thread(target=self.watch)
        self.watcher.start()
        return self

    def watch(self) -> None:
        while not self.over.wait(LOOK_EVERY):
            self.bytes = max(self.bytes, resident("RssAnon") - self.start)

    def __exit__(self, *error: object) -> None:
        self.over.set()
        self.watcher.join()


def give_back_freed() -> None:
    """Gives the system back what was freed, so that to use it again is a rise."""
    ctypes.CDLL(None).malloc_trim(0)
