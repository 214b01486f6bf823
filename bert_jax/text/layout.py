"""How special tokens surround texts; without the library `tokenizers`, so that rows can be described without it.

References: Devlin et al., BERT, 2018, section 3.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Layout:
    """The ids of the special tokens around texts.

    Attributes:
        prefix: before a text, or before the first of two; at least one.
        suffix: after a single text.
        middle: between two texts.
        pair_suffix: after the second of two texts.
        segments: whether the second text and what follows it have token type 1; otherwise all types are 0.
    """

    prefix: tuple[int, ...]
    suffix: tuple[int, ...]
    middle: tuple[int, ...]
    pair_suffix: tuple[int, ...]
    segments: bool

    @classmethod
    def bert(cls, cls_id: int, sep_id: int) -> "Layout":
        """Returns the layout of BERT."""
        return cls((cls_id,), (sep_id,), (sep_id,), (sep_id,), segments=True)

    @property
    def single(self) -> int:
        """The number of special tokens of a sequence of one text."""
        return len(self.prefix) + len(self.suffix)

    @property
    def pair(self) -> int:
        """The number of special tokens of a sequence of two texts."""
        return len(self.prefix) + len(self.middle) + len(self.pair_suffix)

    @property
    def ids(self) -> tuple[int, ...]:
        """All ids, each once."""
        return tuple(dict.fromkeys((*self.prefix, *self.suffix, *self.middle, *self.pair_suffix)))
