"""Several processes that train as one, on one machine or on many.

Every process runs the same program. Each brings its own slice of the data to the devices that are its own, and all take
every step together; the first alone writes files and speaks. JAX's coordination service finds them and watches over
them: where one dies, the others end too, and all are started again.

References: https://docs.jax.dev/en/latest/multi_process.html.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import jax
import numpy as np
from jax.experimental import multihost_utils
from orbax.checkpoint import multihost

A_WEEK = 7 * 24 * 3600  # seconds: longer than any corpus takes to read; a process that dies is noticed by other means


def join(coordinator: str | None = None, num_processes: int | None = None, process_id: int | None = None) -> None:
    """Makes this process one of several; to be called before anything else is asked of JAX.

    What is None is found out from Slurm, Kubernetes, Open MPI or a TPU pod.

    Args:
        coordinator: HOST:PORT of process 0, where the others find it.

    Raises:
        ValueError: nothing was found, or what was given does not fit.
    """
    try:
        jax.distributed.initialize(coordinator, num_processes, process_id)
    except ValueError as error:
        if None not in (coordinator, num_processes, process_id):
            raise
        ways = "give --coordinator HOST:PORT, --num-processes and --process-id"
        raise ValueError(
            f"--distributed: no Slurm, Kubernetes, Open MPI or TPU pod says enough ({error}): {ways}"
        ) from None
    if not is_first():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115


def is_first() -> bool:
    """Says whether this process is the one that writes files; it is where there is one alone."""
    return jax.process_index() == 0


def barrier(what: str) -> None:
    """Returns when all processes have called it; `what` names the moment, and each has its own."""
    multihost.sync_global_processes(f"bert_jax: {what}", timeout=A_WEEK, processes=set(range(jax.process_count())))


@contextmanager
def first_process_first(what: str) -> Iterator[None]:
    """Lets the first process through the block before the others: what it leaves in a cache they find there."""
    if not is_first():
        barrier(what)
    yield
    if is_first():
        barrier(what)


def broadcast_from_first(what: str, make: Callable[[], bytes]) -> bytes:
    """Returns what `make` gives in the first process, in all of them; the others wait for it, and are told."""
    content = np.frombuffer(make() if is_first() else b"", np.uint8)
    barrier(what)
    size = int(multihost_utils.broadcast_one_to_all(np.int32(content.size)))
    return bytes(multihost_utils.broadcast_one_to_all(content if is_first() else np.zeros(size, np.uint8)))
