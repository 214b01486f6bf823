"""Losses and accuracies as pairs (sum, weight), both float32 scalars.

A mean over a global batch is the sum of sums over the sum of weights. Pairs add over devices, accumulation steps and
batches of an evaluation; whoever has the whole divides once. (Averaging the means of unequal parts gives another
gradient.)
"""

import jax
import jax.numpy as jnp
from jax import Array

from bert_jax.config import PROBLEM_TYPES
from bert_jax.functional.layers import at_least_float32

Pair = tuple[Array, Array]


def cross_entropy(logits: Array, labels: Array, weights: Array, *, smoothing: float = 0.0) -> Pair:
    """Returns the weighted sum of -log softmax(logits)[label] for logits [..., C], labels and weights [...].

    `smoothing` takes that share of a label's probability and spreads it evenly over all classes.

    References: Szegedy et al., Rethinking the Inception Architecture, 2015, section 7 (label smoothing).
    """
    logits = at_least_float32(logits)
    wanted = at_label(logits, labels)
    if smoothing:
        wanted = (1.0 - smoothing) * wanted + smoothing * logits.mean(axis=-1)
    return weighted(jax.nn.logsumexp(logits, axis=-1) - wanted, weights)


def accuracy(logits: Array, labels: Array, weights: Array) -> Pair:
    """Returns the weighted count of rows in which no score is above the label's."""
    return weighted(at_label(logits, labels) >= logits.max(axis=-1), weights)


def at_label(logits: Array, labels: Array) -> Array:
    """Returns logits[..., label], and 0 where the label is none of the classes.

    A sum over the comparison with every class is one pass that XLA fuses with the others over the logits; a lookup
    would be a scatter into a second array of their size in the backward pass.
    """
    classes = jnp.arange(logits.shape[-1]).reshape((1,) * labels.ndim + (-1,))
    return jnp.where(labels[..., None] == classes, logits, 0.0).sum(axis=-1)


def classification_loss(
    logits: Array, labels: Array, weights: Array, *, problem_type: str, smoothing: float = 0.0
) -> Pair:
    """The loss of logits [..., C] as Hugging Face's `problem_type` names it, one figure an example, weights [...].

    `single_label_classification`: cross entropy, labels int [...], smoothed if asked for. `multi_label_classification`:
    mean over the C labels of the binary cross entropy, labels float [..., C]. `regression`: mean over C of the squared
    error, labels float [...] or [..., C].
    """
    if problem_type == "single_label_classification":
        return cross_entropy(logits, labels, weights, smoothing=smoothing)
    logits = at_least_float32(logits)
    labels = labels.reshape(logits.shape).astype(logits.dtype)
    if problem_type == "multi_label_classification":
        errors = jax.nn.softplus(logits) - labels * logits
    elif problem_type == "regression":
        errors = jnp.square(logits - labels)
    else:
        raise ValueError(f"problem_type must be one of {', '.join(PROBLEM_TYPES)}; got {problem_type!r}")
    return weighted(errors.mean(axis=-1), weights)


def span_loss(
    start_logits: Array, end_logits: Array, start_positions: Array, end_positions: Array, weights: Array
) -> Pair:
    """Mean of the cross entropies of the first and the last token: logits [B, T], positions int [B], weights [B]."""
    start, weight = cross_entropy(start_logits, start_positions, weights)
    end, _ = cross_entropy(end_logits, end_positions, weights)
    return (start + end) / 2, weight


def weighted(values: Array, weights: Array) -> Pair:
    """Returns (sum of values x weights, sum of weights)."""
    dtype = jnp.promote_types(values.dtype, jnp.float32)
    weights = weights.astype(dtype)
    return (values.astype(dtype) * weights).sum(), weights.sum()
