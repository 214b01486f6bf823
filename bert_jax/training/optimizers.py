"""Optimizers and learning-rate schedules, as optax transformations.

BERT's AdamW differs from the textbook's: no bias correction, epsilon 1e-6. LAMB scales each layer's update by the
ratio of the norms of weight and update. Weight decay leaves biases and layer norms alone. All three go by a
parameter's name and, in the stacked encoder, by layer: a leading axis makes the number of dimensions meaningless.

References: Devlin et al., BERT, 2018, appendix A.2; google-research/bert `optimization.py`. Loshchilov, Hutter,
Decoupled Weight Decay Regularization, 2019. You et al., Large Batch Optimization for Deep Learning, 2020 (LAMB).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

OPTIMIZERS = ("bert_adamw", "adamw", "lamb")
SCHEDULES = ("linear", "cosine", "constant")
STACKED = ("encoder", "adapters")  # the parts of the tree that have an axis of the layers in front
Schedule = Callable[[Any], Array]


def make_schedule(name: str, *, peak: float, warmup_steps: int, decay_steps: int) -> Schedule:
    """Returns step -> learning rate: a linear rise from 0 to `peak`, then `linear` or `cosine` to 0, or `constant`.

    BERT's line to zero runs from step 0, not from the end of the warm-up, so there is a small drop where the two meet.

    Args:
        decay_steps: the step at which the rate has come to 0; it stays there.
    """
    if name not in SCHEDULES:
        raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}; got {name!r}")

    def schedule(step) -> Array:
        step = jnp.asarray(step, jnp.float32)
        through = jnp.clip((step - warmup_steps) / max(decay_steps - warmup_steps, 1), 0.0, 1.0)
        decayed = {
            "linear": 1.0 - jnp.minimum(step / decay_steps, 1.0),
            "cosine": 0.5 * (1.0 + jnp.cos(jnp.pi * through)),
            "constant": jnp.ones_like(step),
        }[name]
        return peak * jnp.where(step < warmup_steps, step / max(warmup_steps, 1), decayed)

    return schedule


def make_optimizer(
    name: str,
    schedule: Schedule,
    *,
    weight_decay: float = 0.01,
    beta1: float = 0.9,
    beta2: float = 0.999,
    clip_norm: float | None = 1.0,
    depth: "Depth | None" = None,
) -> optax.GradientTransformation:
    """Returns `bert_adamw` (no bias correction), `adamw` or `lamb`, after clipping by global norm.

    Epsilon is 1e-6 as BERT and LAMB have it, and 1e-8 for `adamw`, as is usual. With `depth`, parameters learn at rates
    of their own.
    """
    if name not in OPTIMIZERS:
        raise ValueError(f"optimizer must be one of {', '.join(OPTIMIZERS)}; got {name!r}")
    moments = scale_by_bert_adam if name == "bert_adamw" else optax.scale_by_adam
    return optax.chain(
        optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
        moments(b1=beta1, b2=beta2, eps=1e-8 if name == "adamw" else 1e-6),
        optax.add_decayed_weights(weight_decay, mask=decayed),
        scale_by_layer_trust_ratio() if name == "lamb" else optax.identity(),
        scale_by_depth(depth) if depth else optax.identity(),
        optax.scale_by_learning_rate(schedule),
    )


def decayed(params) -> Any:
    """Says of each parameter whether weight decay applies: to all but biases and layer norms."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in ("bias", "scale"), params)


class BertAdamState(NamedTuple):
    """First and second moments of the gradient."""

    mu: Any
    nu: Any


def scale_by_bert_adam(*, b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Adam as BERT was trained with: m / (sqrt(v) + eps), the moments not corrected for starting at zero."""

    def init(params):
        return BertAdamState(jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params))

    def update(gradients, state, params=None):
        del params
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, gradients)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * jnp.square(g), state.nu, gradients)
        return jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), mu, nu), BertAdamState(mu, nu)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def scale_by_layer_trust_ratio() -> optax.GradientTransformation:
    """Multiplies each update by |weight| / |update|, layer by layer; biases and layer norms keep theirs."""

    def ratio(path, update, param):
        if path[-1].key in ("bias", "scale"):
            return update
        one_layer = tuple(range(path[0].key in STACKED, param.ndim))
        weight_norm, update_norm = (jnp.sqrt(jnp.square(x).sum(axis=one_layer, keepdims=True)) for x in (param, update))
        defined = (weight_norm > 0) & (update_norm > 0)
        return update * jnp.where(defined, weight_norm / jnp.where(defined, update_norm, 1.0), 1.0)

    def update(updates, state, params=None):
        return jax.tree_util.tree_map_with_path(ratio, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


@dataclass(frozen=True)
class Depth:
    """How the learning rate falls from the head down to the embeddings.

    Attributes:
        num_layers: L.
        decay: what each layer multiplies the rate of the layer above by; the head has the full rate, the top layer
            `decay`, the embeddings decay^(L + 1).
        frozen: the embeddings and so many of the lowest layers do not change at all, by weight decay neither.

    References: Howard, Ruder, Universal Language Model Fine-tuning, 2018, section 3.2 (discriminative rates). Clark et
    al., ELECTRA, 2020, appendix B (layer-wise decay).
    """

    num_layers: int
    decay: float = 1.0
    frozen: int | None = None

    def factor(self, part: str) -> float | np.ndarray:
        """Returns what the rate of a part of the tree is multiplied by; in the encoder, of each layer: [L]."""
        below = -1 if self.frozen is None else self.frozen
        if part == "embeddings":
            return 0.0 if below >= 0 else self.decay ** (self.num_layers + 1)
        if part in STACKED:
            layer = np.arange(self.num_layers)
            return np.where(layer < below, 0.0, self.decay ** (self.num_layers - layer)).astype(np.float32)
        return 1.0


def scale_by_depth(depth: Depth) -> optax.GradientTransformation:
    """Multiplies each update by its part's or its layer's factor."""

    def scaled(path, update):
        factor = depth.factor(path[0].key)
        if isinstance(factor, np.ndarray):
            factor = factor.reshape(-1, *[1] * (update.ndim - 1))
        return update * factor

    def update(updates, state, params=None):
        del params
        return jax.tree_util.tree_map_with_path(scaled, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
