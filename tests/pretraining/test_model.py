"""What a pretraining run computes depends on its device only where it says so."""

import json

import numpy as np
import pytest

from bert_jax.config import BertConfig
from bert_jax.pretraining.model import Computation
from bert_jax.pretraining.presets import make_settings

CONFIG = BertConfig.preset("mini", vocab_size=31)


@pytest.mark.parametrize(("platform", "unroll", "layers"), [("gpu", 0, 4), ("cpu", 0, 1), ("gpu", 1, 1), ("cpu", 3, 3)])
def test_all_layers_are_unrolled_on_gpus_unless_a_number_is_given(platform, unroll, layers):
    settings = make_settings(attention="plain", unroll=unroll)
    computation = Computation.make(settings, CONFIG, np.ones((2, 8), np.int32), platform=platform)
    assert computation.model.unroll == layers


def test_all_processes_use_the_kernel_that_the_first_one_chose(monkeypatch):
    """Programs with different kernels would wait for each other for ever."""
    here = []

    def from_another_machine(name, make):
        here.append(json.loads(make()))
        return b'["pallas", "agrees"]'

    monkeypatch.setattr("bert_jax.pretraining.model.broadcast_from_first", from_another_machine)
    computation = Computation.make(make_settings(attention="plain"), CONFIG, np.ones((2, 8), np.int32), platform="cpu")
    assert computation.model.kernel == "pallas"
    assert here == [[None, "as requested"]]
