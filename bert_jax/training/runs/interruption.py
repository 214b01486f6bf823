"""SIGTERM and SIGINT as a request: the loop saves at its next step and the run ends, to be started again.

A supervisor sees the exit code 128 + signal, as a shell has it. It is not 0, which would mean that the run is complete:
Kubernetes and systemd start it again, and Slurm requeues a preempted job whatever it returns. A second Ctrl-C ends the
process at once: a thread sees to that, because Python calls a handler only when the main thread comes back from a step,
and once for two signals that came meanwhile.

Of several processes a signal may reach one alone, or each at another step. JAX's coordination service then tells all of
them the same step to stop at. SIGTERM is left to it, and the first Ctrl-C is passed on to it as one.
"""

import os
import signal
import threading
from collections.abc import Collection
from types import FrameType, TracebackType
from typing import Any

import jax
from jax.experimental import multihost_utils

END = 0  # no signal has this number


class Interrupted(Exception):
    """A run was asked to end, and has saved what it did.

    Attributes:
        signal: what asked.
        step: the step that was saved.
    """

    def __init__(self, signal: signal.Signals, step: int) -> None:
        super().__init__(f"{signal.name}: saved at step {step:,}")
        self.signal, self.step = signal, step

    @property
    def exit_code(self) -> int:
        return 128 + self.signal


class Interruption:
    """Listens for signals; a context manager, for the main thread."""

    def __init__(self) -> None:
        self.received: signal.Signals | None = None
        self.shared = jax.process_count() > 1
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        for number in (signal.SIGINT,) if self.shared else (signal.SIGINT, signal.SIGTERM):
            self.before[number] = signal.signal(number, self.receive)
        heard, self.told = os.pipe()
        os.set_blocking(self.told, False)
        self.told_before = signal.set_wakeup_fd(self.told)
        self.listener = threading.Thread(target=listen, args=(heard, set(self.before)), daemon=True)
        self.listener.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self.told_before)
        os.write(self.told, bytes([END]))
        self.listener.join()
        os.close(self.told)
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Notes a request, of several processes for all of them."""
        if self.shared:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self.received = self.received or signal.Signals(number)

    def requested(self, step: int) -> bool:
        """Says whether the run is to save `step` and end; every process asks, and gets the same answer."""
        if self.shared and self.received is None and multihost_utils.reached_preemption_sync_point(step):
            self.received = signal.SIGTERM
        return self.received is not None


def listen(heard: int, requests: Collection[int]) -> None:
    """Reads the signals that Python writes to a pipe as they come; ends the process at a SIGINT after a request."""
    asked = False
    while (number := os.read(heard, 1)[0]) != END:
        if number == signal.SIGINT and asked:
            os._exit(128 + signal.SIGINT)
        asked = asked or number in requests
    os.close(heard)
