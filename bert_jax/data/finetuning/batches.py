"""Batches for fine-tuning: examples in a random order, several in a row.

An update takes `batch_size` examples, however many rows they fill. Which ones is a pure function of the seed and the
index of the batch, so a position in the data is one integer.

Few shapes are compiled. Packed rows all have one length, and their number is rounded up to a multiple. Rows of one
example each have a fixed number and a length that is rounded up; examples of similar length share a batch.

Axes: B rows, T tokens of a row, S sequences of a row (slots), C sequences of one example (choices), n sequences.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from bert_jax.data.finetuning.sequences import Sequences, ranges
from bert_jax.data.packing import PackedRows, members, pack
from bert_jax.data.prefetch import Batch

PACKED_MULTIPLE = 8  # tokens: the length of packed rows is a multiple of this
SINGLE_MULTIPLE = 32  # tokens: the same for rows of one example each
LONGEST_PACKED = 256  # tokens: rows get no longer than this only to pack better
ROW_STEPS = 8  # the number of packed rows is rounded up to about 1 / ROW_STEPS of an average batch
SLOTS_PER_SEQUENCE = 2.0  # slots of a packed row for each sequence that it holds on average


@dataclass(frozen=True, eq=False)
class Features:
    """Sequences with their targets.

    Attributes:
        sequences: n of them.
        of_sequences: targets per sequence, {name: [n, ...]}; in a batch [B, S, ...].
        of_tokens: targets per token, {name: [tokens of all sequences]}; in a batch [B, T].
        positions: token positions in the sequence, {name: int [n]}; in a batch [B, S], positions in the row.
        group: C, the number of consecutive sequences that are one example (the choices of multiple choice).
    """

    sequences: Sequences
    of_sequences: dict[str, np.ndarray] = field(default_factory=dict)
    of_tokens: dict[str, np.ndarray] = field(default_factory=dict)
    positions: dict[str, np.ndarray] = field(default_factory=dict)
    group: int = 1

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.sequences.lengths) // self.group


class BatchShape(NamedTuple):
    """The shape of a batch: B rows of T tokens."""

    num_rows: int
    row_length: int


@dataclass(frozen=True)
class RowFormat:
    """How examples become rows.

    Attributes:
        row_length: T of packed rows; the longest T if each sequence has its own row.
        slots: S, the most sequences in a row; 1 = each sequence has its own row.
        multiple: the number of rows of a batch is a multiple of this.
        pad_id: the token id of padding.
        min_rows: the least number of packed rows of a training batch, so that fewer shapes are compiled.
    """

    row_length: int
    slots: int
    multiple: int
    pad_id: int
    min_rows: int = 1

    @classmethod
    def choose(
        cls, splits: Sequence[Features], *, batch_size: int, packed: bool, pad_id: int, shards: int = 1
    ) -> "RowFormat":
        """Returns the format for examples of these lengths.

        Args:
            splits: the first decides how rows are filled, all of them how long a row must be.
            packed: whether sequences may share a row. Those of a group never do.
            shards: the number of rows must be divisible by this.
        """
        lengths = splits[0].sequences.lengths
        longest = max(int(features.sequences.lengths.max()) for features in splits)
        if not packed or splits[0].group > 1:
            return cls(longest, 1, shards * splits[0].group, pad_id)
        # Example: batches of 32 examples of 20 tokens on average and at most 50. Rows have max(50, min(80, 256)) = 80
        # tokens and 8 slots; a batch fills 8 rows on average, and its number of rows is a multiple of 1.
        mean = float(lengths.mean())
        row_length = _round_up(max(longest, min(round(4 * mean), LONGEST_PACKED)), PACKED_MULTIPLE)
        slots = min(batch_size, round(SLOTS_PER_SEQUENCE * row_length / mean), row_length // int(lengths.min()))
        rows = batch_size * mean / row_length
        multiple = _round_up(max(1, round(rows / ROW_STEPS)), shards)
        return cls(row_length, max(1, slots), multiple, pad_id, min_rows=math.ceil(rows))

    def expected_rows(self, features: Features, batch_size: int) -> int:
        """Returns the number of rows that `batch_size` examples of average length fill."""
        tokens = batch_size * features.group * float(features.sequences.lengths.mean())
        rows = batch_size * features.group if self.slots == 1 else -(-tokens // self.row_length)
        return _round_up(int(rows), self.multiple)

    def assign_rows(self, lengths: np.ndarray) -> list[list[int]]:
        """Returns the indices of the sequences in each row."""
        if self.slots == 1:
            return [[index] for index in range(len(lengths))]
        return members(pack(lengths, self.row_length, slots=self.slots))

    def length(self, longest: int) -> int:
        """Returns T for sequences of up to `longest` tokens."""
        return self.row_length if self.slots > 1 else min(_round_up(longest, SINGLE_MULTIPLE), self.row_length)

    @property
    def lengths(self) -> tuple[int, ...]:
        """All T that batches may have, ascending."""
        rounded = range(SINGLE_MULTIPLE, self.row_length, SINGLE_MULTIPLE) if self.slots == 1 else ()
        return *rounded, self.row_length

    def sample(self, features: Features, num_rows: int) -> Batch:
        """Returns a batch of up to `num_rows` rows of the greatest length, of the first sequences."""
        rows = self.assign_rows(features.sequences.lengths[: num_rows * self.slots])[:num_rows]
        return self.build(features, rows, BatchShape(len(rows), self.row_length))[0]

    def build(
        self, features: Features, rows: Sequence[Sequence[int] | np.ndarray], shape: BatchShape
    ) -> tuple[Batch, "Placement"]:
        """Returns a batch [B, T] in the project's format, with targets, and where each sequence is in it.

        Args:
            rows: the indices of the sequences in each row; missing rows are padding, with weight 0.
        """
        sequences = features.sequences
        chosen = np.array([index for row in rows for index in row], np.int64)
        lengths = sequences.lengths[chosen]
        tokens = ranges(sequences.offsets[chosen], lengths)
        in_row = np.zeros(shape.num_rows, np.int64)
        in_row[: len(rows)] = [len(row) for row in rows]
        packed = PackedRows(lengths, in_row, row_length=shape.row_length, slots=self.slots)
        batch = {
            "input_ids": packed.scatter_tokens(sequences.ids[tokens], self.pad_id),
            **packed.model_inputs(sequences.second[chosen]),
        }
        for name, values in features.of_sequences.items():
            batch[name] = packed.scatter_sequences(values[chosen])
        for name, values in features.of_tokens.items():
            batch[name] = packed.scatter_tokens(values[tokens])
        for name, values in features.positions.items():
            batch[name] = packed.scatter_sequences((values[chosen] + packed.start).astype(np.int32))
        return batch, Placement(chosen, packed.row, packed.slot, tokens, *np.nonzero(packed.occupied))


class Placement(NamedTuple):
    """Where the m sequences of a batch and their tokens are, as index arrays.

    Attributes:
        sequences: int [m], the sequence's index among all sequences.
        rows, slots: int [m], its row and slot in the batch.
        tokens: int [tokens], the token's index among the tokens of all sequences.
        token_rows, token_columns: int [tokens], its row and column in the batch.
    """

    sequences: np.ndarray
    rows: np.ndarray
    slots: np.ndarray
    tokens: np.ndarray
    token_rows: np.ndarray
    token_columns: np.ndarray


@dataclass(frozen=True, eq=False)
class TrainingBatches:
    """The training batches of one seed, by index: `batches(0)`, `batches(1)`, ...

    Seeds that are trained together need batches of one shape: each builds its `rows` in the largest `shape` of all.

    Attributes:
        features: the examples.
        row_format: how they become rows.
        batch_size: examples per update; one batch of an epoch has the rest, other examples in each epoch.
        seed: decides the order of the examples in each epoch.
    """

    features: Features
    row_format: RowFormat
    batch_size: int
    seed: int

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.features) // self.batch_size)

    def __call__(self, index: int) -> Batch:
        """Returns a batch in its own shape."""
        rows = self.rows(index)
        return self.build(rows, self.shape(rows))

    def rows(self, index: int) -> list[np.ndarray]:
        """Returns the indices of the sequences in each row of a batch."""
        chosen = self.sequences(index)
        assigned = self.row_format.assign_rows(self.features.sequences.lengths[chosen])
        return [chosen[row] for row in assigned]

    def shape(self, rows: Sequence[np.ndarray]) -> BatchShape:
        """Returns the shape of a batch with these rows."""
        # A batch of the rest has the shape of a whole one.
        needed = self.batch_size * self.features.group if self.row_format.slots == 1 else len(rows)
        longest = int(self.features.sequences.lengths[np.concatenate(rows)].max())
        num_rows = _round_up(max(needed, self.row_format.min_rows), self.row_format.multiple)
        return BatchShape(num_rows, self.row_format.length(longest))

    def build(self, rows: Sequence[np.ndarray], shape: BatchShape) -> Batch:
        """Returns the batch with these rows, filled up with padding to a shape."""
        batch, _ = self.row_format.build(self.features, rows, shape)
        return _split_groups(batch, self.features.group)

    def sequences(self, index: int) -> np.ndarray:
        """Returns the indices of the sequences of a batch, int [m].

        Example: 5 examples of C = 2 choices, batches of 2. If the order of the epoch is [3, 0, 4, 1, 2] and this is
        its second batch, the examples are [4, 1], and their sequences [8, 9, 2, 3].
        """
        epoch, step = divmod(index, self.steps_per_epoch)
        order = _order(self.seed, epoch, size=len(self.features), batch_size=self.batch_size)
        if self.row_format.slots == 1:  # examples of similar length share a batch, except in the batch of the rest
            whole = len(order) - len(order) % self.batch_size
            by_length = np.argsort(self._rounded_lengths[order[:whole]], kind="stable")
            order = np.concatenate([order[by_length], order[whole:]])
        # The order of the steps does not depend on the seed, so that all seeds agree on each batch's T.
        position = int(_permutation(epoch, size=self.steps_per_epoch)[step])
        examples = order[position * self.batch_size : (position + 1) * self.batch_size]
        return _expand_groups(examples, self.features.group)

    @functools.cached_property
    def _rounded_lengths(self) -> np.ndarray:
        """The length of each example's row, in units of `SINGLE_MULTIPLE`."""
        longest = self.features.sequences.lengths.reshape(-1, self.features.group).max(axis=1)
        return (-(-longest // SINGLE_MULTIPLE)).astype(np.int16)


@functools.lru_cache(maxsize=64)
def _permutation(*key: int, size: int) -> np.ndarray:
    """Returns the integers below `size` in a random order that the key decides."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key))).permutation(size)


@functools.lru_cache(maxsize=64)
def _order(seed: int, epoch: int, *, size: int, batch_size: int) -> np.ndarray:
    """Returns the order of the examples in an epoch; the ones of the batch of the rest are last.

    The loss is a mean over a batch, so the few examples of that batch weigh more than others. They are drawn again in
    every epoch, whatever their lengths. All seeds draw the same ones, so that they agree on each batch's T.
    """
    order = _permutation(seed, epoch, size=size)
    is_rest = np.zeros(size, bool)
    is_rest[_permutation(epoch, size=size)[: size % batch_size]] = True
    return np.concatenate([order[~is_rest[order]], order[is_rest[order]]])


def evaluation_batches(
    features: Features, row_format: RowFormat, *, num_rows: int
) -> Iterator[tuple[Batch, Placement]]:
    """Yields every sequence once, in batches of `num_rows` rows; the last one is filled up with padding.

    If each sequence has its own row, sequences of similar length share a batch.
    """
    lengths = features.sequences.lengths
    group = features.group
    num_rows = _round_up(max(num_rows, group), group)
    rows = row_format.assign_rows(lengths)
    if row_format.slots == 1:
        examples = np.argsort(lengths.reshape(-1, group).max(axis=1), kind="stable")
        rows = [[index] for index in _expand_groups(examples, group).tolist()]
    for first in range(0, len(rows), num_rows):
        chunk = rows[first : first + num_rows]
        longest = int(max(lengths[index] for row in chunk for index in row))
        batch, placement = row_format.build(features, chunk, BatchShape(num_rows, row_format.length(longest)))
        yield _split_groups(batch, group), placement


def _expand_groups(examples: np.ndarray, group: int) -> np.ndarray:
    """Returns the indices of the sequences of examples: [4, 1] in groups of 2 -> [8, 9, 2, 3]."""
    return (examples[:, None] * group + np.arange(group)[None, :]).ravel()


def _split_groups(batch: Batch, group: int) -> Batch:
    """Returns a batch of rows [n * C, T] as n examples of C rows each: inputs [n, C, T], targets [n]."""
    if group == 1:
        return batch
    inputs = {
        name: array.reshape(-1, group, array.shape[-1])
        for name, array in batch.items()
        if name in ("input_ids", "attention_mask", "token_type_ids", "position_ids")
    }
    targets = {name: batch[name].reshape(-1, group)[:, 0] for name in ("labels", "weights") if name in batch}
    return inputs | targets


def _round_up(number: int, multiple: int) -> int:
    """Returns the least multiple that is at least `number`."""
    return -(-number // multiple) * multiple
