"""What a pretraining run computes depends on its device only where it says so."""

import jax
import numpy as np
import pytest

from bert_jax.config import BertConfig
from bert_jax.pretraining.model import Computation
from bert_jax.pretraining.settings import make_settings

CONFIG = BertConfig.preset("mini", vocab_size=31)


@pytest.mark.parametrize(("platform", "unroll", "layers"), [("gpu", 0, 4), ("cpu", 0, 1), ("gpu", 1, 1), ("cpu", 3, 3)])
def test_all_layers_are_unrolled_on_gpus_unless_a_number_is_given(platform, unroll, layers, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: platform)
    settings = make_settings(attention="plain", unroll=unroll)
    assert Computation.make(settings, CONFIG, np.ones((2, 8), np.int32)).model.unroll == layers
