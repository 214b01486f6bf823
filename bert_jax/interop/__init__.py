"""Checkpoints in and out: Hugging Face's formats, Flax's, and the folders of runs; and models made larger."""

from bert_jax.interop.loading import LoadedBert, TrainedRun, load
from bert_jax.interop.resizing import add_tokens, extend_positions, resize_vocabulary

__all__ = ["LoadedBert", "TrainedRun", "add_tokens", "extend_positions", "load", "resize_vocabulary"]
