"""Signals that ask a run to end: the loop saves a checkpoint at the next step, and the run can be resumed.

They are SIGTERM, SIGINT and those that `save_on_signal` names, such as SIGUSR1 of `sbatch --signal=USR1@180`.

The process exits with 128 + signal, as in a shell. A supervisor must not see 0, which means that the run is complete:
Kubernetes and systemd restart the process after any other code, and Slurm requeues a preempted job anyway.

A second Ctrl-C raises KeyboardInterrupt as soon as the main thread is back from a compiled step; a program's process
ends at once (`second_interrupt_exits`). A thread counts them, because Python calls a signal handler only after the main
thread has returned from a step, and then once for two signals.

Of several processes only one may receive the signal, or each at a different step. JAX's coordination service then gives
all of them the same step to stop at. SIGTERM is left to it; the other signals are passed on to it as SIGTERM. It serves
runs in a thread too, such as those that Ray starts.
"""

import _thread
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from types import FrameType, TracebackType
from typing import Any, TypeVar

import jax
from jax.experimental import multihost_utils

from bert_jax.training.devices.processes import is_first

STOPPING = "stopping after this step; press Ctrl-C again to stop now"
STOPPED = "stopped now, without saving; the last checkpoint is kept"

T = TypeVar("T")
_END = 0  # written to the listener's pipe; no signal has this number
_EXITS: ContextVar[bool] = ContextVar("second_interrupt_exits", default=False)


class Interrupted(Exception):
    """A run was asked to end, and has saved a checkpoint.

    Attributes:
        signal: which was received.
        step: which was saved.
    """

    def __init__(self, signal: signal.Signals, step: int) -> None:
        super().__init__(signal, step)  # so that it can be sent to another process
        self.signal = signal
        self.step = step

    def __str__(self) -> str:
        return f"{self.signal.name}: saved at step {self.step:,}"

    @property
    def exit_code(self) -> int:
        return 128 + self.signal


class StopRequested(Exception):
    """A signal asked the run to end while an evaluation was computed."""


class Interruption:
    """Receives signals; a context manager for the main thread.

    Args:
        also: names of signals besides SIGTERM and SIGINT.

    Attributes:
        received: the first signal, or None.
    """

    def __init__(self, also: Sequence[str] = ()) -> None:
        self.also = {signal.Signals[name] for name in also}
        self.received: signal.Signals | None = None
        self.calls = 0
        self.distributed = jax.distributed.is_initialized()
        self.speaks = is_first()
        self.exits = _EXITS.get()
        self.stop_now = False
        self.handlers: dict[signal.Signals, Any] = {}

    def __enter__(self) -> "Interruption":
        own = (signal.SIGINT,) if self.distributed else (signal.SIGINT, signal.SIGTERM)
        for number in (*own, *self.also):
            self.handlers[number] = signal.signal(number, self.receive)
        # Python writes the number of each signal to this pipe at once, also while the main thread is in a step.
        self.reader, self.writer = os.pipe()
        os.set_blocking(self.writer, False)
        self.previous_writer = signal.set_wakeup_fd(self.writer)
        self.listener = threading.Thread(target=self._listen, daemon=True)
        self.listener.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self.previous_writer)
        os.write(self.writer, bytes([_END]))
        self.listener.join()
        os.close(self.writer)
        for number, handler in self.handlers.items():
            signal.signal(number, handler)

    def receive(self, number: int, frame: FrameType | None) -> None:
        """Handles a signal: keeps it, or passes it on to the coordination service of several processes.

        Raises:
            KeyboardInterrupt: the listener has seen a second Ctrl-C.
        """
        if self.stop_now:
            self.stop_now = False  # `interrupt_main` may call this once more
            raise KeyboardInterrupt
        if self.distributed:
            os.kill(os.getpid(), signal.SIGTERM)
        else:
            self.received = self.received or signal.Signals(number)

    def requested(self) -> bool:
        """Returns whether the run must save and end; every process calls this equally often, and gets the same result.

        The coordination service names a call by its number at which all processes get True.
        """
        self.calls += 1
        if self.distributed and self.received is None and multihost_utils.reached_preemption_sync_point(self.calls):
            self.received = signal.SIGTERM
        return self.received is not None

    def _listen(self) -> None:
        """Reads signals from the pipe as they arrive; announces the first Ctrl-C, and stops at one after a request."""
        requested = False
        simulated = False
        while (number := os.read(self.reader, 1)[0]) != _END:
            if simulated and number == signal.SIGINT:
                simulated = False  # `interrupt_main` writes to the pipe too
            elif number == signal.SIGINT and requested:
                if self.exits:
                    if self.speaks:
                        _say(STOPPED)
                    os._exit(128 + signal.SIGINT)
                self.stop_now = True
                simulated = True
                _thread.interrupt_main()
            elif number == signal.SIGINT and self.speaks:
                _say(STOPPING)
            requested = requested or number in self.handlers
        os.close(self.reader)


def _say(line: str) -> None:
    with suppress(OSError, ValueError, AttributeError):  # standard error is closed
        sys.stderr.write(f"{line}\n")
        sys.stderr.flush()


def receive_signals(also: Sequence[str] = ()) -> AbstractContextManager[Interruption | None]:
    """Returns an `Interruption`.

    Outside the main thread, where Python allows no handlers, it has none: the coordination service alone receives
    SIGTERM. Without that service it is a context of None.
    """
    if threading.current_thread() is threading.main_thread():
        return Interruption(also)
    return nullcontext(Interruption() if jax.distributed.is_initialized() else None)


def until_requested(batches: Iterable[T], interruption: Interruption | None) -> Iterator[T]:
    """Yields the batches of an evaluation, in all processes equally many.

    Raises:
        StopRequested: instead of the next batch, if a signal asked the run to end.
    """
    for batch in batches:
        if interruption is not None and interruption.requested():
            raise StopRequested
        yield batch


@contextmanager
def second_interrupt_exits() -> Iterator[None]:
    """A second Ctrl-C in a run inside this context ends the process at once, also in a compiled step; for programs."""
    token = _EXITS.set(True)
    try:
        yield
    finally:
        _EXITS.reset(token)
