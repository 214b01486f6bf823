"""Batches for pretraining: from a store of tokens to dicts of arrays, masked anew in every pass.

Training is an endless sequence of rows, 0, 1, 2, ... What a row holds is a pure function of the settings and its
number: which pass it lies in, which row of that pass' plan the shuffle puts there, with one sentence pair or several
packed together, which tokens are masked. So a position is one integer. It means the same for any number of processes
and workers, and training goes on from it.

A pass has as many rows as the first one. Later plans are a little longer or shorter by chance (0.2 % for half a million
pairs, less for more): of a longer one some rows, at random, are not shown; of a shorter one some are shown twice.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from bert_jax.data.packing import slots_per_row
from bert_jax.data.prefetch import ENDLESS, Batch, Batches
from bert_jax.data.pretraining.epoch_plan import EpochPlan, plan_rows
from bert_jax.data.pretraining.masking import Vocabulary, mask_tokens, predictions_per_row
from bert_jax.data.pretraining.pair_inputs import build_inputs
from bert_jax.data.pretraining.pair_planning import PAIR, check_lengths
from bert_jax.data.pretraining.shuffle import shuffled

if TYPE_CHECKING:
    import os

    from bert_jax.data.pretraining.token_store import TokenStore
    from bert_jax.text.tokenizer import Tokenizer


DTYPES = {
    **dict.fromkeys(("input_ids", "token_type_ids", "attention_mask", "position_ids"), np.int32),
    **dict.fromkeys(("masked_positions", "masked_labels", "cls_positions", "next_sentence_labels"), np.int32),
    **dict.fromkeys(("masked_weights", "next_sentence_weights"), np.float32),
}


@dataclass(frozen=True)
class BatchSettings:
    """What a pretraining row looks like.

    Attributes:
        max_length: T, the tokens of a row, and the most of a sentence pair.
        packing: put several pairs in a row where they fit.
        max_predictions: the most of a pair; None is as many as `masked_share` asks for.
    """

    max_length: int = 128
    packing: bool = True
    masked_share: float = 0.15
    max_predictions: int | None = None
    whole_word_masking: bool = False
    short_probability: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        check_lengths(self.max_length, self.short_probability)
        if not 0 < self.masked_share <= 1:
            raise ValueError(f"masked_share must lie in (0, 1], found {self.masked_share}")
        if self.max_predictions is not None and self.max_predictions < 1:
            raise ValueError(f"max_predictions must be at least 1, found {self.max_predictions}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"seed must lie in [0, 2**32), found {self.seed}")

    @property
    def slots(self) -> int:
        """S, the slots for pairs in a row."""
        return slots_per_row(self.max_length) if self.packing else 1

    @property
    def predictions(self) -> int:
        """P, the slots for predictions in a row."""
        enough = predictions_per_row(self.max_length, self.masked_share, self.slots)
        return min(enough, self.slots * (self.max_predictions or enough))

    def blank(self, rows: int) -> Batch:
        """Returns a batch of zeros with the shapes and dtypes of any other, which takes no memory."""
        widths = {"masked": self.predictions, "next": self.slots, "cls": self.slots}
        return {
            name: np.broadcast_to(np.zeros((), dtype), (rows, widths.get(name.split("_")[0], self.max_length)))
            for name, dtype in DTYPES.items()
        }


def training_batches(
    store: TokenStore,
    vocabulary: Vocabulary | Tokenizer,
    settings: BatchSettings,
    *,
    batch_size: int,
    start_row: int = 0,
    num_workers: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    cache_dir: str | os.PathLike[str] | None = None,
) -> PretrainingBatches:
    """Returns the endless batches of training from row `start_row` on.

    Args:
        vocabulary: the tokenizer that the store was made with, or what masking needs to know of it.
        batch_size: rows of the global batch; a process gets its share of each, in the order of the processes.
        num_workers: processes that make batches; with 0 a thread does. The batches are the same. A script that asks
            for workers needs the usual `if __name__ == "__main__":`.
        cache_dir: a folder for the plans, see `plan_rows`; without one they stay in memory.

    Raises:
        ValueError: for sizes that do not fit, fewer than two documents, or, from the iterator, an id of the corpus
            beyond the vocabulary.
    """
    if start_row < 0:
        raise ValueError(f"start_row must not be negative, found {start_row}")
    if num_workers < 0:
        raise ValueError(f"num_workers must not be negative, found {num_workers}")
    rows = PretrainingRows(store, Vocabulary.of(vocabulary), settings, cache_dir)
    share = _Share(rows, start_row, ENDLESS, batch_size, process_index, process_count)
    return PretrainingBatches(share, num_workers)


def evaluation_batches(
    store: TokenStore,
    vocabulary: Vocabulary | Tokenizer,
    settings: BatchSettings,
    *,
    batch_size: int,
    limit_rows: int | None = None,
    process_index: int = 0,
    process_count: int = 1,
    cache_dir: str | os.PathLike[str] | None = None,
) -> PretrainingBatches:
    """Returns every pair of the first pass once, in a random order, or `limit_rows` of them; always the same masks.

    The last batch is filled up with rows of padding that count for nothing: their weights and attention are all 0.
    Arguments and errors are those of `training_batches`.
    """
    if limit_rows is not None and limit_rows < 1:
        raise ValueError(f"limit_rows must be at least 1, found {limit_rows}")
    rows = PretrainingRows(store, Vocabulary.of(vocabulary), settings, cache_dir)
    end = min(rows.per_pass, limit_rows or rows.per_pass)
    return PretrainingBatches(_Share(rows, 0, end, batch_size, process_index, process_count))


class PretrainingBatches(Batches):
    """The batches of one process' share.

    Attributes:
        rows_per_pass: rows that make one pass over the corpus.
    """

    def __init__(self, share: _Share, num_workers: int = 0) -> None:
        self.rows_per_pass = share.rows.per_pass
        super().__init__(
            share,
            count=-(-(share.end - share.first) // share.batch_size),
            position=lambda given: {"row": share.first + given * share.batch_size},
            num_workers=num_workers,
        )


class PretrainingRows:
    """The rows of pretraining by number: `rows(numbers [B])` is their batch."""

    def __init__(
        self,
        store: TokenStore,
        vocabulary: Vocabulary,
        settings: BatchSettings,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self._arguments = store, vocabulary, settings, cache_dir
        self._pass = functools.lru_cache(maxsize=2)(self._plan_pass)
        self.per_pass = len(self._pass(0))
        self.pad_id = vocabulary.pad_id

    def __reduce__(self) -> tuple[Any, ...]:
        return PretrainingRows, self._arguments  # a worker plans, or maps, the passes itself

    def __call__(self, numbers: np.ndarray) -> Batch:
        store, vocabulary, settings, _ = self._arguments
        pairs, in_row = self.pairs(numbers)
        inputs = build_inputs(store, pairs, in_row, vocabulary, max_length=settings.max_length, slots=settings.slots)
        masked = mask_tokens(
            inputs["input_ids"],
            inputs["attention_mask"],
            vocabulary,
            masked_share=settings.masked_share,
            predictions=settings.predictions,
            max_predictions=settings.max_predictions,
            whole_words=settings.whole_word_masking,
            seed=settings.seed,
            rows=numbers,
        )
        return inputs | masked

    def pairs(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the pairs of rows int [B], PAIR [N], and how many are in each, int64 [B]."""
        found = [(np.zeros(0, PAIR), np.zeros(0, np.int64))]
        for pass_number, group in itertools.groupby(numbers.tolist(), lambda number: number // self.per_pass):
            plan = self._pass(pass_number)
            places = np.array(list(group)) % self.per_pass % len(plan)
            order = np.random.SeedSequence((self._arguments[2].seed, pass_number))
            found.append(plan.take(shuffled(places, len(plan), order)))
        pairs, in_row = zip(*found, strict=True)
        return np.concatenate(pairs), np.concatenate(in_row)

    def _plan_pass(self, pass_number: int) -> EpochPlan:
        store, _, settings, cache_dir = self._arguments
        return plan_rows(
            store,
            max_length=settings.max_length,
            slots=settings.slots,
            short_probability=settings.short_probability,
            seed=settings.seed,
            pass_number=pass_number,
            cache_dir=cache_dir,
        )


@dataclass(frozen=True)
class _Share:
    """One process' share of the global batches of rows first to end - 1: `share(n)` is its part of batch n."""

    rows: PretrainingRows
    first: int
    end: int
    batch_size: int
    process_index: int
    process_count: int

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, found {self.batch_size}")
        if self.batch_size % self.process_count:
            raise ValueError(f"batch_size {self.batch_size} is not divisible by process_count {self.process_count}")
        if not 0 <= self.process_index < self.process_count:
            raise ValueError(f"process_index {self.process_index} is not one of {self.process_count} processes")

    def __call__(self, number: int) -> Batch:
        size = self.batch_size // self.process_count
        first = self.first + number * self.batch_size + self.process_index * size
        batch = self.rows(np.arange(first, min(first + size, self.end)))
        return {name: self._fill_up(name, values, size) for name, values in batch.items()}

    def _fill_up(self, name: str, values: np.ndarray, size: int) -> np.ndarray:
        if len(values) == size:
            return values
        filler = self.rows.pad_id if name == "input_ids" else 0
        widths = [(0, size - len(values))] + [(0, 0)] * (values.ndim - 1)
        return np.pad(values, widths, constant_values=filler)
