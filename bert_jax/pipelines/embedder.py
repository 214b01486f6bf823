"""Embeds texts as vectors.

References: Reimers, Gurevych, Sentence-BERT, 2019, section 3 (the three poolings).
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, Self, cast, get_args

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.functional import select
from bert_jax.interop.loading import LoadedBert, locate
from bert_jax.interop.pooling import POOLING_FILES, PoolingConfig, read_pooling
from bert_jax.models import Outputs
from bert_jax.pipelines.documents import Document
from bert_jax.pipelines.pipeline import Pipeline

Pooling = Literal["mean", "cls", "max"]
DEFAULT = PoolingConfig("mean", normalize=True)


class Embedder(Pipeline):
    """Turns a text into a vector, float32 [D]; a list of texts into an array [texts, D].

    Works with any model; the head is not used. A long text is not truncated: the vectors of its windows are combined by
    their maximum for `max`, otherwise by their mean, weighted by their tokens.

    Args:
        bert: the result of `bert_jax.load`.
        pooling: the `mean` or `max` over the vectors of all tokens with the special tokens; or the vector of [CLS].
        normalize: scale to length 1, so that dot products are cosines.
        **options: see `Pipeline`.
    """

    def __init__(self, bert: LoadedBert, *, pooling: Pooling = "mean", normalize: bool = True, **options: Any) -> None:
        if pooling not in get_args(Pooling):
            raise ValueError(f"`pooling` must be one of {', '.join(get_args(Pooling))}; got {pooling!r}")
        self.pooling, self.normalize = pooling, normalize
        super().__init__(bert, **options)

    @classmethod
    def load(
        cls,
        source: str | Path,
        *,
        dtype: str | None = None,
        revision: str | None = None,
        pooling: Pooling | None = None,
        normalize: bool | None = None,
        **options: Any,
    ) -> Self:
        """Loads a model and makes an embedder of it.

        Args:
            source, dtype, revision: see `bert_jax.load`.
            pooling, normalize: None: the setting of a sentence-transformers folder, otherwise the default of the class.
            **options: see `Pipeline`.

        Raises:
            FileNotFoundError, ValueError: see `bert_jax.load`; a folder with another kind of pooling.
        """
        folder = locate(source, revision, extra_files=POOLING_FILES)
        if pooling is None or normalize is None:
            said = read_pooling(folder) or DEFAULT
            if pooling is None and said.mode not in get_args(Pooling):
                raise ValueError(f"{folder} pools by {said.mode!r:.80}: choose one of {', '.join(get_args(Pooling))}")
            pooling = pooling or cast(Pooling, said.mode)
            normalize = said.normalize if normalize is None else normalize
        return super().load(folder, dtype=dtype, pooling=pooling, normalize=normalize, **options)

    def select(self, outputs: Outputs, batch: Mapping[str, jax.Array], options: Mapping[str, Any]) -> jax.Array:
        x = outputs.last_hidden_state.astype(jnp.float32)
        if self.pooling == "cls":
            return select(x, batch["positions"])
        sequence = batch["attention_mask"]
        inside = jnp.take_along_axis(sequence, batch["positions"], axis=1)[:, :, None] == sequence[:, None, :]
        if self.pooling == "max":
            return jnp.where(inside[:, :, :, None], x[:, None, :, :], -jnp.inf).max(axis=2)
        sums = jnp.einsum("BPT,BTD->BPD", inside.astype(jnp.float32), x, precision="highest")
        return sums / inside.sum(axis=2)[:, :, None]

    def answer(self, document: Document, results: list[Any], options: Mapping[str, Any]) -> np.ndarray:
        vectors = np.concatenate(results)
        if self.pooling == "max":
            vector = vectors.max(axis=0)
        else:
            tokens = [window.stop - window.start + len(document.opening) + 1 for window in document.windows]
            vector = np.average(vectors, axis=0, weights=tokens)
        if self.normalize:
            vector = vector / max(np.linalg.norm(vector), 1e-12)
        return np.array(vector, np.float32)

    def collect(self, answers: list[Any]) -> Any:
        return np.stack(answers) if answers else np.zeros((0, self.bert.config.hidden_size), np.float32)
