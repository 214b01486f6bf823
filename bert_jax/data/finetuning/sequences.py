"""Encodes examples as token sequences, all of them in one flat array.

Every text is encoded once, many at a time; the sequences `[CLS] A [SEP]` and `[CLS] A [SEP] B [SEP]`, or those of
another layout (`Tokenizer.layout`), are then joined by index arithmetic. `batches.py` puts them into rows.

Axes: n sequences, C choices of an example; "tokens" counts the tokens of all sequences.

References: Devlin et al., BERT, 2018, sections 3 and 4 (input representation, tasks).
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import chain
from typing import ClassVar, NamedTuple, Self

import numpy as np
from tokenizers import Encoding

from bert_jax.data.readers.examples import ChoiceExample, TextExample
from bert_jax.messages import counted
from bert_jax.text.inputs import valid_text
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.vocabulary import text_batches


@dataclass(frozen=True, eq=False)
class Sequences:
    """Token sequences with their special tokens, one after another.

    Attributes:
        ids: int32 [tokens of all sequences].
        offsets: int64 [n + 1]; sequence i is `ids[offsets[i]:offsets[i + 1]]`.
        second: int32 [n], where segment B, of token type 1, begins within the sequence; its length without a segment B.
    """

    ids: np.ndarray
    offsets: np.ndarray
    second: np.ndarray

    per_token: ClassVar[tuple[str, ...]] = ("ids",)
    per_sequence: ClassVar[tuple[str, ...]] = ("second",)

    @property
    def lengths(self) -> np.ndarray:
        """Int64 [n]: tokens of each sequence."""
        return np.diff(self.offsets)

    def __len__(self) -> int:
        return len(self.second)

    def take(self, numbers: Sequence[int] | np.ndarray) -> Self:
        """Returns the sequences with these indices, in this order; an index may occur several times."""
        numbers = np.asarray(numbers, np.int64)
        lengths = self.lengths[numbers]
        tokens = ranges(self.offsets[numbers], lengths)
        taken = {name: getattr(self, name)[tokens] for name in self.per_token}
        taken |= {name: getattr(self, name)[numbers] for name in self.per_sequence}
        return replace(self, offsets=offsets_of(lengths), **taken)


class Runs(NamedTuple):
    """Slices of encoded texts: run i is `ids[starts[i]:starts[i] + lengths[i]]`; runs may overlap.

    Attributes:
        ids: int32 [tokens], without special tokens.
        starts, lengths: int64 [n].
    """

    ids: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    def take(self, numbers: np.ndarray) -> "Runs":
        return Runs(self.ids, self.starts[numbers], self.lengths[numbers])

    def cut(self, lengths: np.ndarray | int) -> "Runs":
        """Returns the beginnings of the runs, of at most `lengths` tokens."""
        return self._replace(lengths=np.minimum(self.lengths, lengths))


class Truncation(NamedTuple):
    """What was cut off to fit a maximum length: from how many sequences, and how many tokens in total."""

    sequences: int
    tokens: int


def encode_texts(
    examples: Sequence[TextExample], tokenizer: Tokenizer, *, max_length: int
) -> tuple[Sequences, Truncation]:
    """Encodes texts and pairs of texts: `[CLS] text [SEP]`, `[CLS] text [SEP] pair [SEP]`.

    Long examples are truncated as `Tokenizer` does it: the longer of two texts first, at its end.

    Args:
        max_length: maximum number of tokens of a sequence with its special tokens.

    Returns:
        A sequence per example, and what was cut off.

    Raises:
        ValueError: `max_length` has no room for a token of each text.
    """
    paired = np.array([example.pair is not None for example in examples], bool)
    first = encode_runs([example.text for example in examples], tokenizer)
    second = encode_runs([example.pair or "" for example in examples], tokenizer)
    return join_cut(first, second, paired, tokenizer, max_length)


def encode_choices(
    examples: Sequence[ChoiceExample], tokenizer: Tokenizer, *, max_length: int
) -> tuple[Sequences, Truncation]:
    """Encodes texts with each of their C continuations: `[CLS] text [SEP] choice [SEP]`.

    Args:
        max_length: maximum number of tokens of a sequence with its special tokens; truncated like `encode_texts`.

    Returns:
        n * C sequences, those of an example next to each other, and what was cut off.

    Raises:
        ValueError: examples with different numbers of choices, with the place of the first that differs; `max_length`
            has no room for a token of each text.
    """
    choices = len(examples[0].choices) if examples else 0
    for example in examples:
        if len(example.choices) != choices:
            raise ValueError(
                f"{example.where}: {counted(len(example.choices), 'choice')}, {examples[0].where} has {choices}"
            )
    first = encode_runs([example.text for example in examples], tokenizer)
    second = encode_runs([choice for example in examples for choice in example.choices], tokenizer)
    first = first.take(np.repeat(np.arange(len(examples)), choices))
    return join_cut(first, second, np.ones(len(second.starts), bool), tokenizer, max_length)


def encode_runs(
    texts: Iterable[str], tokenizer: Tokenizer, encode: Callable[[list[str]], list[Encoding]] | None = None
) -> Runs:
    """Encodes texts without special tokens, a million characters at a time.

    Args:
        encode: encodes some texts; None: without their offsets, which is faster.
    """
    encode = encode or partial(tokenizer.text_backend().encode_batch_fast, add_special_tokens=False)
    ids = [np.zeros(0, np.int32)]
    lengths = [np.zeros(0, np.int64)]
    for batch in text_batches(map(valid_text, texts)):
        encodings = encode(batch)
        lengths.append(np.fromiter(map(len, encodings), np.int64, len(encodings)))
        ids.append(np.fromiter(chain.from_iterable(encoding.ids for encoding in encodings), np.int32))
    offsets = offsets_of(np.concatenate(lengths))
    return Runs(np.concatenate(ids), offsets[:-1], np.diff(offsets))


def join_cut(
    first: Runs, second: Runs, paired: np.ndarray, tokenizer: Tokenizer, max_length: int
) -> tuple[Sequences, Truncation]:
    """Joins runs that are truncated to fit; see `join`. The shorter text keeps up to half of the room.

    In a room of 10 tokens: lengths 4 and 9 become 4 and 6, lengths 7 and 9 become 5 and 5.
    """
    layout = tokenizer.layout
    least = layout.pair + 2 if paired.any() else layout.single + 1
    if max_length < least:
        raise ValueError(
            f"`max_length` must be at least {least}, for special tokens and a token of each text, got {max_length}"
        )
    room = max_length - np.where(paired, layout.pair, layout.single)
    both = first.lengths + second.lengths
    shorter = np.minimum(np.minimum(first.lengths, second.lengths), room // 2)
    longer = room - shorter
    is_shorter = first.lengths <= second.lengths
    fits = (both <= room) | ~paired
    first = first.cut(np.where(fits, room, np.where(is_shorter, shorter, longer)))
    second = second.cut(np.where(fits, room, np.where(is_shorter, longer, shorter)))
    excess = np.maximum(both - room, 0)
    return join(first, second, paired, tokenizer), Truncation(int((excess > 0).sum()), int(excess.sum()))


def join(first: Runs, second: Runs, paired: np.ndarray, tokenizer: Tokenizer) -> Sequences:
    """Returns the sequences `[CLS] first [SEP]`, and `[CLS] first [SEP] second [SEP]` where `paired`, bool [n]."""
    layout = tokenizer.layout
    begin = second_starts(first, paired, tokenizer)
    within = second.lengths * paired
    lengths = begin + within + len(layout.pair_suffix) * paired
    offsets = offsets_of(lengths)
    ids = np.empty(offsets[-1], np.int32)

    def put(starts: np.ndarray, special: tuple[int, ...]) -> None:
        for place, token in enumerate(special):
            ids[starts + place] = token

    starts = offsets[:-1]
    after_first = starts + len(layout.prefix) + first.lengths
    put(starts, layout.prefix)
    put(after_first[~paired], layout.suffix)
    put(after_first[paired], layout.middle)
    put((starts + begin + within)[paired], layout.pair_suffix)
    ids[ranges(starts + len(layout.prefix), first.lengths)] = first.ids[ranges(first.starts, first.lengths)]
    ids[ranges(starts + begin, within)] = second.ids[ranges(second.starts, within)]
    return Sequences(ids, offsets, (begin if layout.segments else lengths).astype(np.int32))


def second_starts(first: Runs, paired: np.ndarray, tokenizer: Tokenizer) -> np.ndarray:
    """Returns where the second text begins in each sequence that `join` makes, int64 [n]; its length without one."""
    layout = tokenizer.layout
    return len(layout.prefix) + first.lengths + np.where(paired, len(layout.middle), len(layout.suffix))


def offsets_of(lengths: np.ndarray) -> np.ndarray:
    """Returns int64 [n + 1], the sum of the lengths before each index, and of all lengths.

    >>> offsets_of(np.array([3, 0, 2])).tolist()
    [0, 3, 3, 5]
    """
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Returns the integers start <= i < start + length of each range, one range after another.

    >>> ranges(np.array([7, 1]), np.array([2, 3])).tolist()
    [7, 8, 1, 2, 3]
    """
    offsets = offsets_of(lengths)
    return np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], lengths)
