"""A BERT small enough for finite differences in every parameter, with unequal and mostly prime sizes, and its inputs.

Parameters are drawn large enough for every path to matter: no bias is 0, no scale is 1.
"""

from typing import Any

import numpy as np

from bert_jax.config import BertConfig
from bert_jax.reference.attention import make_attention_mask

B, T, D, N, H, F, V, P, S, L, C = 2, 7, 12, 3, 4, 20, 31, 5, 3, 2, 5
POSITIONS, TOKEN_TYPES = 11, 2


def config(**changes: Any) -> BertConfig:
    """Returns the config of this BERT, changed."""
    sizes: dict[str, Any] = {
        "vocab_size": V,
        "hidden_size": D,
        "num_hidden_layers": L,
        "num_attention_heads": N,
        "intermediate_size": F,
        "max_position_embeddings": POSITIONS,
    }
    return BertConfig(**sizes | changes)


def dense_shapes(inputs, outputs, *stack):
    return {"kernel": (*stack, inputs, outputs), "bias": (*stack, outputs)}


def norm_shapes(*stack):
    return {"scale": (*stack, D), "bias": (*stack, D)}


def layer_shapes(*stack):
    return {
        "attention": {name: dense_shapes(D, D, *stack) for name in ("query", "key", "value", "output")}
        | {"norm": norm_shapes(*stack)},
        "feed_forward": {
            "up": dense_shapes(D, F, *stack),
            "down": dense_shapes(F, D, *stack),
            "norm": norm_shapes(*stack),
        },
    }


SHAPES: dict[str, Any] = {
    "embeddings": {
        "word": {"embedding": (V, D)},
        "position": {"embedding": (POSITIONS, D)},
        "token_type": {"embedding": (TOKEN_TYPES, D)},
        "norm": norm_shapes(),
    },
    "encoder": layer_shapes(L),
    "pooler": dense_shapes(D, D),
    "masked_lm": {"transform": dense_shapes(D, D), "norm": norm_shapes(), "bias": (V,)},
    "next_sentence": dense_shapes(D, 2),
    "classifier": dense_shapes(D, C),
    "span": dense_shapes(D, 2),
}

SINUSOIDAL = {name: shapes for name, shapes in SHAPES["embeddings"].items() if name != "position"}


def normal(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape)


def draw(shapes, random=None):
    random = random or np.random.default_rng(3)
    return {
        name: draw(shape, random)
        if isinstance(shape, dict)
        else (name == "scale") + random.normal(size=shape, scale=0.3)
        for name, shape in shapes.items()
    }


# Row 0 is packed with three sequences, row 1 is one sequence and padding.
ATTENTION_MASK = np.array([[1, 1, 1, 2, 2, 3, 3], [1, 1, 1, 1, 0, 0, 0]])
POSITION_IDS = np.array([[0, 1, 2, 0, 1, 0, 1], [0, 1, 2, 3, 0, 0, 0]])
CLS_POSITIONS = np.array([[0, 3, 5], [0, 0, 0]])
MASKED_POSITIONS = np.array([[1, 2, 4, 6, 0], [3, 2, 1, 0, 0]])
EXAMPLE_WEIGHTS = np.array([1.0, 0.25])
ATTENDS = make_attention_mask(ATTENTION_MASK)


def inputs(*shape):
    """Ids with repetitions, so that the gradient of a lookup must add."""
    random = np.random.default_rng(5)
    return {
        "input_ids": random.integers(V // 2, size=shape),
        "token_type_ids": random.integers(TOKEN_TYPES, size=shape),
    }


def integers(limit, *shape):
    return np.random.default_rng(11).integers(limit, size=shape)


ROWS = inputs(B, T)
PACKED = ROWS | {"attention_mask": ATTENTION_MASK, "position_ids": POSITION_IDS}
PADDED = ROWS | {"attention_mask": np.array([[1] * 7, [1] * 4 + [0] * 3])}
