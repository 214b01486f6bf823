"""Batches made ahead of time, in a thread or in worker processes, while the device is busy with the one before."""

from __future__ import annotations

import gc
import weakref
from typing import TYPE_CHECKING, Any

import grain
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

Batch = dict[str, np.ndarray]
PREFETCHED_BATCHES = 8
ENDLESS = 2**62


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
            dataset = dataset.mp_prefetch(workers).map(_copy)
        self._iterator = _iterate(dataset)
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


def _iterate(dataset: grain.IterDataset) -> Generator[Batch, None, None]:
    """Goes through `dataset`, and leaves nothing of its iterator behind: its parts refer to one another, and those that
    Python meets only on its way out report errors.
    """
    iterator = iter(dataset)
    try:
        yield from iterator
    finally:
        iterator.close()
        del iterator
        gc.collect()


def _copy(batch: Batch) -> Batch:
    """Frees the shared memory that a worker's arrays lie in, rather than having a device read them while it goes."""
    return {name: np.array(values) for name, values in batch.items()}


def _mark_flags_as_parsed() -> None:
    """Tells absl, whose flags grain's workers read, that there is no command line for it to parse."""
    from absl import flags

    if not flags.FLAGS.is_parsed():
        flags.FLAGS.mark_as_parsed()
