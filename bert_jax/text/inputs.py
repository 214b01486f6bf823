"""The two ends of encoding: the texts that are accepted, strings and lists of words, and the arrays that models get."""

import re
from collections.abc import Sequence

import numpy as np
import tokenizers

SURROGATES = re.compile("[\ud800-\udfff]")


def require_string(text: object, what: str = "a text") -> str:
    """Returns the text; raises ValueError if it is not a string."""
    if not isinstance(text, str):
        raise ValueError(f"{what} must be a string, got {type(text).__name__}: {text!r:.60}")
    return text


def valid_text(text: object, what: str = "a text") -> str:
    """Returns the text with each lone surrogate, which UTF-8 cannot encode, replaced by U+FFFD."""
    return SURROGATES.sub("\ufffd", require_string(text, what))


def valid_input(text: object, *, words: bool) -> str | list[str]:
    """Returns a text, or a list of words, with `valid_text` applied."""
    if not words:
        return valid_text(text)
    if not isinstance(text, list | tuple):
        raise ValueError(f"texts must be strings or lists of words, got {type(text).__name__}: {text!r:.60}")
    return [valid_text(word, "a word") for word in text]


def padded(encodings: Sequence[tokenizers.Encoding], length: int, pad_id: int) -> dict[str, np.ndarray]:
    """Returns `input_ids`, `token_type_ids`, `attention_mask`, int32 [B, length]."""
    shape = (len(encodings), length)
    batch = {
        "input_ids": np.full(shape, pad_id, np.int32),
        "token_type_ids": np.zeros(shape, np.int32),
        "attention_mask": np.zeros(shape, np.int32),
    }
    for row, encoding in enumerate(encodings):
        batch["input_ids"][row, : len(encoding)] = encoding.ids
        batch["token_type_ids"][row, : len(encoding)] = encoding.type_ids
        batch["attention_mask"][row, : len(encoding)] = 1
    return batch
