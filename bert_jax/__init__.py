"""BERT in JAX, whole: pretraining, fine-tuning, inference, checkpoints.

>>> import bert_jax
>>> bert = bert_jax.load("RUN")  # doctest: +SKIP
>>> bert(input_ids, attention_mask=mask).last_hidden_state  # doctest: +SKIP
"""

from typing import TYPE_CHECKING, Any

from bert_jax.config import BertConfig

if TYPE_CHECKING:
    from bert_jax.interop.loading import load

    __version__: str

__all__ = ["BertConfig", "load"]


def __getattr__(name: str) -> Any:
    # Loaded on first use: half of the package is of no interest to somebody who wants the functions alone.
    if name == "load":
        from bert_jax.interop.loading import load

        return load
    if name == "__version__":
        from importlib.metadata import version

        return version("bert_jax")
    raise AttributeError(f"module 'bert_jax' has no attribute {name!r}")
