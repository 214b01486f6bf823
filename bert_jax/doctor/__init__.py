"""Examines a machine, a run, a model or a data file, and says what is wrong with it; `bert-jax doctor` prints it."""

from bert_jax.doctor.checkpoints import examine_model, is_model
from bert_jax.doctor.data import examine_data
from bert_jax.doctor.findings import Finding
from bert_jax.doctor.machine import examine_machine

__all__ = ["Finding", "examine_data", "examine_machine", "examine_model", "is_model"]
