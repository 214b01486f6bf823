"""Rows of any length through a function that is compiled for a few shapes.

Rows are dealt into buckets by length. A bucket's batch has a fixed number of rows, as many as a budget of tokens
allows, and leaves when it is full; what is left at the end goes row by row, or as one batch filled up with empty rows,
whichever is less work. So each bucket is compiled at most twice, for many rows and for one. While the device works on a
batch the next rows are read and encoded, and the results of the batch before are fetched.

References: Khomenko et al., Accelerating Recurrent Neural Network Training using Sequence Bucketing, 2016.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

SHORTEST = 16, 24  # tokens of the first buckets; the others are these doubled, and doubled again
BUDGETS = {"cpu": 1024}  # tokens of a batch, by platform
BUDGET = 16384  # elsewhere
IDLE = 16  # a batch of one row costs no less than this part of a full one


class Row(NamedTuple):
    """One sequence for the model.

    Attributes:
        ids: int32 [T], special tokens and all.
        second: where segment B begins; T where there is none.
        places: int32 [P], the positions that are asked about, for models that answer at positions.
    """

    ids: np.ndarray
    second: int
    places: np.ndarray = np.zeros(0, np.int32)


class Batch(NamedTuple):
    """Rows of one bucket, filled up: int32 arrays [B, T], [B], [B] and [B, P], where P is 0, 1 or T."""

    ids: np.ndarray
    lengths: np.ndarray
    second: np.ndarray
    places: np.ndarray


def bucket_lengths(max_length: int) -> tuple[int, ...]:
    """Returns the lengths that rows are padded to.

    >>> bucket_lengths(100)
    (16, 24, 32, 48, 64, 96, 100)
    """
    lengths = sorted(start << doubling for start in SHORTEST for doubling in range(max_length.bit_length()))
    return (*(length for length in lengths if length < max_length), max_length)


class Batcher:
    """Runs rows through `function(params, batch, **static)`, whose results have a row of the batch each in front.

    Args:
        params: the first argument; moved to the device once.
        max_length: the longest row there will be.
        batch_tokens: the tokens of a full batch, padding included; None: what suits the platform.

    Attributes:
        compilations: how often a shape (B, T, P) was compiled.
    """

    def __init__(
        self, function: Callable[..., Any], params: Any, *, max_length: int, batch_tokens: int | None = None
    ) -> None:
        if batch_tokens is not None and batch_tokens < 1:
            raise ValueError(f"batch_tokens must be at least 1, got {batch_tokens}")
        self.function = function
        self.params = jax.device_put(params)
        self.lengths = bucket_lengths(max_length)
        self.budget = batch_tokens or BUDGETS.get(jax.default_backend(), BUDGET)
        self.compilations: Counter[tuple[int, ...]] = Counter()
        self.compiled: dict[Hashable, Callable[..., Any]] = {}

    def run(self, rows: Iterable[tuple[Any, Row]], **static: Any) -> Iterator[tuple[Any, Any]]:
        """Yields each row's tag and result, in no particular order.

        Args:
            rows: read as the device gets on.
            **static: options of the function, compiled in.
        """
        compiled = self.compile(static)
        pending: tuple[list[Any], Any] | None = None
        for tags, batch in self.batches(rows):
            results = compiled(self.params, batch)
            for leaf in jax.tree.leaves(results):
                leaf.copy_to_host_async()
            if pending is not None:
                yield from fetched(*pending)
            pending = tags, results
        if pending is not None:
            yield from fetched(*pending)

    def compile(self, static: dict[str, Any]) -> Callable[..., Any]:
        """Returns the jitted function for these options."""
        key = tuple(sorted(static.items()))
        if key not in self.compiled:

            def function(params: Any, batch: Batch) -> Any:
                self.compilations[(*batch.ids.shape, batch.places.shape[1])] += 1  # runs only while it is traced
                return self.function(params, batch, **static)

            self.compiled[key] = jax.jit(function)
        return self.compiled[key]

    def batches(self, rows: Iterable[tuple[Any, Row]]) -> Iterator[tuple[list[Any], Batch]]:
        """Deals rows into buckets and yields batches with their tags."""
        waiting: defaultdict[tuple[int, int], list[tuple[Any, Row]]] = defaultdict(list)
        for tag, row in rows:
            length = next(length for length in self.lengths if length >= len(row.ids))
            shape = length, len(row.places) if len(row.places) < 2 else length
            waiting[shape].append((tag, row))
            if len(waiting[shape]) == self.rows_of(length):
                yield filled(waiting.pop(shape), *shape, self.rows_of(length))
        for (length, places), rest in sorted(waiting.items(), key=lambda item: item[0]):
            if len(rest) * max(length, self.budget // IDLE) < self.rows_of(length) * length:
                for row in rest:
                    yield filled([row], length, places, 1)
            else:
                yield filled(rest, length, places, self.rows_of(length))

    def rows_of(self, length: int) -> int:
        """The rows of a full batch."""
        return max(1, self.budget // length)


def filled(tagged: list[tuple[Any, Row]], length: int, places: int, size: int) -> tuple[list[Any], Batch]:
    """Returns the tags, and their rows as one batch of `size`."""
    batch = Batch(
        ids=np.zeros((size, length), np.int32),
        lengths=np.zeros(size, np.int32),
        second=np.zeros(size, np.int32),
        places=np.zeros((size, places), np.int32),
    )
    for number, (_, row) in enumerate(tagged):
        batch.ids[number, : len(row.ids)] = row.ids
        batch.lengths[number] = len(row.ids)
        batch.second[number] = row.second
        batch.places[number, : len(row.places)] = row.places
    return [tag for tag, _ in tagged], batch


def fetched(tags: list[Any], results: Any) -> Iterator[tuple[Any, Any]]:
    """Yields each tag with its row of the results, on the host."""
    leaves, form = jax.tree.flatten(jax.device_get(results))
    for number, tag in enumerate(tags):
        yield tag, form.unflatten([leaf[number] for leaf in leaves])
