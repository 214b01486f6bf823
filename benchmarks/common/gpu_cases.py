"""The cases of the GPU benchmark, and their batches of random token ids.

Fixed rows are one full sequence; packed rows hold several, cut at random positions.

B rows, T tokens per row, P predictions per row, S sequences per row.
"""

from dataclasses import dataclass

import numpy as np

from common.pretraining_step import MASKED_FRACTION

TOKENS_PER_SEQUENCE = 64  # of packed rows, on average


@dataclass(frozen=True)
class Case:
    """One line of the output.

    Attributes:
        task: `pretraining`, `answers` (extractive question answering) or `inference` (the encoder's forward pass).
        unrolled: whether the layers are compiled one after another instead of in a loop.
    """

    preset: str
    length: int
    packed: bool
    rows: int
    remat: str = "auto"
    attention: str = "auto"
    unrolled: bool = False
    accumulate: int = 1
    dropout: float = 0.1  # of the attention weights; the hidden dropout is always 0.1
    task: str = "pretraining"
    random_bits: str = "hashed"


CASES = (
    Case("base", 512, True, 64, unrolled=True),
    Case("base", 512, True, 64),
    Case("base", 512, True, 64, attention="plain"),
    Case("large", 512, True, 32),
    Case("large", 512, True, 64, unrolled=True),
    Case("large", 512, True, 32, attention="plain"),
    Case("base", 128, True, 256, unrolled=True),
    Case("base", 128, True, 256, attention="plain"),
    Case("large", 128, False, 256),
    Case("large", 128, False, 256, attention="plain"),
    Case("large", 384, False, 64, task="answers"),
    Case("large", 384, False, 64, attention="plain", task="answers"),
    Case("base", 512, True, 256, accumulate=4),
    Case("base", 512, True, 64, random_bits="rbg"),
)
INFERENCE_CASES = (
    Case("base", 512, False, 64, attention="pallas", dropout=0.0, task="inference"),
    Case("base", 512, False, 64, attention="cudnn", dropout=0.0, task="inference"),
    Case("base", 512, False, 64, attention="plain", dropout=0.0, task="inference"),
)
LARGEST_BATCH_CASES = (
    Case("base", 512, True, 64),
    Case("large", 512, True, 64),
)
SMOKE_CASES = (
    Case("tiny", 64, True, 2, attention="pallas"),
    Case("tiny", 64, False, 2, task="answers", random_bits="rbg"),
)
SMOKE_INFERENCE_CASES = (Case("tiny", 64, False, 2, dropout=0.0, task="inference"),)


def random_batch(case: Case, vocab_size: int) -> dict[str, np.ndarray]:
    """Returns the rows of a case. Cuts and masked positions of a row are different ones, as in real data."""
    random = np.random.default_rng(0)
    B = case.rows
    T = case.length
    P = round(MASKED_FRACTION * T)
    S = max(1, T // TOKENS_PER_SEQUENCE) if case.packed else 1
    cuts = np.sort(random.permuted(np.tile(np.arange(1, T), (B, 1)), axis=1)[:, : S - 1], axis=1)
    sequence_numbers = 1 + (np.arange(T)[None, :, None] >= cuts[:, None, :]).sum(axis=2)  # [B, T]
    starts = np.concatenate([np.zeros((B, 1), int), cuts], axis=1)  # [B, S]
    position_ids = np.arange(T)[None] - np.take_along_axis(starts, sequence_numbers - 1, axis=1)
    batch = {
        "input_ids": random.integers(0, vocab_size, (B, T), np.int32),
        "attention_mask": sequence_numbers.astype(np.int32),
        "token_type_ids": np.zeros((B, T), np.int32),
        "position_ids": position_ids.astype(np.int32),
    }
    if case.task == "inference":
        return batch
    if case.task == "answers":
        positions = starts.astype(np.int32)
        weights = np.ones((B, S), np.float32)
        return batch | {"start_positions": positions, "end_positions": positions, "weights": weights}
    masked = random.permuted(np.tile(np.arange(T, dtype=np.int32), (B, 1)), axis=1)[:, :P]
    return batch | {
        "masked_positions": np.sort(masked, axis=1),
        "masked_labels": random.integers(0, vocab_size, (B, P), np.int32),
        "masked_weights": np.ones((B, P), np.float32),
        "cls_positions": starts.astype(np.int32),
        "next_sentence_labels": random.integers(0, 2, (B, S), np.int32),
        "next_sentence_weights": np.ones((B, S), np.float32),
    }
