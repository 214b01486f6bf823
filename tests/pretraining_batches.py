"""Batches in the format of pretraining with random content, for a BERT small enough to compile in seconds."""

import numpy as np
import small_bert as small

from bert_jax.config import BertConfig

T, P = 11, 4
CONFIG = BertConfig(
    vocab_size=small.V,
    hidden_size=small.D,
    num_hidden_layers=small.L,
    num_attention_heads=small.N,
    intermediate_size=small.F,
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
