"""Encodes texts as documents: a text that fits is one window, a longer one has several overlapping windows.

`[CLS] text [SEP]`, or `[CLS] first [SEP] text [SEP]` with the first text in every row; in general the tokenizer's
layout (`Tokenizer.layout`).
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bert_jax.pipelines.batching import Encoded
from bert_jax.text.inputs import valid_text
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.windows import Window, cover, owners

TEXTS_AT_ONCE = 64  # encoded together, while the device computes the batch before

Pair = tuple[str | None, str]  # the first text of a pair, or None, and the text


@dataclass(frozen=True, eq=False)
class Document:
    """A text, its tokens and its windows.

    Attributes:
        text: the given text.
        ids: int32 [n], without special tokens.
        offsets: int [n, 2], the start and end character of each token.
        opening: int32, the tokens before the text in every window: [CLS], or [CLS] first [SEP].
        closing: int32, the tokens after it: [SEP].
        windows: at least one; each token is in at least one.
        segment_b: whether the text is segment B, with token type 1.
    """

    text: str
    ids: np.ndarray
    offsets: np.ndarray
    opening: np.ndarray
    closing: np.ndarray
    windows: tuple[Window, ...]
    segment_b: bool

    def encoded(self, window: Window, position: int | None = None) -> Encoded:
        """Returns the sequence of a window, with a result at `position` or, if None, for every token."""
        ids = np.concatenate([self.opening, self.ids[window.start : window.stop], self.closing], dtype=np.int32)
        return Encoded(ids, len(self.opening) if self.segment_b else len(ids), position)

    def position(self, window: Window, token: int) -> int:
        """Returns the position of a token of the document in the window's sequence."""
        return len(self.opening) + token - window.start

    @cached_property
    def owners(self) -> np.ndarray:
        """Int [n]: the window in which each token has the most context."""
        return owners(self.windows)


def read_documents(
    pairs: Sequence[Pair],
    tokenizer: Tokenizer,
    *,
    max_length: int,
    overlap: int,
    offsets: bool,
    whole_first: str | None,
    special: Sequence[str] = (),
) -> Iterator[Document]:
    """Yields the documents of pairs, encoded a few at a time.

    A first text gets half of a window, and more if the other text is short.

    Args:
        offsets: whether to compute `Document.offsets`; encoding is faster without them.
        whole_first: name of a first text that must not be truncated, for the error; None truncates it with a warning.
        special: special tokens that are not text where they occur in a text.

    Raises:
        ValueError: a first text leaves too little room for the other.
    """
    backend = tokenizer.text_backend(*special)
    encode = backend.encode_batch if offsets else backend.encode_batch_fast
    layout = tokenizer.layout
    for begin in range(0, len(pairs), TEXTS_AT_ONCE):
        chunk = pairs[begin : begin + TEXTS_AT_ONCE]
        encodings = encode([valid_text(text) for _, text in chunk], add_special_tokens=False)
        firsts = [valid_text(first) for first, _ in chunk if first is not None]
        first_ids = iter([encoding.ids for encoding in encode(firsts, add_special_tokens=False)] if firsts else ())
        for (first, text), encoding in zip(chunk, encodings, strict=True):
            opening = [*layout.prefix]
            closing = layout.suffix if first is None else layout.pair_suffix
            if first is not None:
                ids = next(first_ids)
                # Without this limit a long second text would be read in windows of a few tokens.
                most = max_length - layout.pair - min(len(encoding.ids), (max_length - layout.pair - 1) // 2)
                if len(ids) > most and whole_first is not None:
                    raise ValueError(
                        f"a {whole_first} of {len(ids)} tokens leaves too little of {max_length} tokens: {first!r:.60}"
                    )
                if len(ids) > most:
                    warnings.warn("a first text is truncated to half of the window", stacklevel=2)
                opening += [*ids[:most], *layout.middle]
            room = max_length - len(opening) - len(closing)
            yield Document(
                text=text,
                ids=np.array(encoding.ids, np.int32),
                offsets=tokenizer.offsets(text, encoding) if offsets else np.zeros((0, 2), np.int64),
                opening=np.array(opening, np.int32),
                closing=np.array(closing, np.int32),
                windows=cover(len(encoding.ids), room, overlap),
                segment_b=first is not None and layout.segments,
            )
