"""Sequences of any length through a function that is compiled for a few shapes.

Sequences are collected, and packed: the longest first, each into the row where it leaves the least room, so that hardly
any padding is computed. Rows have few lengths, and a batch of a length has a fixed number of them, as many as a budget
of tokens allows. It leaves when it is full; what is left at the end goes row by row, or as one batch filled up with
empty rows, whichever is less work. So each length is compiled at most twice, for many rows and for one. While the
device works on a batch the next one is made, and the results of the batch before are fetched.

References: Krell et al., Efficient Sequence Packing without Cross-contamination, 2021. Khomenko et al., Accelerating
Recurrent Neural Network Training using Sequence Bucketing, 2016.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from bert_jax.data.packing import PackedRows, members, pack

SHORTEST = 16, 24  # tokens of the first lengths; the others are these doubled, and doubled again
SHARED = 64  # tokens of the shortest row that several sequences share
SLOTS = 8  # sequences in a row, at most
EXTRA = 4  # batches' worth of tokens that are collected beyond one unfinished batch of each length
BUDGETS = {"cpu": 768}  # tokens of a batch, by platform; larger arrays cost a CPU fresh pages in every batch
BUDGET = 16384  # elsewhere
IDLE = 16  # a batch of one row costs no less than this part of a full one


class Encoded(NamedTuple):
    """One sequence for the model.

    Attributes:
        ids: int32 [n], special tokens and all.
        second: where segment B begins; n where there is none.
        place: the position that is asked about, for an answer at one; None for an answer at each.
    """

    ids: np.ndarray
    second: int
    place: int | None = None


Tagged = tuple[Any, Encoded]
Batch = dict[str, np.ndarray]


class Answered(NamedTuple):
    """Where in the results of a batch a sequence finds its own: `results[row, start:stop]`."""

    tag: Any
    row: int
    start: int
    stop: int


def row_lengths(max_length: int) -> tuple[int, ...]:
    """Returns the lengths that rows may have.

    >>> row_lengths(100)
    (16, 24, 32, 48, 64, 96, 100)
    """
    lengths = sorted(start << doubling for start in SHORTEST for doubling in range(max_length.bit_length()))
    return (*(length for length in lengths if length < max_length), max_length)


class Batcher:
    """Runs sequences through `function(params, batch, **options)`.

    A batch is in the project's format: `input_ids`, `attention_mask`, `token_type_ids` and `position_ids`, int32
    [B, T]; and, where sequences are asked at one place each, `places`, int32 [B, SLOTS]. Each result of the function is
    [B, SLOTS, ...] then, and [B, T, ...] without.

    Args:
        params: the first argument; moved to the device once.
        max_length: the longest sequence there will be.
        batch_tokens: the tokens of a full batch, padding included; None: what suits the platform.

    Attributes:
        compilations: how often a shape (B, T) was compiled.
    """

    def __init__(
        self, function: Callable[..., Any], params: Any, *, max_length: int, batch_tokens: int | None = None
    ) -> None:
        if batch_tokens is not None and batch_tokens < 1:
            raise ValueError(f"batch_tokens must be at least 1, got {batch_tokens}")
        self.function = function
        self.params = jax.device_put(params)
        self.lengths = row_lengths(max_length)
        self.budget = batch_tokens or BUDGETS.get(jax.default_backend(), BUDGET)
        self.compilations: Counter[tuple[int, ...]] = Counter()
        self.compiled: dict[Hashable, Callable[..., Any]] = {}

    def run(
        self, sequences: Iterable[Tagged], arrays: Mapping[str, Any] | None = None, **static: Any
    ) -> Iterator[tuple[Any, Any]]:
        """Yields each sequence's tag and result, [1, ...] or [n, ...], in no particular order.

        Args:
            sequences: read as the device gets on.
            arrays: options of the function that are given to it with every batch.
            **static: options of the function that are compiled in.
        """
        compiled = self.compile(static)
        pending: tuple[list[Answered], Any] | None = None
        for answered, batch in self.batches(sequences):
            results = compiled(self.params, batch, arrays or {})
            for leaf in jax.tree.leaves(results):
                leaf.copy_to_host_async()
            if pending is not None:
                yield from fetched(*pending)
            pending = answered, results
        if pending is not None:
            yield from fetched(*pending)

    def compile(self, static: dict[str, Any]) -> Callable[..., Any]:
        """Returns the jitted function for these options."""
        key = tuple(sorted(static.items()))
        if key not in self.compiled:

            def function(params: Any, batch: Any, arrays: Any) -> Any:
                self.compilations[batch["input_ids"].shape] += 1  # runs only while it is traced
                return self.function(params, batch, **arrays, **static)

            self.compiled[key] = jax.jit(function)
        return self.compiled[key]

    def batches(self, sequences: Iterable[Tagged]) -> Iterator[tuple[list[Answered], Batch]]:
        """Packs sequences and yields batches, and who finds what in their results."""
        pools: dict[bool, list[Tagged]] = {True: [], False: []}
        tokens = dict.fromkeys(pools, 0)
        enough = self.budget * (len(self.lengths) + EXTRA)
        for tag, sequence in sequences:
            kind = sequence.place is None
            pools[kind].append((tag, sequence))
            tokens[kind] += len(sequence.ids)
            if tokens[kind] >= enough:
                pools[kind] = yield from self.deal(pools[kind], last=False)
                tokens[kind] = sum(len(left.ids) for _, left in pools[kind])
        for pool in pools.values():
            yield from self.deal(pool, last=True)

    def deal(self, pool: list[Tagged], *, last: bool) -> Generator[tuple[list[Answered], Batch], None, list[Tagged]]:
        """Yields the full batches that a pool makes, and all when it is the last; returns the sequences left."""
        left: list[Tagged] = []
        for length, rows in self.packed(pool).items():
            size = self.rows_of(length)
            for start in range(0, len(rows), size):
                some = rows[start : start + size]
                if len(some) == size or (last and not self.better_alone(some, length)):
                    yield filled(some, length, size)
                elif last:
                    yield from (filled([row], self.fitting(tokens_of(row)), 1) for row in some)
                else:
                    left += [one for row in some for one in row]
        return left

    def better_alone(self, rows: list[list[Tagged]], length: int) -> bool:
        """Says whether a batch for each row is less work than one that is filled up."""
        least = self.budget // IDLE
        return sum(max(least, self.fitting(tokens_of(row))) for row in rows) < self.rows_of(length) * length

    def packed(self, pool: list[Tagged]) -> dict[int, list[list[Tagged]]]:
        """Returns rows of sequences by the rows' length, the shortest first."""
        lengths = [length for length in self.lengths if length >= min(SHARED, self.lengths[-1])]
        rows: dict[int, list[list[Tagged]]] = {length: [] for length in lengths}
        tokens = [len(sequence.ids) for _, sequence in pool]
        for row in members(pack(tokens, lengths, slots=SLOTS)):
            longest = max(tokens[index] for index in row)
            rows[lengths[bisect_left(lengths, longest)]].append([pool[index] for index in row])
        return rows

    def fitting(self, tokens: int) -> int:
        """The length of a row of so many tokens."""
        return next(length for length in self.lengths if length >= tokens)

    def rows_of(self, length: int) -> int:
        """The rows of a full batch."""
        return max(1, self.budget // length)


def tokens_of(row: list[Tagged]) -> int:
    return sum(len(sequence.ids) for _, sequence in row)


def filled(rows: list[list[Tagged]], length: int, size: int) -> tuple[list[Answered], Batch]:
    """Returns rows of sequences as one batch of `size` rows, and where each sequence is."""
    tagged = [one for row in rows for one in row]
    sequences = [sequence for _, sequence in tagged]
    lengths = np.array([len(sequence.ids) for sequence in sequences])
    in_row = np.array([len(row) for row in rows] + [0] * (size - len(rows)))
    packed = PackedRows(lengths, in_row, row_length=length, slots=SLOTS)
    batch = packed.model_inputs(np.array([sequence.second for sequence in sequences]))
    batch["input_ids"] = packed.scatter_tokens(np.concatenate([sequence.ids for sequence in sequences]))
    cls_positions = batch.pop("cls_positions")
    if sequences[0].place is None:
        starts = packed.start
        stops = packed.start + lengths
    else:
        places = np.array([sequence.place for sequence in sequences], np.int32)
        batch["places"] = cls_positions + packed.scatter_sequences(places)
        starts = packed.slot
        stops = packed.slot + 1
    answered = map(Answered, (tag for tag, _ in tagged), packed.row.tolist(), starts.tolist(), stops.tolist())
    return list(answered), batch


def fetched(answered: list[Answered], results: Any) -> Iterator[tuple[Any, Any]]:
    """Yields each tag with its part of the results, on the host."""
    leaves, form = jax.tree.flatten(jax.device_get(results))
    for tag, row, start, stop in answered:
        yield tag, form.unflatten([leaf[row, start:stop] for leaf in leaves])
