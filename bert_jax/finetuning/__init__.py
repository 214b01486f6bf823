"""Fine-tuning: settings, checks, the trainer of all seeds, sweeps, and the program.

>>> from bert_jax.finetuning import finetune, make_settings
>>> run = finetune(make_settings("classification", model="runs/demo"))  # doctest: +SKIP
>>> run.metrics["accuracy"]  # doctest: +SKIP
"""

from bert_jax.finetuning.program import finetune
from bert_jax.finetuning.settings import make_settings

__all__ = ["finetune", "make_settings"]
