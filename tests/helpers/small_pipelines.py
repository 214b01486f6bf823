"""Models that answer texts: a vocabulary of a few lines, and weights drawn large enough for answers to differ."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax import models
from bert_jax.config import BertConfig
from bert_jax.interop.loading import LoadedBert
from bert_jax.text.tokenizer import Tokenizer

LINES = (
    "the owl hooted at night , and nobody answered it .",
    "somebody played a record of an owl to the owl .",
    "it flew from the barn to the old oak , where it was answered at last !",
    "is that so ? yes : they heard it in paris , in 1923 and again in 1931 .",
)
SHORT, MIDDLE = LINES[0], " ".join(LINES)
LONG = " ".join(np.random.default_rng(1).permutation(MIDDLE.split() * 7).tolist())  # no two windows are alike
TEXTS = (SHORT, LONG, "", "owl", MIDDLE, LINES[2], "   ", LONG[:211], "Paris ! 1923", MIDDLE)
LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
POSITIONS = 23  # so that rows are padded to 16 or 23 tokens


@cache
def tokenizer() -> Tokenizer:
    return Tokenizer.train(LINES, 149, min_frequency=1)


@cache
def bert(head: str, **changes) -> LoadedBert:
    sizes = {
        "vocab_size": tokenizer().vocab_size,
        "hidden_size": 12,
        "num_hidden_layers": 2,
        "num_attention_heads": 3,
        "intermediate_size": 20,
        "max_position_embeddings": POSITIONS,
    }
    model = getattr(models, head)(BertConfig(**{**sizes, **changes}))
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    random = np.random.default_rng(7)
    params = jax.tree.map(lambda leaf: random.normal(scale=0.5, size=leaf.shape).astype(np.float32), shapes)
    return LoadedBert(model, params, tokenizer())
