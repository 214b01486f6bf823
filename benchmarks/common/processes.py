"""Measurements in a separate process: memory, and one-time costs such as compilation.

A script starts itself again with `run_in_new_process(__file__, ...)`. In the new process `parse_options` runs the
measurement and prints its result as one line of JSON. Memory is what Linux counts for the process.
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
POLL_SECONDS = 0.005
MEBI = 2**20


def run_in_new_process(script: str, environment: Mapping[str, str] | None = None, **arguments: Any) -> dict[str, Any]:
    """Runs `script --worker ARGUMENTS`, arguments as JSON, in a new process; returns the JSON that it prints last."""
    command = [sys.executable, script, "--worker", json.dumps(arguments)]
    environment = {**os.environ, **(environment or {})}
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def parse_options(parser: argparse.ArgumentParser, measure: Callable[..., object]) -> argparse.Namespace:
    """Parses the command line; with `--worker`, prints what `measure` returns as JSON and exits."""
    parser.add_argument("--worker", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(measure(**options.worker)))
        sys.exit()
    return options


def process_memory(field: str) -> int:
    """Returns a field of /proc/self/status in bytes.

    VmRSS is the resident memory, VmHWM its peak, RssAnon the resident memory without mapped files, VmData what
    RLIMIT_DATA limits.
    """
    found = re.search(rf"{field}:\s+(\d+) kB", (PROCESS / "status").read_text(encoding="utf-8"))
    if found is None:
        raise OSError(f"{PROCESS}/status has no {field}: memory is measured on Linux only")
    return int(found.group(1)) * 1024


class ResidentPeak:
    """A `with` block; `bytes` is then how far the process's resident memory rose inside it.

    Linux keeps that peak; entering the block resets it.
    """

    bytes = 0

    def __enter__(self) -> "ResidentPeak":
        _trim_heap()
        self.start = process_memory("VmRSS")
        (PROCESS / "clear_refs").write_text("5")
        return self

    def __exit__(self, *error: object) -> None:
        self.bytes = process_memory("VmHWM") - self.start


class PrivatePeak:
    """A `with` block; `bytes` is then how far the process's private memory rose inside it, polled every 5 ms.

    Mapped files do not count: the kernel drops their pages when others need the memory.
    """

    bytes = 0

    def __enter__(self) -> "PrivatePeak":
        _trim_heap()
        self.start = process_memory("RssAnon")
        self.finished = threading.Event()
        self.poller = threading.Thread(target=self._poll)
        self.poller.start()
        return self

    def _poll(self) -> None:
        while not self.finished.wait(POLL_SECONDS):
            self.bytes = max(self.bytes, process_memory("RssAnon") - self.start)

    def __exit__(self, *error: object) -> None:
        self.finished.set()
        self.poller.join()


def _trim_heap() -> None:
    """Returns freed memory to the system, so that allocating it again counts."""
    ctypes.CDLL(None).malloc_trim(0)
