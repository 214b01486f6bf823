"""Batches for pretraining: from a token store to dicts of arrays, with new masks in every pass.

Training reads an endless sequence of rows 0, 1, 2, ... The content of a row is a pure function of the settings and its
number, so the position in the data is one integer. It means the same for any number of processes and workers, and a
resumed run continues from it. With `rows_per_pass` 1000, row 2345 is made like this:
    pass    2345 // 1000 = 2: `plan_rows` plans the sequences of pass 2 and packs them into rows.
    row     2345 % 1000 = 345: the shuffle of pass 2 maps index 345 to, say, row 812 of that plan.
    inputs  row 812 holds, say, sequences 2431, 2432 and 2433 of the plan; `build_inputs` copies their tokens.
    masks   `mask_tokens` draws the random numbers of row 2345, not 812: in the next pass the masks are different.

Every pass has as many rows as the first one. Later plans are slightly longer or shorter by chance (0.2 % for half a
million sequences, less for more): of a longer plan some random rows are not shown, of a shorter one some are shown
twice.
"""

from __future__ import annotations

import functools
import itertools
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from bert_jax.data.packing import slots_per_row
from bert_jax.data.prefetch import ENDLESS, Batch, Batches
from bert_jax.data.pretraining.epoch_plan import EpochPlan, plan_rows
from bert_jax.data.pretraining.masking import Vocabulary, mask_tokens, predictions_per_row
from bert_jax.data.pretraining.sequence_inputs import build_inputs
from bert_jax.data.pretraining.sequences import SEQUENCE, SHORTEST, Objective, check_lengths, special_tokens
from bert_jax.data.pretraining.shuffle import shuffled

if TYPE_CHECKING:  # so that rows can be described without `datasets`
    from bert_jax.data.pretraining.token_store import TokenStore
    from bert_jax.text.tokenizer import Tokenizer

DTYPES = {
    **dict.fromkeys(("input_ids", "token_type_ids", "attention_mask", "position_ids"), np.int32),
    **dict.fromkeys(("masked_positions", "masked_labels", "cls_positions", "next_sentence_labels"), np.int32),
    **dict.fromkeys(("masked_weights", "next_sentence_weights"), np.float32),
}
NEXT_SENTENCE = ("cls_positions", "next_sentence_labels", "next_sentence_weights")  # absent with `objective` mlm


@dataclass(frozen=True)
class BatchSettings:
    """What the rows of pretraining contain.

    Attributes:
        max_length: T, tokens of a row, and maximum number of tokens of a sequence.
        packing: put several sequences in a row where they fit.
        masked_share: fraction of the tokens to predict.
        max_predictions: maximum number of masked tokens of a sequence; None sets no limit beside `masked_share`.
        whole_word_masking: mask all pieces of a word or none.
        short_probability: probability that a document's sequences aim at a random, shorter length.
        seed: decides sequences, packing, order and masks.
        objective: `mlm-nsp`: masked words and next sentences, in sentence pairs; `mlm`: masked words alone, in runs of
            sentences of one document.
    """

    max_length: int = 128
    packing: bool = True
    masked_share: float = 0.15
    max_predictions: int | None = None
    whole_word_masking: bool = False
    short_probability: float = 0.1
    seed: int = 0
    objective: Objective = "mlm-nsp"

    def __post_init__(self) -> None:
        if self.objective not in get_args(Objective):
            raise ValueError(f"`objective` must be {' or '.join(get_args(Objective))}, got {self.objective!r:.60}")
        check_lengths(self.objective, self.max_length, self.short_probability)
        if not 0 < self.masked_share <= 1:
            raise ValueError(f"`masked_share` must lie in (0, 1], got {self.masked_share}")
        if self.max_predictions is not None and self.max_predictions < 1:
            raise ValueError(f"`max_predictions` must be at least 1, got {self.max_predictions}")
        if not 0 <= self.seed < 2**32:
            raise ValueError(f"`seed` must lie in [0, 2**32), got {self.seed}")

    @property
    def next_sentence(self) -> bool:
        """Whether sequences are sentence pairs, and batches have the arrays of next-sentence prediction."""
        return self.objective == "mlm-nsp"

    @property
    def slots(self) -> int:
        """S, the slots for sequences in a row."""
        return slots_per_row(self.max_length) if self.packing else 1

    @property
    def predictions(self) -> int:
        """P, the slots for predictions in a row."""
        enough = predictions_per_row(self.max_length, self.masked_share, self.slots, SHORTEST[self.objective])
        return min(enough, self.slots * (self.max_predictions or enough))

    def blank(self, rows: int) -> Batch:
        """Returns a batch of zeros with the shapes and dtypes of every batch; it takes no memory."""
        widths = {"masked": self.predictions, "next": self.slots, "cls": self.slots}
        return {
            name: np.broadcast_to(np.zeros((), dtype), (rows, widths.get(name.split("_")[0], self.max_length)))
            for name, dtype in DTYPES.items()
            if self.next_sentence or name not in NEXT_SENTENCE
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
        vocabulary: the tokenizer that the store was made with, or its `Vocabulary`.
        batch_size: rows of the global batch; process i of n gets the i-th n-th of each batch.
        num_workers: processes that make batches; with 0 a thread does. The batches are the same. A script with workers
            needs the usual `if __name__ == "__main__":`.
        cache_dir: folder for the plans, see `plan_rows`; None keeps them in memory.

    Raises:
        ValueError: an impossible size, fewer than two documents for pairs, a tokenizer without a mask token, or, from
            the iterator, a token id of the corpus that is not in the vocabulary.
    """
    if start_row < 0:
        raise ValueError(f"`start_row` must be at least 0, got {start_row}")
    if num_workers < 0:
        raise ValueError(f"`num_workers` must be at least 0, got {num_workers}")
    rows = PretrainingRows(store, Vocabulary.of(vocabulary), settings, cache_dir)
    make = _ProcessBatches(rows, start_row, ENDLESS, batch_size, process_index, process_count)
    return PretrainingBatches(make, num_workers)


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
    """Returns the rows of the first pass once, in a random order, or `limit_rows` of them; always with the same masks.

    The last batch is filled up with rows of padding, whose weights and attention mask are all 0. Arguments and errors
    are those of `training_batches`.
    """
    if limit_rows is not None and limit_rows < 1:
        raise ValueError(f"`limit_rows` must be at least 1, got {limit_rows}")
    rows = PretrainingRows(store, Vocabulary.of(vocabulary), settings, cache_dir)
    end = min(rows.per_pass, limit_rows or rows.per_pass)
    return PretrainingBatches(_ProcessBatches(rows, 0, end, batch_size, process_index, process_count))


class PretrainingBatches(Batches):
    """An iterator over the batches of one process.

    Attributes:
        rows_per_pass: rows of one pass over the corpus.
    """

    def __init__(self, make: _ProcessBatches, num_workers: int = 0) -> None:
        self.rows_per_pass = make.rows.per_pass
        super().__init__(
            make,
            count=-(-(make.end - make.first) // make.batch_size),
            position=lambda batches: {"row": make.first + batches * make.batch_size},
            num_workers=num_workers,
        )


class PretrainingRows:
    """The rows of pretraining by number: `rows(numbers)`, int [B], is the batch of these rows."""

    def __init__(
        self,
        store: TokenStore,
        vocabulary: Vocabulary,
        settings: BatchSettings,
        cache_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        self._arguments = (store, vocabulary, settings, cache_dir)
        self._pass = functools.lru_cache(maxsize=2)(self._plan_pass)
        self.per_pass = len(self._pass(0))
        self.pad_id = vocabulary.pad_id

    def __reduce__(self) -> tuple[Any, ...]:
        return PretrainingRows, self._arguments  # a worker plans the passes itself

    def __call__(self, numbers: np.ndarray) -> Batch:
        store, vocabulary, settings, _ = self._arguments
        sequences, in_row = self.sequences(numbers)
        inputs = build_inputs(
            store,
            sequences,
            in_row,
            vocabulary,
            max_length=settings.max_length,
            slots=settings.slots,
            next_sentence=settings.next_sentence,
        )
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

    def sequences(self, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns the sequences of the rows [B], SEQUENCE [N], and the number of them in each row, int64 [B]."""
        found = [(np.zeros(0, SEQUENCE), np.zeros(0, np.int64))]
        for pass_number, group in itertools.groupby(numbers.tolist(), lambda number: number // self.per_pass):
            plan = self._pass(pass_number)
            # A plan shorter than the first one shows its first rows again.
            indices = np.array(list(group)) % self.per_pass % len(plan)
            seeds = np.random.SeedSequence((self._arguments[2].seed, pass_number))
            found.append(plan.take(shuffled(indices, len(plan), seeds)))
        sequences, in_row = zip(*found, strict=True)
        return np.concatenate(sequences), np.concatenate(in_row)

    def _plan_pass(self, pass_number: int) -> EpochPlan:
        store, vocabulary, settings, cache_dir = self._arguments
        return plan_rows(
            store,
            objective=settings.objective,
            max_length=settings.max_length,
            slots=settings.slots,
            short_probability=settings.short_probability,
            seed=settings.seed,
            pass_number=pass_number,
            special=special_tokens(vocabulary.layout),
            cache_dir=cache_dir,
        )


@dataclass(frozen=True)
class _ProcessBatches:
    """Makes a process' slice of the global batches of rows first <= r < end: `make(n)` is its slice of batch n.

    With `batch_size` 8 and 2 processes batch 3 has rows first + 24 to first + 31, and process 1 makes the last four.
    """

    rows: PretrainingRows
    first: int
    end: int
    batch_size: int
    process_index: int
    process_count: int

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1, got {self.batch_size}")
        if self.batch_size % self.process_count:
            raise ValueError(f"`batch_size` {self.batch_size} is not divisible by {self.process_count} processes")
        if not 0 <= self.process_index < self.process_count:
            raise ValueError(f"`process_index` must lie in [0, {self.process_count}), got {self.process_index}")

    def __call__(self, number: int) -> Batch:
        size = self.batch_size // self.process_count
        first = self.first + number * self.batch_size + self.process_index * size
        batch = self.rows(np.arange(first, min(first + size, self.end)))
        return {name: self._pad(name, values, size) for name, values in batch.items()}

    def _pad(self, name: str, values: np.ndarray, size: int) -> np.ndarray:
        """Adds rows of padding to the last batch."""
        if len(values) == size:
            return values
        fill = self.rows.pad_id if name == "input_ids" else 0
        widths = [(0, size - len(values))] + [(0, 0)] * (values.ndim - 1)
        return np.pad(values, widths, constant_values=fill)
