"""Encodes tagged sentences as token sequences, and turns predictions per token into one prediction per word.

The first piece of a word carries its label, the other pieces have none. A long sentence is read in overlapping windows;
a word is labelled once, in the window where its first piece has the most context.

Reference: Devlin et al., BERT, 2018, section 5.3.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bert_jax.data.finetuning.sequences import Runs, Sequences, encode_runs, join, offsets_of, ranges
from bert_jax.data.readers.examples import IGNORED_TAG, TaggedExample
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.windows import cover, flatten_windows

IGNORED = int(IGNORED_TAG)  # the label of tokens without one


@dataclass(frozen=True, eq=False)
class TaggedSequences(Sequences):
    """Windows over sentences, with labels.

    Attributes:
        labels: int32 [tokens of all sequences], -100 for tokens without a label.
        words: int64 [tokens of all sequences], the index of the word that a token represents, over all sentences; or
            -1.
        sentences: int64 [n], the sentence of each window.
        word_offsets: int64 [sentences + 1], words before each sentence.
    """

    labels: np.ndarray
    words: np.ndarray
    sentences: np.ndarray
    word_offsets: np.ndarray

    per_token: ClassVar[tuple[str, ...]] = ("ids", "labels", "words")
    per_sequence: ClassVar[tuple[str, ...]] = ("second", "sentences")

    @property
    def words_without_token(self) -> int:
        """How many words have no piece and thus no label, such as words of control characters."""
        return int(self.word_offsets[-1]) - int((self.words >= 0).sum())

    def by_sentence(self, predicted: np.ndarray, missing: int) -> list[np.ndarray]:
        """Returns the prediction for each word of each sentence.

        Args:
            predicted: [tokens of all sequences], aligned with `ids`.
            missing: the prediction for a word without a token.
        """
        found = np.full(self.word_offsets[-1], missing, predicted.dtype)
        represents = self.words >= 0
        found[self.words[represents]] = predicted[represents]
        return np.split(found, self.word_offsets[1:-1]) if len(self.word_offsets) > 1 else []


def encode_tagged(
    examples: Sequence[TaggedExample],
    tokenizer: Tokenizer,
    *,
    names: Sequence[str],
    max_length: int,
    overlap: int,
) -> TaggedSequences:
    """Encodes sentences of words: `[CLS] pieces [SEP]`, long ones in several windows.

    Each word is encoded as in the middle of a text, with the space before it if the tokenizer marks it.

    Args:
        names: the tags, in the order of their ids.
        max_length: maximum number of tokens of a window with its special tokens.
        overlap: tokens shared by neighbouring windows, at most half of a window.

    Raises:
        ValueError: a tag that is not in `names`, with its place; an impossible number.
    """
    special = tokenizer.layout.single
    if max_length <= special or overlap < 0:
        raise ValueError(
            f"`max_length` must be at least {special + 1} and `overlap` at least 0, got {max_length} and {overlap}"
        )
    labels = label_words(examples, names)
    # The pieces of a word do not depend on its neighbours, so each different word is encoded once.
    index: dict[str, int] = {}
    numbers = [index.setdefault(word, len(index)) for example in examples for word in example.words]
    pieces = encode_runs(map(tokenizer.as_word, index), tokenizer).take(np.array(numbers, np.int64))
    piece_offsets = offsets_of(pieces.lengths)
    words = np.full(piece_offsets[-1], -1, np.int64)
    encoded = np.flatnonzero(pieces.lengths)
    words[piece_offsets[encoded]] = encoded

    word_offsets = offsets_of(np.array([len(example.words) for example in examples], np.int64))
    begins = piece_offsets[word_offsets]
    flat = flatten_windows([cover(length, max_length - special, overlap) for length in np.diff(begins).tolist()])
    windows = Runs(
        pieces.ids[ranges(pieces.starts, pieces.lengths)], begins[flat.documents] + flat.starts, flat.lengths
    )
    none = np.zeros(len(windows.starts), bool)
    sequences = join(windows, Runs(windows.ids, windows.starts, windows.lengths * 0), none, tokenizer)
    words_of_tokens = np.full(len(sequences.ids), -1, np.int64)
    words_of_tokens[ranges(sequences.offsets[:-1] + len(tokenizer.layout.prefix), windows.lengths)] = np.where(
        flat.owned, words[ranges(windows.starts, windows.lengths)], -1
    )
    return TaggedSequences(
        ids=sequences.ids,
        offsets=sequences.offsets,
        second=sequences.second,
        labels=np.append(labels, np.int32(IGNORED))[words_of_tokens],
        words=words_of_tokens,
        sentences=flat.documents,
        word_offsets=word_offsets,
    )


def label_words(examples: Sequence[TaggedExample], names: Sequence[str]) -> np.ndarray:
    """Returns the id of each word's tag, int32 [words of all sentences]; -100 for words without a tag."""
    ids = {name: number for number, name in enumerate(names)} | {IGNORED_TAG: IGNORED}
    labels: list[int] = []
    for example in examples:
        try:
            labels += [IGNORED] * len(example.words) if example.tags is None else [ids[tag] for tag in example.tags]
        except KeyError as error:
            raise ValueError(f"{example.where}: tag {error} is not one of {', '.join(names)}") from None
    return np.array(labels, np.int32)
