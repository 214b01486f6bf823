"""Vectors for texts.

References: Reimers, Gurevych, Sentence-BERT, 2019, section 3 (the three poolings).
"""

from typing import Any, Literal, get_args

import jax.numpy as jnp
import numpy as np

from bert_jax.interop.loading import LoadedBert
from bert_jax.pipelines.documents import Document
from bert_jax.pipelines.pipeline import Pipeline

Pooling = Literal["mean", "cls", "max"]


class Embedder(Pipeline):
    """Turns a text into a vector, float32 [D]; a list of texts into an array [texts, D].

    Any model will do; its head is not used. A long text is not cut: the vectors of its windows are joined, by their
    maximum for `max`, else by their mean, each weighed by its tokens.

    Args:
        pooling: over the vectors of all tokens, special ones included: their `mean` or `max`; or that of [CLS].
        normalize: to length 1, so that a product is a cosine.
        **options: those of every pipeline.
    """

    def __init__(self, bert: LoadedBert, *, pooling: Pooling = "mean", normalize: bool = True, **options: Any) -> None:
        if pooling not in get_args(Pooling):
            raise ValueError(f"pooling must be one of {', '.join(get_args(Pooling))}; got {pooling!r}")
        self.pooling, self.normalize = pooling, normalize
        super().__init__(bert, **options)

    def wanted(self, outputs, mask):
        x = outputs.last_hidden_state.astype(jnp.float32)
        if self.pooling == "cls":
            return x[:, 0]
        if self.pooling == "max":
            return jnp.where(mask[:, :, None], x, -jnp.inf).max(axis=1)
        return jnp.where(mask[:, :, None], x, 0.0).sum(axis=1) / jnp.maximum(mask.sum(axis=1), 1)[:, None]

    def answer(self, document: Document, results: list[Any]) -> np.ndarray:
        vector = results[0]
        if len(results) > 1:
            tokens = [window.stop - window.start + len(document.opening) + 1 for window in document.windows]
            vector = np.max(results, 0) if self.pooling == "max" else np.average(results, axis=0, weights=tokens)
        if self.normalize:
            vector = vector / max(np.linalg.norm(vector), 1e-12)
        return np.array(vector, np.float32)

    def gathered(self, answers: list[Any]) -> Any:
        return np.stack(answers) if answers else np.zeros((0, self.bert.config.hidden_size), np.float32)
