"""Several processes that train together, on one machine or on many.

Each process runs the same program, feeds its own slice of the data to its own devices, and takes every step together
with the others. Only the first process writes files and prints. JAX's coordination service connects the processes: if
one dies, the others end too, and the supervisor restarts all of them.

References: https://docs.jax.dev/en/latest/multi_process.html.
"""

import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from types import TracebackType
from typing import Any, NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

from bert_jax.training.settings import require_at_least

# Longer than it takes to read any corpus. JAX's coordination service notices a dead process long before.
BARRIER_TIMEOUT = 7 * 24 * 3600  # seconds


@dataclass(frozen=True)
class Processes:
    """Several processes, on one machine or many"""

    distributed: bool = False
    """Train together with other processes started with the same command. Slurm, Kubernetes, Open MPI and TPU pods are
    detected; elsewhere, set the next three."""
    coordinator: str | None = None
    """HOST:PORT of process 0."""
    num_processes: int | None = None
    """Number of processes."""
    process_id: int | None = None
    """Index of this process, from 0."""

    def check(self) -> None:
        """Raises ValueError for settings that contradict each other."""
        for one in fields(self):
            if one.name != "distributed" and getattr(self, one.name) is not None and not self.distributed:
                raise ValueError(f"`{one.name}` is only used with `distributed`")
        if self.coordinator is not None and not self.coordinator.rpartition(":")[2].isdigit():
            raise ValueError(f"`coordinator` must be HOST:PORT, got {self.coordinator!r}")
        require_at_least(1, self, "num_processes")
        require_at_least(0, self, "process_id")
        count = self.num_processes
        index = self.process_id
        if count is not None and index is not None and index >= count:
            raise ValueError(f"`process_id` must be between 0 and {count - 1}, got {index}")

    def join(self) -> None:
        """Makes this process one of several if it is `distributed`; must be called before JAX is used otherwise."""
        if self.distributed:
            join(self.coordinator, self.num_processes, self.process_id)


def join(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Makes this process one of several; must be called before anything else that uses JAX.

    Only the first process prints afterwards: the standard output of the others is discarded. An exception that is not
    caught ends its process at once, see `leave`. Does not connect again if JAX is connected already. Arguments that are
    None are read from Slurm, Kubernetes, Open MPI or a TPU pod.

    Args:
        coordinator: HOST:PORT of process 0.

    Raises:
        ValueError: no such cluster was found, or the arguments are inconsistent.
    """
    try:
        if not jax.distributed.is_initialized():
            jax.distributed.initialize(coordinator, num_processes, process_id)
    except ValueError as error:
        if None not in (coordinator, num_processes, process_id):
            raise
        raise ValueError(
            f"no Slurm, Kubernetes, Open MPI or TPU pod was found ({error}): give `coordinator`, "
            "`num_processes` and `process_id`"
        ) from None
    sys.excepthook = _end_with_traceback
    if not is_first():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def leave(code: int) -> NoReturn:
    """Ends this process alone, with an exit code.

    At a normal exit JAX waits for the other processes, and they wait for this one. Without that exit this process
    counts as dead, and JAX's coordination service ends the others.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _end_with_traceback(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> NoReturn:
    """Prints an exception that was not caught and leaves: the `sys.excepthook` of a process that has joined others."""
    traceback.print_exception(kind, error, trace)
    leave(1)


def is_first() -> bool:
    """Returns whether this process writes files and prints: the first of several, or a single one."""
    return jax.process_index() == 0


def barrier(name: str) -> None:
    """Waits until all processes have called this; each barrier needs a separate name, such as what it waits for."""
    multihost.sync_global_processes(
        f"bert_jax: {name}", timeout=BARRIER_TIMEOUT, processes=set(range(jax.process_count()))
    )


@contextmanager
def first_process_first(name: str) -> Iterator[None]:
    """Runs the block in the first process before the others, which then find its results in a cache on disk."""
    if not is_first():
        barrier(name)
    yield
    if is_first():
        barrier(name)


def broadcast_from_first(name: str, make: Callable[[], bytes]) -> bytes:
    """Calls `make` in the first process, and returns its result in all processes."""
    content = np.frombuffer(make() if is_first() else b"", np.uint8)
    barrier(name)  # `make` may take longer than the broadcast's own timeout
    size = int(multihost_utils.broadcast_one_to_all(np.int32(content.size)))
    return bytes(multihost_utils.broadcast_one_to_all(content if is_first() else np.zeros(size, np.uint8)))


def addressable(tree: Any) -> Any:
    """Returns arrays of all processes as arrays that this one can read; every process must call it."""
    return tree if jax.process_count() == 1 else multihost_utils.process_allgather(tree, tiled=True)
