"""Schedules and optimizers, against their equations written out in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_jax.training.optimizers import OPTIMIZERS, is_decayed, make_optimizer, make_schedule

RELATIVE = 1e-5
RATE, DECAY = 0.1, 0.01
EPSILON = {"bert_adamw": 1e-6, "adamw": 1e-8, "lamb": 1e-6}


def tree(seed):
    random = np.random.default_rng(seed)

    def normal(*shape):
        return random.normal(size=shape).astype(np.float32)

    return {
        "embeddings": {"word": {"embedding": normal(5, 3)}, "norm": {"scale": normal(3)}},
        "encoder": {"up": {"kernel": normal(2, 3, 7), "bias": normal(2, 7)}},
    }


def run(name, gradients, **options):
    """Returns the parameters after one update for each gradient."""
    optimizer = make_optimizer(name, lambda step: RATE, weight_decay=DECAY, clip_norm=None, **options)
    params = jax.tree.map(jnp.asarray, tree(0))
    state = optimizer.init(params)
    for gradient in gradients:
        updates, state = optimizer.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
    return params


def by_hand(name, path, layers=False):
    """The same for one leaf, as the papers write it."""

    def leaf(seed):
        return np.float64(jax.tree_util.tree_leaves(path(tree(seed)))[0])

    x, m, v = leaf(0), 0.0, 0.0
    axes = tuple(range(layers, x.ndim))
    plain = x.ndim == 1 or (layers and x.ndim == 2)
    for step, seed in enumerate((1, 2), start=1):
        g = leaf(seed)
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        corrected = (m, v) if name == "bert_adamw" else (m / (1 - 0.9**step), v / (1 - 0.999**step))
        update = corrected[0] / (np.sqrt(corrected[1]) + EPSILON[name]) + (0.0 if plain else DECAY * x)
        if name == "lamb" and not plain:
            squares = [np.square(y).sum(axis=axes, keepdims=True) for y in (x, update)]
            update = update * np.sqrt(squares[0] / squares[1])
        x = x - RATE * update
    return x


LEAVES = {
    "word": (lambda t: t["embeddings"]["word"], False),
    "scale": (lambda t: t["embeddings"]["norm"], False),
    "kernel": (lambda t: t["encoder"]["up"]["kernel"], True),
    "bias": (lambda t: t["encoder"]["up"]["bias"], True),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_two_updates_follow_the_equations(name):
    """Biases and norms are neither is_decayed nor scaled; LAMB has a ratio for each layer of a stacked kernel."""
    params = run(name, [tree(1), tree(2)])
    for path, layers in LEAVES.values():
        got = np.asarray(jax.tree_util.tree_leaves(path(params))[0])
        np.testing.assert_allclose(got, by_hand(name, path, layers), rtol=RELATIVE, atol=RELATIVE)


def test_lamb_has_a_ratio_per_layer_of_adapters():
    """Layers with weights 1 and 10 and the same gradient get updates in the ratio of the weights."""
    params = {"adapters": {"up": {"a": jnp.stack([jnp.ones((3, 2)), 10 * jnp.ones((3, 2))])}}}
    optimizer = make_optimizer("lamb", lambda step: RATE, weight_decay=0.0)
    updates, _ = optimizer.update(jax.tree.map(jnp.ones_like, params), optimizer.init(params), params)
    first, second = updates["adapters"]["up"]["a"]
    np.testing.assert_allclose(second, 10 * first, rtol=RELATIVE)


def test_clipping_bounds_the_global_norm():
    optimizer = make_optimizer("bert_adamw", lambda step: 1.0, weight_decay=0.0, beta1=0.0, beta2=0.0, clip_norm=1.0)
    params = tree(0)
    big, small = (jax.tree.map(lambda x, s=s: s * x, tree(1)) for s in (10.0, 1e-3))
    norm = float(optax.tree.norm(big))
    _, state = optimizer.update(big, optimizer.init(params), params)
    np.testing.assert_allclose(state[1].mu["encoder"]["up"]["bias"], big["encoder"]["up"]["bias"] / norm, rtol=RELATIVE)
    _, state = optimizer.update(small, optimizer.init(params), params)
    np.testing.assert_allclose(state[1].mu["encoder"]["up"]["bias"], small["encoder"]["up"]["bias"], rtol=RELATIVE)


def test_weight_decay_depends_on_the_name_not_on_the_dimensions():
    assert is_decayed(tree(0)) == {
        "embeddings": {"word": {"embedding": True}, "norm": {"scale": False}},
        "encoder": {"up": {"kernel": True, "bias": False}},
    }


def test_schedules_warm_up_and_decay():
    linear, cosine, constant = (
        make_schedule(name, peak=2.0, warmup_steps=10, decay_steps=100) for name in ("linear", "cosine", "constant")
    )
    for schedule in (linear, cosine, constant):
        np.testing.assert_allclose([schedule(0), schedule(5)], [0.0, 1.0])
    # BERT's line runs from step 0: it has come down a tenth where the warm-up ends.
    np.testing.assert_allclose([linear(10), linear(50), linear(100), linear(120)], [1.8, 1.0, 0.0, 0.0], rtol=RELATIVE)
    np.testing.assert_allclose([cosine(10), cosine(55), cosine(100)], [2.0, 1.0, 0.0], atol=RELATIVE)
    np.testing.assert_allclose([constant(10), constant(1000)], 2.0)


@settings(max_examples=50)
@given(
    warmup=st.integers(0, 40),
    stable=st.integers(0, 60),
    decay=st.integers(1, 50),
    peak=st.sampled_from([3e-5, 1e-3, 0.7, 2.0]),
)
def test_a_stable_run_can_be_continued_by_any_decay(warmup, stable, decay, peak):
    """Before the decay the rate is that of `constant`, bit for bit; then it falls to 0, starting from the peak."""
    end = warmup + stable + decay
    options = {"peak": peak, "warmup_steps": warmup, "decay_steps": end}
    steps = np.arange(160)
    rates = np.asarray(make_schedule("warmup-stable-decay", decay_share=decay / end, **options)(steps))
    constant = np.asarray(make_schedule("constant", **options)(steps))
    start = warmup + stable
    assert rates[: start + 1].tobytes() == constant[: start + 1].tobytes()
    assert (rates[warmup : start + 1] == np.float32(peak)).all()
    assert (np.diff(rates[start : end + 1]) < 0).all()
    assert (rates[end:] == 0).all()
    progress = np.arange(decay + 1) / decay
    np.testing.assert_allclose(rates[start : end + 1], peak * (1 - np.sqrt(progress)), rtol=RELATIVE, atol=1e-6 * peak)


def test_a_decay_begins_after_the_warm_up():
    """0.1 of 100 steps is the default; a decay that would begin within the warm-up begins at its end."""
    default = make_schedule("warmup-stable-decay", peak=1.0, warmup_steps=10, decay_steps=100)
    np.testing.assert_allclose(default(np.array([9, 90, 100])), [0.9, 1.0, 0.0])
    whole = make_schedule("warmup-stable-decay", peak=1.0, warmup_steps=36, decay_steps=100, decay_share=1.0)
    np.testing.assert_allclose(whole(np.array([18, 36, 52, 100])), [0.5, 1.0, 0.5, 0.0], rtol=RELATIVE)


@pytest.mark.parametrize("share", [0.0, -0.1, 1.01, float("nan")])
def test_a_decay_share_is_a_fraction(share):
    with pytest.raises(ValueError, match="`decay_share` must be above 0 and at most 1, got"):
        make_schedule("linear", peak=1.0, warmup_steps=0, decay_steps=1, decay_share=share)


def test_an_unknown_name_is_an_error_that_lists_the_known_ones():
    with pytest.raises(ValueError, match="`optimizer` must be one of bert_adamw, adamw, lamb; got 'sgd'"):
        make_optimizer("sgd", lambda step: 1.0)
    with pytest.raises(
        ValueError, match="`schedule` must be one of linear, cosine, constant, warmup-stable-decay; got 'step'"
    ):
        make_schedule("step", peak=1.0, warmup_steps=0, decay_steps=1)
