"""The sequences of pretraining as a table of spans, and what each objective demands of them.

The tokens of a document are consecutive in the store, so a sequence is one or two spans, and no token is read to plan
it. A sequence without a segment B is a run. With BERT's special tokens:
    mlm-nsp   [CLS] A [SEP] B [SEP]   two segments, and whether B follows A
    mlm       [CLS] A [SEP]           consecutive sentences of one document
The tokenizer's layout may have other special tokens, and more of them.
"""

from collections.abc import Mapping
from typing import Literal

import numpy as np

from bert_jax.text.layout import Layout

Objective = Literal["mlm-nsp", "mlm"]
# Starts count tokens from the beginning of the corpus. Label 0: B follows A, or there is no B; label 1: B is random.
SEQUENCE = np.dtype(
    [("a_start", np.int64), ("b_start", np.int64), ("a_length", np.int32), ("b_length", np.int32), ("label", np.int8)]
)
SpecialTokens = Mapping[Objective, int]  # the number of special tokens of a sequence
SPECIAL_TOKENS: SpecialTokens = {"mlm-nsp": 3, "mlm": 2}  # BERT's, the smallest numbers
SHORTEST: dict[Objective, int] = {"mlm-nsp": 5, "mlm": 3}  # no segment is empty
CONTENT: dict[Objective, str] = {"mlm-nsp": "a sentence pair", "mlm": "a token between [CLS] and [SEP]"}


def special_tokens(layout: Layout) -> SpecialTokens:
    """Returns the numbers of special tokens of a layout."""
    return {"mlm-nsp": layout.pair, "mlm": layout.single}


def check_lengths(
    objective: Objective, max_length: int, short_probability: float, special: SpecialTokens = SPECIAL_TOKENS
) -> None:
    """Raises ValueError if no sequence fits into `max_length`, or `short_probability` is not a probability."""
    shortest = SHORTEST[objective] + special[objective] - SPECIAL_TOKENS[objective]
    if max_length < shortest:
        raise ValueError(f"`max_length` must be at least {shortest} to hold {CONTENT[objective]}, got {max_length}")
    if not 0 <= short_probability <= 1:
        raise ValueError(f"`short_probability` must lie in [0, 1], got {short_probability}")


def sequence_lengths(sequences: np.ndarray, special: SpecialTokens = SPECIAL_TOKENS) -> np.ndarray:
    """Returns the number of tokens of SEQUENCE [N] with their special tokens, int64 [N]."""
    b_length = sequences["b_length"].astype(np.int64)
    return sequences["a_length"] + b_length + np.where(b_length > 0, special["mlm-nsp"], special["mlm"])


def draw_targets(count: int, room: int, short_probability: float, random: np.random.Generator) -> np.ndarray:
    """Returns the length that the sequences of each document aim at, int64 [count]: `room`, or now and then less."""
    short = random.random(count) < short_probability
    return np.where(short, random.integers(min(2, room), room, count, endpoint=True), room)
