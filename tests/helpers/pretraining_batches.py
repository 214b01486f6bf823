"""Batches in the format of pretraining with random content, for a BERT small enough to compile in seconds."""

import numpy as np
import small_bert as small

T, P = 11, 4
CONFIG = small.config(
    max_position_embeddings=T,
    hidden_act="gelu_new",
    initializer_range=0.2,
)


def random_batch(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Rows of unequal lengths with unequal numbers of predictions."""
    random = np.random.default_rng(seed)
    lengths = random.integers(5, T + 1, rows)
    mask = (np.arange(T)[None, :] < lengths[:, None]).astype(np.int32)
    predictions = random.integers(1, P + 1, rows)
    return {
        "input_ids": (random.integers(5, small.V, (rows, T)) * mask).astype(np.int32),
        "token_type_ids": (random.integers(0, 2, (rows, T)) * mask).astype(np.int32),
        "attention_mask": mask,
        "position_ids": (np.arange(T)[None, :] * mask).astype(np.int32),
        "masked_positions": random.integers(1, 5, (rows, P)).astype(np.int32),
        "masked_labels": random.integers(5, small.V, (rows, P)).astype(np.int32),
        "masked_weights": (np.arange(P)[None, :] < predictions[:, None]).astype(np.float32),
        "cls_positions": np.zeros((rows, 1), np.int32),
        "next_sentence_labels": random.integers(0, 2, (rows, 1)).astype(np.int32),
        "next_sentence_weights": np.ones((rows, 1), np.float32),
    }


def packed_batch(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Rows of one, two or three sequences, some with padding after them; unused slots carry weight 0."""
    random = np.random.default_rng(seed)
    batch = random_batch(rows, seed)
    starts = np.sort(random.integers(1, T - 2, (rows, 2)))  # two equal: the second of three sequences is missing
    starts[random.random(rows) < 0.3] = T  # one sequence
    place = np.arange(T)[None, :]
    inside = batch["attention_mask"] > 0
    number = (place >= starts[:, :1]).astype(np.int32) + (place >= starts[:, 1:])
    first = np.maximum.accumulate(np.where(np.diff(number, axis=1, prepend=-1) != 0, place, 0), axis=1)
    cls = np.concatenate([np.zeros((rows, 1), np.int64), starts], axis=1)
    used = (cls < inside.sum(axis=1)[:, None]) & (np.diff(cls, axis=1, append=T + 1) > 0)
    return batch | {
        "attention_mask": np.where(inside, number + 1, 0).astype(np.int32),
        "position_ids": np.where(inside, place - first, 0).astype(np.int32),
        "cls_positions": np.where(used, cls, 0).astype(np.int32),
        "next_sentence_labels": random.integers(0, 2, (rows, 3)).astype(np.int32),
        "next_sentence_weights": used.astype(np.float32),
    }
