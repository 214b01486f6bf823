"""Batches made ahead of time, in a thread or in worker processes, while the device is busy with the one before.

Workers live as long as the process that they work for: a Ctrl-C, or a supervisor's SIGTERM, reaches the whole group of
processes, and the run that is to save before it ends needs its batches until then.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading
import weakref
from contextlib import AbstractContextManager, contextmanager, nullcontext
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

import grain
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

Batch = dict[str, np.ndarray]
PREFETCHED_BATCHES = 8
ENDLESS = 2**62
REQUESTS_TO_END = {signal.SIGINT, signal.SIGTERM}


class Batches:
    """The batches make(0), make(1), ... Close it, or use it in a `with`.

    Args:
        make: a pure function of the batch's number; workers need to be able to pickle it.
        count: how many there are.
        position: what `state` says when so many have been given out.
        num_workers: processes that make batches; 0 = a thread does. The batches are the same.
    """

    def __init__(
        self,
        make: Callable[[int], Batch],
        *,
        count: int = ENDLESS,
        position: Callable[[int], dict[str, Any]],
        num_workers: int = 0,
    ) -> None:
        self._position, self._given = position, 0
        reading = grain.ReadOptions(num_threads=1, prefetch_buffer_size=PREFETCHED_BATCHES)
        dataset = grain.MapDataset.range(count).map(make).to_iter_dataset(reading)
        if num_workers:
            _mark_flags_as_parsed()
            workers = grain.MultiprocessingOptions(num_workers, per_worker_buffer_size=2)
            dataset = dataset.mp_prefetch(workers, _end_with_parent).map(_copy)
        self._iterator = _iterate(dataset, _deaf_children() if num_workers else nullcontext())
        self._close = weakref.finalize(self, self._iterator.close)  # at exit too

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = next(self._iterator)
        self._given += 1
        return batch

    def state(self) -> dict[str, Any]:
        """The position in the data, from which another iterator can go on."""
        return self._position(self._given)

    def close(self) -> None:
        self._close()

    def __enter__(self) -> Batches:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _iterate(dataset: grain.IterDataset, starting: AbstractContextManager[None]) -> Generator[Batch, None, None]:
    """Goes through `dataset`, and leaves nothing of its iterator behind: its parts refer to one another, and those that
    Python meets only on its way out report errors.
    """
    iterator = iter(dataset)
    try:
        with starting:  # workers start when they are asked for the first time
            batch = next(iterator, None)
        while batch is not None:
            yield batch
            batch = next(iterator, None)
    finally:
        iterator.close()
        del iterator
        gc.collect()


@contextmanager
def _deaf_children() -> Iterator[None]:
    """Processes that are started in here, from this thread or from threads that are, get no request to end.

    A thread's mask of signals is inherited. This process still gets them, in a thread that was there before, or later.
    """
    resource_tracker.ensure_running()  # its start would lift the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, REQUESTS_TO_END)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent(worker: int, workers: int) -> None:
    """Ends this worker when its parent is gone, however that went; it would wait for ever to be asked for batches."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _copy(batch: Batch) -> Batch:
    """Frees the shared memory that a worker's arrays lie in, rather than having a device read them while it goes."""
    return {name: np.array(values) for name, values in batch.items()}


def _mark_flags_as_parsed() -> None:
    """Tells absl, whose flags grain's workers read, that there is no command line for it to parse."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
