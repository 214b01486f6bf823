"""Optimizers and learning-rate schedules, as optax transformations.

BERT's AdamW has no bias correction, and epsilon 1e-6. LAMB scales the update of each weight matrix by the ratio of the
norms of weight and update. Weight decay does not apply to biases and layer norms.

Which rule applies to a parameter is decided by its name, never by its number of dimensions: the encoder's parameters
are stacked on a leading axis of L layers. A bias `encoder/feed_forward/up/bias` is [12, 3072], as if it were a matrix;
and the kernel [12, 768, 3072] is 12 matrices, each with a LAMB ratio and a learning rate of its layer.

Axes: L layers, D hidden, F inner.

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
SCHEDULES = ("linear", "cosine", "constant", "warmup-stable-decay")
STACKED = ("encoder", "adapters")  # the subtrees whose parameters have a leading axis of layers
Schedule = Callable[[Any], Array]


def make_schedule(
    schedule: str, *, peak: float, warmup_steps: int, decay_steps: int, decay_share: float = 0.1
) -> Schedule:
    """Returns step -> learning rate: linear warm-up from 0 to `peak`, then one of SCHEDULES.

    BERT's linear decay starts at step 0, not at the end of the warm-up, so the rate stays below the peak. Example: peak
    1.0, 10 warm-up steps, 100 decay steps: 0.9 at step 9, 0.9 at step 10 (1 - 10 / 100), 0.5 at step 50.

    `warmup-stable-decay` stays at the peak until the last `decay_share` of the steps, so the length of a run need not
    be known at its beginning: one run at the peak can be continued by several decays. Before a decay the rate is that
    of `constant`, bit for bit. The decay is 1 - sqrt(progress), which reaches a lower loss than a linear one (Hägele et
    al., 2024) and with which ModernBERT was trained. Example: 100 decay steps, `decay_share` 0.2: 1.0 until step 80,
    0.5 at step 85 (1 - sqrt(5 / 20)), 0 at step 100.

    Args:
        decay_steps: the step at which the rate reaches 0 and stays there.
        decay_share: fraction of `decay_steps` that is the decay, in (0, 1]; it starts after the warm-up at the
            earliest. For `warmup-stable-decay` only.

    References: Hu et al., MiniCPM, 2024 (warmup-stable-decay). Hägele et al., Scaling Laws and Compute-Optimal Training
    Beyond Fixed Training Durations, 2024 (the shape of the decay). Warner et al., ModernBERT, 2024.
    """
    if schedule not in SCHEDULES:
        raise ValueError(f"`schedule` must be one of {', '.join(SCHEDULES)}; got {schedule!r}")
    if not 0 < decay_share <= 1:
        raise ValueError(f"`decay_share` must be above 0 and at most 1, got {decay_share}")
    stable_until = max(warmup_steps, decay_steps - max(round(decay_share * decay_steps), 1))

    def progress(step: Array, start: int) -> Array:
        return jnp.clip((step - start) / max(decay_steps - start, 1), 0.0, 1.0)

    def rate(step) -> Array:
        step = jnp.asarray(step, jnp.float32)
        decayed = {
            "linear": 1.0 - jnp.minimum(step / decay_steps, 1.0),
            "cosine": 0.5 * (1.0 + jnp.cos(jnp.pi * progress(step, warmup_steps))),
            "constant": jnp.ones_like(step),
            # Rounded, the last progress may be below 1, whose root would leave a rate above 0.
            "warmup-stable-decay": jnp.where(step < decay_steps, 1.0 - jnp.sqrt(progress(step, stable_until)), 0.0),
        }[schedule]
        return peak * jnp.where(step < warmup_steps, step / max(warmup_steps, 1), decayed)

    return rate


def make_optimizer(
    optimizer: str,
    schedule: Schedule,
    *,
    weight_decay: float = 0.01,
    beta1: float = 0.9,
    beta2: float = 0.999,
    clip_norm: float | None = 1.0,
    depth: "Depth | None" = None,
) -> optax.GradientTransformation:
    """Returns `bert_adamw` (no bias correction), `adamw` or `lamb`, with gradient clipping by global norm.

    Epsilon is 1e-6 for `bert_adamw` and `lamb`, as in BERT and LAMB, and 1e-8 for `adamw`.

    Args:
        clip_norm: None or 0 disables clipping.
        depth: learning rates by layer.
    """
    if optimizer not in OPTIMIZERS:
        raise ValueError(f"`optimizer` must be one of {', '.join(OPTIMIZERS)}; got {optimizer!r}")
    moments = scale_by_bert_adam if optimizer == "bert_adamw" else optax.scale_by_adam
    return optax.chain(
        optax.clip_by_global_norm(clip_norm) if clip_norm else optax.identity(),
        moments(b1=beta1, b2=beta2, eps=1e-8 if optimizer == "adamw" else 1e-6),
        optax.add_decayed_weights(weight_decay, mask=is_decayed),
        scale_by_layer_trust_ratio() if optimizer == "lamb" else optax.identity(),
        scale_by_depth(depth) if depth else optax.identity(),
        optax.scale_by_learning_rate(schedule),
    )


def is_decayed(params) -> Any:
    """Returns whether weight decay applies, for each parameter: to all but biases and layer norms."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key not in ("bias", "scale"), params)


class BertAdamState(NamedTuple):
    """First and second moments of the gradient."""

    mu: Any
    nu: Any


def scale_by_bert_adam(*, b1: float, b2: float, eps: float) -> optax.GradientTransformation:
    """Returns BERT's Adam: m / (sqrt(v) + eps), with no correction of the moments for starting at zero."""

    def init(params):
        return BertAdamState(jax.tree.map(jnp.zeros_like, params), jax.tree.map(jnp.zeros_like, params))

    def update(gradients, state, params=None):
        del params
        mu = jax.tree.map(lambda m, g: b1 * m + (1 - b1) * g, state.mu, gradients)
        nu = jax.tree.map(lambda v, g: b2 * v + (1 - b2) * jnp.square(g), state.nu, gradients)
        return jax.tree.map(lambda m, v: m / (jnp.sqrt(v) + eps), mu, nu), BertAdamState(mu, nu)

    return optax.GradientTransformation(init, update)  # pyright: ignore[reportArgumentType]


def scale_by_layer_trust_ratio() -> optax.GradientTransformation:
    """Multiplies each update by |weight| / |update|, per layer; updates of biases and layer norms are not changed."""

    def scaled(path, update, param):
        if path[-1].key in ("bias", "scale"):
            return update
        # All axes but that of the layers: (1, 2) for a kernel [L, D, F], (0, 1) for the word embeddings [V, D].
        axes = tuple(range(path[0].key in STACKED, param.ndim))
        weight_norm = jnp.sqrt(jnp.square(param).sum(axis=axes, keepdims=True))  # [L, 1, 1]
        update_norm = jnp.sqrt(jnp.square(update).sum(axis=axes, keepdims=True))
        defined = (weight_norm > 0) & (update_norm > 0)
        return update * jnp.where(defined, weight_norm / jnp.where(defined, update_norm, 1.0), 1.0)

    def update(updates, state, params=None):
        return jax.tree_util.tree_map_with_path(scaled, updates, params), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


@dataclass(frozen=True)
class Depth:
    """Learning rates that decrease from the head to the embeddings.

    Example: 3 layers, decay 0.5. The head has the factor 1, the layers 0.5, 0.25 and 0.125 from the top, the embeddings
    0.0625. With frozen = 1, the lowest layer and the embeddings have the factor 0.

    Attributes:
        num_layers: L.
        decay: ratio of a layer's rate to the rate of the layer above.
        frozen: number of lowest layers that do not change, weight decay included; the embeddings do not change either.
            None = everything is trained, 0 = only the embeddings are frozen.

    References: Howard, Ruder, Universal Language Model Fine-tuning, 2018, section 3.2 (discriminative rates). Clark et
    al., ELECTRA, 2020, appendix B (layer-wise decay).
    """

    num_layers: int
    decay: float = 1.0
    frozen: int | None = None

    def factor(self, part: str) -> float | np.ndarray:
        """Returns the factor of the learning rate of a subtree; one for each layer, [L], in the encoder."""
        if part == "embeddings":
            return 0.0 if self.frozen is not None else self.decay ** (self.num_layers + 1)
        if part in STACKED:
            layer = np.arange(self.num_layers)
            factors = self.decay ** (self.num_layers - layer)
            return np.where(layer < (self.frozen or 0), 0.0, factors).astype(np.float32)
        return 1.0


def scale_by_depth(depth: Depth) -> optax.GradientTransformation:
    """Multiplies each update by the factor of its subtree or layer."""

    def scaled(path, update):
        factor = depth.factor(path[0].key)
        if isinstance(factor, np.ndarray):
            factor = factor.reshape(-1, *[1] * (update.ndim - 1))  # [L, 1, 1]
        return update * factor

    def update(updates, state, params=None):
        del params
        return jax.tree_util.tree_map_with_path(scaled, updates), state

    return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
