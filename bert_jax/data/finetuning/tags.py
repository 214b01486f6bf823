"""Tagged sentences as token sequences, and what a model says of the tokens as one answer for each word.

A word's first piece speaks for it, the others carry no label. A sentence that is too long is read in windows, and a
word is labelled in the one in which its first piece has the most context: once, however many windows it is in.

References: Devlin et al., BERT, 2018, section 5.3 (a word's first piece speaks for it).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from bert_jax.data.finetuning.sequences import Runs, Sequences, encode_runs, join, offsets_of, ranges
from bert_jax.text.windows import cover, flatten_windows

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bert_jax.data.readers.examples import TaggedExample
    from bert_jax.text.tokenizer import Tokenizer

IGNORED = -100  # PyTorch's sign for "no label here", which Hugging Face's data sets carry


@dataclass(frozen=True, eq=False)
class TaggedSequences(Sequences):
    """Windows over sentences, with labels.

    Attributes:
        labels: int32 [tokens of all sequences], -100 where there is nothing to predict.
        words: int64 [tokens of all sequences], the word that a token speaks for, counted over all sentences; or -1.
        sentences: int64 [n], the sentence that each window is of.
        word_offsets: int64 [sentences + 1], words before each sentence.
    """

    labels: np.ndarray
    words: np.ndarray
    sentences: np.ndarray
    word_offsets: np.ndarray

    per_token: ClassVar[tuple[str, ...]] = ("ids", "labels", "words")
    per_sequence: ClassVar[tuple[str, ...]] = ("second", "sentences")

    @property
    def unspoken(self) -> int:
        """How many words have no piece and thus no label, as those of control characters alone."""
        return int(self.word_offsets[-1]) - int((self.words >= 0).sum())

    def by_sentence(self, predicted: np.ndarray, missing: int) -> list[np.ndarray]:
        """Returns what is predicted for each word of each sentence.

        Args:
            predicted: integers [tokens of all sequences], beside `ids`.
            missing: the prediction for a word for which no token speaks.
        """
        found = np.full(self.word_offsets[-1], missing, predicted.dtype)
        speaks = self.words >= 0
        found[self.words[speaks]] = predicted[speaks]
        return np.split(found, self.word_offsets[1:-1]) if len(self.word_offsets) > 1 else []


def encode_tagged(
    examples: Sequence[TaggedExample],
    tokenizer: Tokenizer,
    *,
    names: Sequence[str],
    max_length: int,
    overlap: int,
) -> TaggedSequences:
    """Encodes sentences of words: `[CLS] pieces [SEP]`, in several windows where they are long.

    Args:
        names: the tags, in the order of their ids.
        max_length: the most tokens of a window, special ones included.
        overlap: the tokens that neighbouring windows share, at most half of them.

    Raises:
        ValueError: a tag that is none of `names`, with its place; an impossible number.
    """
    if max_length < 3 or overlap < 0:
        raise ValueError(f"max_length must be at least 3 and overlap at least 0, got {max_length} and {overlap}")
    labels = label_words(examples, names)
    # A word's pieces do not hang on its neighbours, so each different word is encoded once.
    index: dict[str, int] = {}
    numbers = [index.setdefault(word, len(index)) for example in examples for word in example.words]
    pieces = encode_runs(index, tokenizer).take(np.array(numbers, np.int64))
    piece_offsets = offsets_of(pieces.lengths)
    words = np.full(piece_offsets[-1], -1, np.int64)
    spoken = np.flatnonzero(pieces.lengths)
    words[piece_offsets[spoken]] = spoken

    word_offsets = offsets_of(np.array([len(example.words) for example in examples], np.int64))
    begins = piece_offsets[word_offsets]
    layout = flatten_windows([cover(length, max_length - 2, overlap) for length in np.diff(begins).tolist()])
    windows = Runs(
        pieces.ids[ranges(pieces.starts, pieces.lengths)], begins[layout.documents] + layout.starts, layout.lengths
    )
    none = np.zeros(len(windows.starts), bool)
    sequences = join(windows, Runs(windows.ids, windows.starts, windows.lengths * 0), none, tokenizer)
    speaks = np.full(len(sequences.ids), -1, np.int64)
    speaks[ranges(sequences.offsets[:-1] + 1, windows.lengths)] = np.where(
        layout.owned, words[ranges(windows.starts, windows.lengths)], -1
    )
    return TaggedSequences(
        ids=sequences.ids,
        offsets=sequences.offsets,
        second=sequences.second,
        labels=np.append(labels, np.int32(IGNORED))[speaks],
        words=speaks,
        sentences=layout.documents,
        word_offsets=word_offsets,
    )


def label_words(examples: Sequence[TaggedExample], names: Sequence[str]) -> np.ndarray:
    """Returns the id of each word's tag, int32 [words of all sentences]; -100 where a sentence is untagged."""
    ids = {name: number for number, name in enumerate(names)}
    labels: list[int] = []
    for example in examples:
        try:
            labels += [IGNORED] * len(example.words) if example.tags is None else [ids[tag] for tag in example.tags]
        except KeyError as error:
            raise ValueError(f"{example.where}: the tag {error} is none of {', '.join(names)}") from None
    return np.array(labels, np.int32)
