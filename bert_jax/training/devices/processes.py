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
from types import TracebackType
from typing import NoReturn

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

# Longer than it takes to read any corpus. JAX's coordination service notices a dead process long before.
BARRIER_TIMEOUT = 7 * 24 * 3600  # seconds


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
