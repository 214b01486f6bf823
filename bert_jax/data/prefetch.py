"""Prefetching: batches are made in a thread or in worker processes while the device computes the previous one.

Workers ignore the signals that end a run, because these reach the whole process group: a run that saves a checkpoint
before it stops needs its batches until then. They end when their parent process is gone.
"""

import gc
import signal
import weakref
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from multiprocessing import resource_tracker
from typing import Any, Self

import grain
import numpy as np

from bert_jax.process_start import end_with_parent

Batch = dict[str, np.ndarray]
PREFETCHED_BATCHES = 8
ENDLESS = 2**62
STOP_NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")  # not every system has all of them
STOP_SIGNALS = {number for number in signal.Signals if number.name in STOP_NAMES}


class Batches:
    """Iterates over the batches make(0), make(1), ... Close it, or use it in a `with` statement.

    Args:
        make: a pure function of the batch's number. With workers it is pickled, in less than 64 KiB: see `Vocabulary`.
        count: number of batches.
        position: maps the number of batches returned so far to the result of `state`.
        num_workers: processes that make batches; with 0 a thread does. The batches are the same.
    """

    def __init__(
        self,
        make: Callable[[int], Batch],
        *,
        count: int = ENDLESS,
        position: Callable[[int], dict[str, Any]],
        num_workers: int = 0,
    ) -> None:
        self._position = position
        self._returned = 0
        reading = grain.ReadOptions(num_threads=1, prefetch_buffer_size=PREFETCHED_BATCHES)
        dataset = grain.MapDataset.range(count).map(make).to_iter_dataset(reading)
        if num_workers:
            _mark_flags_as_parsed()
            workers = grain.MultiprocessingOptions(num_workers, per_worker_buffer_size=2)
            dataset = dataset.mp_prefetch(workers, _start_worker).map(_copy)
        self._iterator = _iterate(dataset, with_workers=num_workers > 0)
        self._close = weakref.finalize(self, self._iterator.close)  # at exit too

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = next(self._iterator)
        self._returned += 1
        return batch

    def state(self) -> dict[str, Any]:
        """Returns the position in the data, from which another iterator can continue."""
        return self._position(self._returned)

    def close(self) -> None:
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


def _iterate(dataset: grain.IterDataset, *, with_workers: bool) -> Generator[Batch, None, None]:
    """Yields the batches of a dataset and then closes its iterator.

    With workers it also collects the iterator, whose parts refer to each other: shared memory that Python finds only
    at exit would print warnings. Without workers that would only halt training for each evaluation.
    """
    iterator = iter(dataset)
    try:
        with _children_ignoring_stop_signals() if with_workers else nullcontext():  # they start with the first batch
            batch = next(iterator, None)
        while batch is not None:
            yield batch
            batch = next(iterator, None)
    except RuntimeError as error:
        if "terminated unexpectedly" not in str(error):
            raise
        raise RuntimeError(
            "a worker process that makes batches has died: memory ran out, or the script has no "
            '`if __name__ == "__main__":` (`num_workers=0` starts no process)'
        ) from None
    finally:
        iterator.close()
        del iterator
        if with_workers:
            gc.collect()


@contextmanager
def _children_ignoring_stop_signals() -> Iterator[None]:
    """Blocks STOP_SIGNALS for processes that are started in this context, by this thread or threads it starts.

    The signal mask of a thread is inherited. This process still gets the signals, in its other threads.
    """
    resource_tracker.ensure_running()  # its start would reset the mask
    before = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_worker(_worker: int, _workers: int) -> None:
    end_with_parent()


def _copy(batch: Batch) -> Batch:
    """Copies a batch out of the shared memory of a worker, which may be reused while a device still reads it."""
    return {name: np.array(values) for name, values in batch.items()}


def _mark_flags_as_parsed() -> None:
    """Marks absl's flags as parsed: grain's workers read them, and there is no command line for absl here."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
