"""Examines a machine, a run, a model, data or a prepared corpus, and says what is wrong: `bert-jax doctor`."""

from bert_jax.doctor.checkpoints import examine_model, is_model
from bert_jax.doctor.data import examine_data
from bert_jax.doctor.findings import Finding
from bert_jax.doctor.machine import examine_machine
from bert_jax.doctor.stores import examine_store

__all__ = ["Finding", "examine_data", "examine_machine", "examine_model", "examine_store", "is_model"]
