"""Batches for fine-tuning: examples in a random order, several in a row, for several seeds at once.

An update takes `batch_size` examples, however many rows they fill. Which ones is a pure function of the seed and the
number of the batch, so a position is one integer. With K seeds trained together every array is [B, K, ...]: each seed
has an order of its own, and rows of padding make up for what it packs better than the others. That is all that a seed
sees of the others: rows of padding change nothing, and T is the same whichever seeds are trained beside it.

Compiled shapes are few: a row's length is fixed and the number of rows is rounded up to a multiple, or, where examples
are not packed, the other way round: examples of like length then come in one batch.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from bert_jax.data.finetuning.sequences import ranges
from bert_jax.data.packing import PackedRows, members, pack

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from bert_jax.data.finetuning.sequences import Sequences
    from bert_jax.data.prefetch import Batch

ROUNDED = 8, 32  # tokens: lengths of packed rows, and of rows with one example each, are multiples of these
LONG = 256  # tokens: rows get no longer than that for the sake of packing alone
ROW_COUNTS = 8  # packed rows of an average batch, counted in steps of this fraction
SLOTS = 2.0  # slots of a packed row for each sequence that it holds on the average


@dataclass(frozen=True, eq=False)
class Features:
    """Sequences, and what is to be learned of them.

    Attributes:
        sequences: n of them.
        of_sequences: {name: [n, ...]}; in the batch [B, S, ...].
        of_tokens: {name: [tokens of all sequences]}; in the batch [B, T].
        positions: {name: int [n]}, places in the sequence; in the batch [B, S], places in the row.
        group: how many sequences, one after another, are one example (the choices of a question).
    """

    sequences: Sequences
    of_sequences: dict[str, np.ndarray] = field(default_factory=dict)
    of_tokens: dict[str, np.ndarray] = field(default_factory=dict)
    positions: dict[str, np.ndarray] = field(default_factory=dict)
    group: int = 1

    def __len__(self) -> int:
        """The number of examples."""
        return len(self.sequences.lengths) // self.group


@dataclass(frozen=True)
class Layout:
    """How examples become rows.

    Attributes:
        row_length: T of packed rows; the most tokens of a sequence where each has a row.
        slots: S, the most sequences in a row; 1 = each has a row of its own.
        multiple: what the number of rows is a multiple of.
        pad_id: fills up.
        fewest: the least number of packed rows of a batch in training, so that rare shapes need not be compiled.
    """

    row_length: int
    slots: int
    multiple: int
    pad_id: int
    fewest: int = 1

    @classmethod
    def fitting(
        cls, parts: Sequence[Features], *, batch_size: int, packed: bool, pad_id: int, shards: int = 1
    ) -> Layout:
        """Returns the layout that suits examples of such lengths.

        Args:
            parts: the first decides how rows are filled, all of them how long a row must be.
            packed: whether sequences may share a row; those of a group may not.
            shards: what the number of rows must be divisible by.
        """
        lengths = parts[0].sequences.lengths
        longest, mean = max(int(part.sequences.lengths.max()) for part in parts), float(lengths.mean())
        if not packed or parts[0].group > 1:
            return cls(longest, 1, shards * parts[0].group, pad_id)
        row_length = rounded_up(max(longest, min(round(4 * mean), LONG)), ROUNDED[0])
        slots = max(1, min(batch_size, round(SLOTS * row_length / mean), row_length // int(lengths.min())))
        rows = batch_size * mean / row_length
        return cls(
            row_length, slots, rounded_up(max(1, round(rows / ROW_COUNTS)), shards), pad_id, fewest=math.ceil(rows)
        )

    def usual_rows(self, features: Features, batch_size: int) -> int:
        """Returns how many rows so many examples fill."""
        tokens = batch_size * features.group * float(features.sequences.lengths.mean())
        rows = batch_size * features.group if self.slots == 1 else -(-tokens // self.row_length)
        return rounded_up(int(rows), self.multiple)

    def rows(self, lengths: np.ndarray) -> list[list[int]]:
        """Returns for each row which of the sequences it holds."""
        if self.slots == 1:
            return [[i] for i in range(len(lengths))]
        return members(pack(lengths, self.row_length, slots=self.slots))

    def length(self, longest: int) -> int:
        """Returns T for sequences of up to `longest` tokens."""
        return self.row_length if self.slots > 1 else min(rounded_up(longest, ROUNDED[1]), self.row_length)

    @property
    def lengths(self) -> tuple[int, ...]:
        """All T that batches may have, ascending."""
        rounded = range(ROUNDED[1], self.row_length, ROUNDED[1]) if self.slots == 1 else ()
        return *rounded, self.row_length

    def sample(self, features: Features, num_rows: int) -> Batch:
        """Returns up to so many rows of the greatest length, of the first sequences."""
        some = features.sequences.lengths[: num_rows * self.slots]
        rows = self.rows(some)[:num_rows]
        shape = {"num_rows": len(rows), "row_length": self.row_length, "slots": self.slots, "pad_id": self.pad_id}
        return arrange(features, rows, **shape)[0]


class Placement(NamedTuple):
    """Where sequences lie in a batch: int [m], and for each of their tokens, int [tokens].

    Attributes:
        sequences, rows, slots: the sequences' numbers, and where each is.
        tokens, token_rows, token_columns: the tokens' numbers among those of all sequences, and where each is.
    """

    sequences: np.ndarray
    rows: np.ndarray
    slots: np.ndarray
    tokens: np.ndarray
    token_rows: np.ndarray
    token_columns: np.ndarray


def arrange(
    features: Features,
    rows: Sequence[Sequence[int] | np.ndarray],
    *,
    num_rows: int,
    row_length: int,
    slots: int,
    pad_id: int,
) -> tuple[Batch, Placement]:
    """Arranges sequences in rows: [num_rows, row_length] in the project's format of batch, with their targets.

    Args:
        rows: for each row the numbers of its sequences; rows that lack are padding, and weigh nothing.
    """
    sequences = features.sequences
    chosen = np.array([index for row in rows for index in row], np.int64)
    lengths = sequences.lengths[chosen]
    tokens = ranges(sequences.offsets[chosen], lengths)
    in_row = np.zeros(num_rows, np.int64)
    in_row[: len(rows)] = [len(row) for row in rows]
    packed = PackedRows(lengths, in_row, row_length=row_length, slots=slots)
    batch = {
        "input_ids": packed.scatter_tokens(sequences.ids[tokens], pad_id),
        **packed.model_inputs(sequences.second[chosen]),
    }
    for name, values in features.of_sequences.items():
        batch[name] = packed.scatter_sequences(values[chosen])
    for name, values in features.of_tokens.items():
        batch[name] = packed.scatter_tokens(values[tokens])
    for name, values in features.positions.items():
        batch[name] = packed.scatter_sequences((values[chosen] + packed.start).astype(np.int32))
    return batch, Placement(chosen, packed.row, packed.slot, tokens, *np.nonzero(packed.occupied))


@dataclass(frozen=True, eq=False)
class TrainingPlan:
    """The batches of training by number: `plan(n)` has arrays [B, K, ...], rows of the K seeds side by side.

    Attributes:
        features: the examples.
        layout: how they become rows.
        batch_size: examples an update; one of an epoch has what is left.
        seeds: K of them; a seed decides the order, anew in each epoch.
    """

    features: Features
    layout: Layout
    batch_size: int
    seeds: tuple[int, ...]

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.features) // self.batch_size)

    def __call__(self, number: int) -> Batch:
        layout = self.layout
        chosen = [self.sequences(number, seed) for seed in self.seeds]
        lengths = [self.features.sequences.lengths[some] for some in chosen]
        rows = [layout.rows(some) for some in lengths]
        most = self.batch_size * self.features.group if layout.slots == 1 else max(map(len, rows))
        shape = {
            "num_rows": rounded_up(max(most, layout.fewest), layout.multiple),
            "row_length": layout.length(max(int(some.max()) for some in lengths)),
            "slots": layout.slots,
            "pad_id": layout.pad_id,
        }
        batches = []
        for some, packed in zip(chosen, rows, strict=True):
            batch, _ = arrange(self.features, [some[row] for row in packed], **shape)
            batches.append(grouped(batch, self.features.group))
        return {name: np.stack([batch[name] for batch in batches], axis=1) for name in batches[0]}

    def sequences(self, number: int, seed: int) -> np.ndarray:
        """Returns the numbers of the sequences of a batch."""
        epoch, step = divmod(number, self.steps_per_epoch)
        order = permutation(seed, epoch, size=len(self.features))
        if self.layout.slots == 1:
            order = order[np.argsort(self.lengths[order], kind="stable")]
        # The steps come in one order for all seeds, so that they agree on each batch's T.
        part = int(permutation(epoch, size=self.steps_per_epoch)[step])
        examples, group = order[part * self.batch_size : (part + 1) * self.batch_size], self.features.group
        return (examples[:, None] * group + np.arange(group)[None, :]).ravel()

    @functools.cached_property
    def lengths(self) -> np.ndarray:
        """T of a row for each example, in units that rows are rounded to."""
        longest = self.features.sequences.lengths.reshape(-1, self.features.group).max(axis=1)
        return (-(-longest // ROUNDED[1])).astype(np.int16)


@functools.lru_cache(maxsize=64)
def permutation(*key: int, size: int) -> np.ndarray:
    """Returns the numbers below `size` in an order that the key decides."""
    return np.random.Generator(np.random.Philox(np.random.SeedSequence(key))).permutation(size)


def evaluation_batches(features: Features, layout: Layout, *, num_rows: int) -> Iterator[tuple[Batch, Placement]]:
    """Yields every sequence once, in batches of `num_rows` rows, the last one filled up with padding.

    Sequences of like length come together where each has a row of its own.
    """
    lengths, group = features.sequences.lengths, features.group
    num_rows = rounded_up(max(num_rows, group), group)
    rows = layout.rows(lengths)
    if layout.slots == 1:
        examples = np.argsort(lengths.reshape(-1, group).max(axis=1), kind="stable")
        rows = [[i] for i in (examples[:, None] * group + np.arange(group)[None, :]).ravel().tolist()]
    for first in range(0, len(rows), num_rows):
        some = rows[first : first + num_rows]
        longest = int(max(lengths[i] for row in some for i in row))
        batch, placement = arrange(
            features,
            some,
            num_rows=num_rows,
            row_length=layout.length(longest),
            slots=layout.slots,
            pad_id=layout.pad_id,
        )
        yield grouped(batch, group), placement


def grouped(batch: Batch, group: int) -> Batch:
    """Returns a batch of rows [N * C, T] as examples of C rows each: inputs [N, C, T], targets [N]."""
    if group == 1:
        return batch
    inputs = {
        name: array.reshape(-1, group, array.shape[-1])
        for name, array in batch.items()
        if name in ("input_ids", "attention_mask", "token_type_ids", "position_ids")
    }
    targets = {name: batch[name].reshape(-1, group)[:, 0] for name in ("labels", "weights") if name in batch}
    return inputs | targets


def rounded_up(number: int, multiple: int) -> int:
    """Returns the least multiple that is not below the number."""
    return -(-number // multiple) * multiple
