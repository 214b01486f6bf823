"""SIGTERM and SIGINT as a request: the loop saves at its next step and the run ends, to be started again.

A supervisor sees the exit code 128 + signal, as a shell has it. It is not 0, which would mean that the run is complete:
Kubernetes and systemd start it again, and Slurm requeues a preempted job whatever it returns. A second Ctrl-C ends the
process at once.

Of several processes a signal may reach one alone, or each at another step. JAX's coordination service then tells all of
them the same step to stop at. SIGTERM is left to it, and the first Ctrl-C is passed on to it as one.
"""

import os
import shlex
import signal
import sys
from types import FrameType, TracebackType
from typing import Any

import jax
from jax.experimental import multihost_utils


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
        self.asked = False
        self.shared = jax.process_count() > 1
        self.before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        for number in (signal.SIGINT,) if self.shared else (signal.SIGINT, signal.SIGTERM):
            self.before[number] = signal.signal(number, self.receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Notes the first request, of several processes for all of them; a SIGINT after it ends the process."""
        if number == signal.SIGINT and self.asked:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        self.asked = True
        if self.shared:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self.received = signal.Signals(number)

    def requested(self, step: int) -> bool:
        """Says whether the run is to save `step` and end; every process asks, and gets the same answer."""
        if self.shared and self.received is None and multihost_utils.reached_preemption_sync_point(step):
            self.received = signal.SIGTERM
        return self.received is not None


def command_to_resume() -> str:
    """Returns the command line of this process, made to go on."""
    return shlex.join([*(word for word in sys.orig_argv if word not in ("--overwrite", "--resume")), "--resume"])
