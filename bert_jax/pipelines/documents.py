"""Texts as rows: a text that fits is one row, a longer one several whose windows overlap.

`[CLS] text [SEP]`, or `[CLS] first [SEP] text [SEP]` with the first text in every row.
"""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bert_jax.pipelines.batching import Encoded
from bert_jax.text.tokenizer import Tokenizer, valid_text
from bert_jax.text.windows import Window, cover, owners

SLICE = 64  # texts encoded at once, while the device works on what came before

Pair = tuple[str | None, str]  # the text that comes first, if there is one, and the text


@dataclass(frozen=True, eq=False)
class Document:
    """A text, its tokens, and the windows that cover them.

    Attributes:
        text: as it was given.
        ids: int32 [n], without special tokens.
        offsets: int [n, 2], the characters of each token.
        opening: int32, what stands before the text in every row: [CLS], or [CLS] first [SEP].
        windows: at least one; each token is in one or more.
        paired: whether there is a first text.
    """

    text: str
    ids: np.ndarray
    offsets: np.ndarray
    opening: np.ndarray
    windows: tuple[Window, ...]
    paired: bool

    def encoded(self, window: Window, sep_id: int, place: int | None = None) -> Encoded:
        """Returns the sequence of a window, to be answered at `place` in it or everywhere."""
        ids = np.concatenate([self.opening, self.ids[window.start : window.stop], [sep_id]], dtype=np.int32)
        return Encoded(ids, len(self.opening) if self.paired else len(ids), place)

    def place(self, window: Window, token: int) -> int:
        """Returns where in the window's sequence a token of the document stands."""
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
) -> Iterator[Document]:
    """Yields the documents of pairs, encoded some at a time.

    A first text may take half of a row, and more only where the other one leaves it.

    Args:
        offsets: whether characters are asked for; without them encoding is faster.
        whole_first: what a first text is called that is refused when it takes more; None: it is cut, with a warning.

    Raises:
        ValueError: a first text that leaves too little room for the other.
    """
    encode = tokenizer.backend.encode_batch if offsets else tokenizer.backend.encode_batch_fast
    for begin in range(0, len(pairs), SLICE):
        some = pairs[begin : begin + SLICE]
        encodings = encode([valid_text(text) for _, text in some], add_special_tokens=False)
        firsts = [valid_text(first) for first, _ in some if first is not None]
        first_ids = iter([encoding.ids for encoding in encode(firsts, add_special_tokens=False)] if firsts else ())
        for (first, text), encoding in zip(some, encodings, strict=True):
            opening = [tokenizer.cls_id]
            if first is not None:
                ids = next(first_ids)
                # A long document seen through a slit would take hours.
                most = max_length - 3 - min(len(encoding.ids), max_length // 2 - 2)
                if len(ids) > most and whole_first is not None:
                    raise ValueError(
                        f"a {whole_first} of {len(ids)} tokens leaves too little of {max_length} tokens: {first!r:.60}"
                    )
                if len(ids) > most:
                    warnings.warn("a first text is cut: it takes more than half of the window", stacklevel=2)
                opening += [*ids[:most], tokenizer.sep_id]
            room = max_length - len(opening) - 1
            yield Document(
                text=text,
                ids=np.array(encoding.ids, np.int32),
                offsets=np.array(encoding.offsets if offsets else (), np.int64).reshape(-1, 2),
                opening=np.array(opening, np.int32),
                windows=cover(len(encoding.ids), room, overlap),
                paired=first is not None,
            )
