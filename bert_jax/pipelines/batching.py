"""Runs sequences of any length through a function that is compiled for a few shapes.

Sequences are collected and packed (`data/packing.py`), so that little padding is computed. Rows have a few permitted
lengths, and a batch has a fixed number of rows for each length, as many as fit a budget of tokens. Full batches run at
once; the rest at the end runs row by row, or as one batch padded with empty rows, whichever is less work. So each
length is compiled at most twice, for a full batch and for one row. While the device computes a batch, the next one is
made and the results of the previous one are fetched.

    budget 768 tokens, lengths 16 24 32 48 64 96 128: full batches are 12 x 64, 8 x 96 and 6 x 128; single rows have
    any of the lengths. Sequences of 120, 60 and 30 tokens at the end: rows of 128 (120) and 96 (60 + 30), one each.

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
from bert_jax.training.devices.compilations import CompilationCounter

FIRST_LENGTHS = (16, 24)  # tokens; the other row lengths are these doubled repeatedly
SHORTEST_SHARED = 64  # tokens of the shortest row that several sequences share
SLOTS = 8  # maximum number of sequences in a row
POOL_BATCHES = 4  # sequences collected beyond one unfinished batch of each length, in batches
TOKEN_BUDGETS = {"cpu": 768}  # tokens of a batch by platform; larger arrays cost a CPU new pages in every batch
TOKEN_BUDGET = 16384  # on other platforms
MIN_BATCH_COST = 1 / 16  # a batch of one row costs at least this fraction of a full batch


class Encoded(NamedTuple):
    """One sequence for the model.

    Attributes:
        ids: int32 [n], with special tokens.
        second: where segment B, of token type 1, begins; n without a segment B.
        position: the position whose result is needed; None for the results of all tokens.
    """

    ids: np.ndarray
    second: int
    position: int | None = None


Keyed = tuple[Any, Encoded]
Batch = dict[str, np.ndarray]


class ResultSlice(NamedTuple):
    """Where the result of a sequence is in the results of its batch: `results[row, start:stop]`."""

    key: Any
    row: int
    start: int
    stop: int


def row_lengths(max_length: int) -> tuple[int, ...]:
    """Returns the permitted lengths of rows.

    >>> row_lengths(100)
    (16, 24, 32, 48, 64, 96, 100)
    """
    lengths = sorted(start << doubling for start in FIRST_LENGTHS for doubling in range(max_length.bit_length()))
    return (*(length for length in lengths if length < max_length), max_length)


class Batcher:
    """Runs sequences through `function(params, batch, **options)`.

    A batch has `input_ids`, `attention_mask`, `token_type_ids` and `position_ids`, int32 [B, T]; and, for sequences
    with a result at one position each, `positions`, int32 [B, SLOTS]. The function returns arrays [B, SLOTS, ...] with
    `positions`, otherwise [B, T, ...].

    Args:
        params: the first argument; moved to the device once.
        max_length: maximum length of a sequence.
        batch_tokens: tokens of a full batch with padding; None: a default for the platform.
    """

    def __init__(
        self, function: Callable[..., Any], params: Any, *, max_length: int, batch_tokens: int | None = None
    ) -> None:
        if batch_tokens is not None and batch_tokens < 1:
            raise ValueError(f"`batch_tokens` must be at least 1, got {batch_tokens}")
        self.function = function
        self.params = jax.device_put(params)
        self.lengths = row_lengths(max_length)
        self.budget = batch_tokens or TOKEN_BUDGETS.get(jax.default_backend(), TOKEN_BUDGET)
        self.compiled: dict[Hashable, CompilationCounter] = {}

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"compiled": {}}  # compiled programs cannot be pickled

    @property
    def compilations(self) -> Counter[tuple[int, ...]]:
        """The number of compilations by shape (B, T)."""
        return sum((counter.shapes for counter in self.compiled.values()), Counter())

    def run(
        self, sequences: Iterable[Keyed], arrays: Mapping[str, Any] | None = None, **static: Any
    ) -> Iterator[tuple[Any, Any]]:
        """Yields each sequence's key and result, [1, ...] or [n, ...], in any order.

        Args:
            sequences: read as batches are needed.
            arrays: array options of the function.
            **static: options of the function that are constants of the compiled program.
        """
        compiled = self.compile(static)
        pending: tuple[list[ResultSlice], Any] | None = None
        for slices, batch in self.batches(sequences):
            results = compiled(self.params, batch, arrays or {})
            for leaf in jax.tree.leaves(results):
                leaf.copy_to_host_async()
            if pending is not None:
                yield from fetch(*pending)
            pending = (slices, results)
        if pending is not None:
            yield from fetch(*pending)

    def compile(self, static: dict[str, Any]) -> CompilationCounter:
        """Returns the jitted function for these options."""
        key = tuple(sorted(static.items()))
        if key not in self.compiled:

            def function(params: Any, batch: Any, arrays: Any) -> Any:
                return self.function(params, batch, **arrays, **static)

            self.compiled[key] = CompilationCounter(jax.jit(function))
        return self.compiled[key]

    def batches(self, sequences: Iterable[Keyed]) -> Iterator[tuple[list[ResultSlice], Batch]]:
        """Packs sequences and yields batches, with the slice of each sequence in their results."""
        pools: dict[bool, list[Keyed]] = {True: [], False: []}  # results for all tokens, or at one position
        tokens = dict.fromkeys(pools, 0)
        enough = self.budget * (len(self.lengths) + POOL_BATCHES)
        for key, sequence in sequences:
            kind = sequence.position is None
            pools[kind].append((key, sequence))
            tokens[kind] += len(sequence.ids)
            if tokens[kind] >= enough:
                pools[kind] = yield from self.make_batches(pools[kind], last=False)
                tokens[kind] = sum(len(left.ids) for _, left in pools[kind])
        for pool in pools.values():
            yield from self.make_batches(pool, last=True)

    def make_batches(
        self, pool: list[Keyed], *, last: bool
    ) -> Generator[tuple[list[ResultSlice], Batch], None, list[Keyed]]:
        """Yields the full batches of a pool, and all batches of the last one; returns the sequences left."""
        left: list[Keyed] = []
        for length, rows in self.pack_rows(pool).items():
            size = self.rows_per_batch(length)
            for start in range(0, len(rows), size):
                chunk = rows[start : start + size]
                if len(chunk) == size or (last and not self.cheaper_as_single_rows(chunk, length)):
                    yield build_batch(chunk, length, size)
                elif last:
                    yield from (build_batch([row], self.length_for(tokens_of(row)), 1) for row in chunk)
                else:
                    left += [sequence for row in chunk for sequence in row]
        return left

    def cheaper_as_single_rows(self, rows: list[list[Keyed]], length: int) -> bool:
        """Returns whether one batch per row is less work than one batch padded with empty rows."""
        minimum = self.budget * MIN_BATCH_COST
        work = sum(max(minimum, self.length_for(tokens_of(row))) for row in rows)
        return work < self.rows_per_batch(length) * length

    def pack_rows(self, pool: list[Keyed]) -> dict[int, list[list[Keyed]]]:
        """Returns rows of sequences by the length of the rows, ascending."""
        lengths = [length for length in self.lengths if length >= min(SHORTEST_SHARED, self.lengths[-1])]
        rows: dict[int, list[list[Keyed]]] = {length: [] for length in lengths}
        tokens = [len(sequence.ids) for _, sequence in pool]
        for row in members(pack(tokens, lengths, slots=SLOTS)):
            longest = max(tokens[index] for index in row)
            rows[lengths[bisect_left(lengths, longest)]].append([pool[index] for index in row])
        return rows

    def length_for(self, tokens: int) -> int:
        """Returns the length of a row for this number of tokens."""
        return self.lengths[bisect_left(self.lengths, tokens)]

    def rows_per_batch(self, length: int) -> int:
        """Returns the number of rows of a full batch."""
        return max(1, self.budget // length)


def tokens_of(row: list[Keyed]) -> int:
    """Returns the number of tokens of a row."""
    return sum(len(sequence.ids) for _, sequence in row)


def build_batch(rows: list[list[Keyed]], length: int, size: int) -> tuple[list[ResultSlice], Batch]:
    """Returns a batch of `size` rows with the sequences, and the slice of each sequence in its results."""
    keyed = [sequence for row in rows for sequence in row]
    sequences = [sequence for _, sequence in keyed]
    lengths = np.array([len(sequence.ids) for sequence in sequences])
    in_row = np.array([len(row) for row in rows] + [0] * (size - len(rows)))
    packed = PackedRows(lengths, in_row, row_length=length, slots=SLOTS)
    batch = packed.model_inputs(np.array([sequence.second for sequence in sequences]))
    batch["input_ids"] = packed.scatter_tokens(np.concatenate([sequence.ids for sequence in sequences]))
    cls_positions = batch.pop("cls_positions")
    if sequences[0].position is None:  # results for all tokens
        starts = packed.start
        stops = packed.start + lengths
    else:  # results at one position, by slot
        positions = np.array([sequence.position for sequence in sequences], np.int32)
        batch["positions"] = cls_positions + packed.scatter_sequences(positions)
        starts = packed.slot
        stops = packed.slot + 1
    keys = (key for key, _ in keyed)
    return list(map(ResultSlice, keys, packed.row.tolist(), starts.tolist(), stops.tolist())), batch


def fetch(slices: list[ResultSlice], results: Any) -> Iterator[tuple[Any, Any]]:
    """Copies the results of a batch to the host, and yields each key with its slice."""
    leaves, structure = jax.tree.flatten(jax.device_get(results))
    for key, row, start, stop in slices:
        yield key, structure.unflatten([leaf[row, start:stop] for leaf in leaves])
