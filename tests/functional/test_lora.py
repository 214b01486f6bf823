"""Low-rank adapters and frozen layers: which outputs and gradients they change, and which they do not."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pretraining_batches import CONFIG

from bert_jax.functional import lora
from bert_jax.models import Bert

SAME_IN_FLOAT32 = 2e-6
IDS = jnp.array([[2, 7, 8, 9, 3], [2, 7, 3, 0, 0]])
MASK = jnp.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])
LOW_RANK = replace(CONFIG, lora_rank=3, lora_alpha=12.0)


@pytest.fixture(scope="module")
def params():
    return jax.jit(Bert(LOW_RANK).init)(jax.random.key(0), IDS)["params"]


def without(params):
    return {name: part for name, part in params.items() if name != "adapters"}


def output(config, params, **options):
    return Bert(config, **options).apply({"params": params}, IDS, MASK).last_hidden_state


def test_new_adapters_change_nothing(params):
    np.testing.assert_allclose(output(LOW_RANK, params), output(CONFIG, without(params)), atol=SAME_IN_FLOAT32)


def test_merged_adapters_are_the_same_function(params):
    noise = jax.tree.map(lambda x: 0.3 * jax.random.normal(jax.random.key(x.size), x.shape), params["adapters"])
    merged = lora.merge(params["encoder"], noise["encoder"], scale=12.0 / 3)
    beside = output(LOW_RANK, {**params, "adapters": noise})
    np.testing.assert_allclose(beside, output(CONFIG, {**without(params), "encoder": merged}), atol=SAME_IN_FLOAT32)
    assert np.abs(np.asarray(beside - output(CONFIG, without(params)))).max() > 0.01


def test_every_kernel_of_the_encoder_has_an_adapter(params):
    kernels = {
        jax.tree_util.keystr(path[:-1])
        for path, _ in jax.tree_util.tree_leaves_with_path(params["encoder"])
        if path[-1].key == "kernel"
    }
    beside = {
        jax.tree_util.keystr(path[:-1])
        for path, _ in jax.tree_util.tree_leaves_with_path(params["adapters"]["encoder"])
    }
    assert kernels == beside


@pytest.mark.parametrize("frozen", [0, 1])
def test_frozen_layers_get_no_gradient_and_compute_the_same(params, frozen):
    base = without(params)

    def loss(params, **options):
        return jnp.square(output(CONFIG, params, **options)).sum(where=MASK[..., None] != 0) * 0.5

    value, gradients = jax.jit(jax.value_and_grad(lambda p: loss(p, frozen=frozen)))(base)
    plain, wanted = jax.jit(jax.value_and_grad(loss))(base)
    np.testing.assert_allclose(value, plain, rtol=SAME_IN_FLOAT32)
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradients["embeddings"]))
    for got, all_of_it in zip(jax.tree.leaves(gradients["encoder"]), jax.tree.leaves(wanted["encoder"]), strict=True):
        assert not np.asarray(got[:frozen]).any()
        np.testing.assert_allclose(got[frozen:], all_of_it[frozen:], rtol=2e-3, atol=2e-5)
