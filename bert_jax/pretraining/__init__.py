"""Pretraining: settings, the corpus, the model and its step, the program, its summary, and plans of runs.

>>> from bert_jax.pretraining import make_settings, pretrain
>>> run = pretrain(make_settings("demo", output="RUN"))  # doctest: +SKIP
>>> run.metrics["eval_masked_lm_loss"]  # doctest: +SKIP
"""

from bert_jax.pretraining.presets import make_settings
from bert_jax.pretraining.program import pretrain

__all__ = ["make_settings", "pretrain"]
