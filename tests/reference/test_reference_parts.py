"""Each layer of the reference: the hand-derived backward pass against finite differences, element by element."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from gradient_checks import assert_gradient_is_the_slope, every_element
from small_bert import (
    ATTENDS,
    ATTENTION_MASK,
    CLS_POSITIONS,
    EXAMPLE_WEIGHTS,
    MASKED_POSITIONS,
    PACKED,
    POSITION_IDS,
    SHAPES,
    SINUSOIDAL,
    B,
    C,
    D,
    F,
    H,
    N,
    T,
    V,
    dense_shapes,
    draw,
    integers,
    layer_shapes,
    norm_shapes,
    normal,
)

from bert_jax.reference import attention, embeddings, encoder, heads, layers, losses, modern, rotary

TOLERANCE = 1e-12


@dataclass
class Part:
    """A layer to differentiate: forward(tree) returns (y, cache), backward(dy, cache) the gradients called `names`."""

    tree: dict[str, Any]
    forward: Callable
    backward: Callable
    names: tuple[str, ...] = ("x", "params")

    def gradient(self, dy, cache):
        result = self.backward(dy, cache)
        return dict(zip(self.names, result if isinstance(result, tuple) else (result,), strict=True))


def loss_part(backward, loss, logits):
    def forward(tree):
        (total, _), cache = loss(tree["logits"])
        return total, cache

    return Part({"logits": logits}, forward, backward, ("logits",))


ENCODER_OPTIONS = {"num_attention_heads": N, "hidden_act": "gelu", "layer_norm_eps": 1e-12}
HEAD_OPTIONS = {"hidden_act": "gelu_new", "layer_norm_eps": 1e-12}
IDS = (PACKED["input_ids"], PACKED["token_type_ids"], POSITION_IDS)
ROTATION = rotary.rotations(POSITION_IDS, H, 7.0)
GATED = {"up": dense_shapes(D, F), "gate": {"kernel": (D, F)}, "down": dense_shapes(F, D)}
AWAY_FROM_KINK = normal(B, T, F) + 0.1 * np.sign(normal(B, T, F))

PARTS = {
    "dense": Part(
        {"params": draw(dense_shapes(D, F)), "x": normal(B, T, D)},
        lambda t: layers.dense(t["params"], t["x"]),
        layers.dense_backward,
    ),
    "softmax": Part(
        {"x": normal(B, N, T)},
        lambda t: layers.softmax(t["x"]),
        layers.softmax_backward,
        ("x",),
    ),
    "layer_norm": Part(
        {"params": draw(norm_shapes()), "x": normal(B, T, D)},
        lambda t: layers.layer_norm(t["params"], t["x"], layer_norm_eps=0.1),  # large enough to be seen
        layers.layer_norm_backward,
    ),
    **{
        name: Part(
            {"x": AWAY_FROM_KINK.copy()},
            lambda t, name=name: layers.activation(t["x"], hidden_act=name),
            layers.activation_backward,
            ("x",),
        )
        for name in layers.ACTIVATIONS
    },
    "attention": Part(
        {"params": draw({k: v for k, v in layer_shapes()["attention"].items() if k != "norm"}), "x": normal(B, T, D)},
        lambda t: attention.attention(t["params"], t["x"], ATTENDS, num_attention_heads=N),
        attention.attention_backward,
    ),
    "feed_forward": Part(
        {
            "params": draw({k: v for k, v in layer_shapes()["feed_forward"].items() if k != "norm"}),
            "x": normal(B, T, D),
        },
        lambda t: encoder.feed_forward(t["params"], t["x"], hidden_act="gelu_new"),
        encoder.feed_forward_backward,
    ),
    "encoder_layer": Part(
        {"params": draw(layer_shapes()), "x": normal(B, T, D)},
        lambda t: encoder.encoder_layer(t["params"], t["x"], ATTENDS, **ENCODER_OPTIONS),
        encoder.encoder_layer_backward,
    ),
    "rotate": Part(
        {"x": normal(B, T, N, H)},
        lambda t: (rotary.rotate(t["x"], ROTATION), ROTATION),
        rotary.rotate_backward,
        ("x",),
    ),
    "gated_feed_forward": Part(
        {"params": draw(GATED), "x": normal(B, T, D)},
        lambda t: modern.gated_feed_forward(t["params"], t["x"], hidden_act="gelu"),
        modern.gated_feed_forward_backward,
    ),
    **{
        name: Part(
            {
                "params": draw(
                    {"attention": layer_shapes()["attention"], "feed_forward": GATED | {"norm": norm_shapes()}}
                ),
                "x": normal(B, T, D),
            },
            lambda t, name=name: modern.modern_layer(
                t["params"], t["x"], ATTENDS, ROTATION, is_first=name == "first_modern_layer", **ENCODER_OPTIONS
            ),
            modern.modern_layer_backward,
        )
        for name in ("modern_layer", "first_modern_layer")
    },
    "mean_pool": Part(
        {"x": normal(B, T, D)},
        lambda t: heads.mean_pool(t["x"], (ATTENTION_MASK == 1) * 1),
        heads.mean_pool_backward,
        ("x",),
    ),
    "embeddings": Part(
        {"params": draw(SHAPES["embeddings"])},
        lambda t: embeddings.embeddings(t["params"], *IDS, layer_norm_eps=1e-12),
        embeddings.embeddings_backward,
        ("params",),
    ),
    "sinusoidal_embeddings": Part(
        {"params": draw(SINUSOIDAL)},
        lambda t: embeddings.embeddings(t["params"], *IDS, layer_norm_eps=1e-12),
        embeddings.embeddings_backward,
        ("params",),
    ),
    "gather": Part(
        {"x": normal(B, T, D)},
        lambda t: heads.gather(t["x"], MASKED_POSITIONS),
        heads.gather_backward,
        ("x",),
    ),
    "pooler": Part(
        {"params": draw(SHAPES["pooler"]), "x": normal(B, T, D)},
        lambda t: heads.pooler(t["params"], t["x"]),
        heads.pooler_backward,
    ),
    "packed_pooler": Part(
        {"params": draw(SHAPES["pooler"]), "x": normal(B, T, D)},
        lambda t: heads.pooler(t["params"], t["x"], CLS_POSITIONS),
        heads.pooler_backward,
    ),
    "masked_lm": Part(
        {"params": draw(SHAPES["masked_lm"]), "word": normal(V, D), "x": normal(B, T, D)},
        lambda t: heads.masked_lm(t["params"], t["word"], t["x"], MASKED_POSITIONS, **HEAD_OPTIONS),
        heads.masked_lm_backward,
        ("x", "params", "word"),
    ),
    "masked_lm_everywhere": Part(
        {"params": draw(SHAPES["masked_lm"]), "word": normal(V, D), "x": normal(B, T, D)},
        lambda t: heads.masked_lm(t["params"], t["word"], t["x"], **HEAD_OPTIONS),
        heads.masked_lm_backward,
        ("x", "params", "word"),
    ),
    "cross_entropy": loss_part(
        losses.cross_entropy_backward,
        lambda z: losses.cross_entropy(z, integers(C, B, T), np.abs(normal(B, T))),
        normal(B, T, C),
    ),
    "token_cross_entropy": loss_part(
        losses.cross_entropy_backward,
        lambda z: losses.token_cross_entropy(z, np.where(ATTENTION_MASK == 1, 2, -100), EXAMPLE_WEIGHTS),
        normal(B, T, C),
    ),
    "binary_cross_entropy": loss_part(
        losses.binary_cross_entropy_backward,
        lambda z: losses.binary_cross_entropy(z, integers(2, B, C), EXAMPLE_WEIGHTS),
        normal(B, C),
    ),
    "squared_error": loss_part(
        losses.squared_error_backward,
        lambda z: losses.squared_error(z, normal(B, C), EXAMPLE_WEIGHTS),
        normal(B, C) + 1,
    ),
    "span_cross_entropy": loss_part(
        losses.span_cross_entropy_backward,
        lambda z: losses.span_cross_entropy(z, np.array([2, 0]), np.array([5, 3]), EXAMPLE_WEIGHTS),
        normal(B, T, 2),
    ),
}


@pytest.mark.parametrize("name", PARTS)
def test_backward_of_each_layer_matches_finite_differences(name):
    part = PARTS[name]
    y, cache = part.forward(part.tree)
    dy = np.random.default_rng(13).normal(size=np.shape(y))
    gradient = part.gradient(dy, cache)
    assert_gradient_is_the_slope(
        lambda tree: (dy * part.forward(tree)[0]).sum(), part.tree, gradient, every_element(part.tree)
    )


def test_a_fully_masked_query_has_uniform_weights():
    part = PARTS["attention"]
    _, (_, _, _, weights, *_) = part.forward(part.tree)
    np.testing.assert_allclose(weights[1, :, 4:], 1 / T, rtol=TOLERANCE)


def test_losses_stay_finite_at_large_logits():
    logits = np.array([[1e4, -1e4], [-1e4, 1e4]])
    for loss, backward, labels in (
        (losses.cross_entropy, losses.cross_entropy_backward, np.array([1, 1])),
        (losses.binary_cross_entropy, losses.binary_cross_entropy_backward, np.array([[0.0, 1.0], [0.0, 1.0]])),
    ):
        (total, _), cache = loss(logits, labels, np.ones(2))
        assert total in (1e4, 2e4)
        assert np.isfinite(backward(1.0, cache)).all()
