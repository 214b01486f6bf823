"""Losses and accuracies as pairs (sum, weight), both float32 scalars.

The mean over a global batch is the sum of the sums divided by the sum of the weights. Pairs are added over devices,
accumulation steps and evaluation batches, and divided once at the end. Averaging the means of unequal slices would give
another result: with losses [1, 1, 1] and [5], the mean is 8 / 4 = 2, the mean of the means (1 + 5) / 2 = 3.
"""

import jax
import jax.numpy as jnp
from jax import Array

from bert_jax.config import PROBLEM_TYPES
from bert_jax.functional.layers import at_least_float32

Pair = tuple[Array, Array]


def cross_entropy(logits: Array, labels: Array, weights: Array, *, smoothing: float = 0.0) -> Pair:
    """Returns the weighted sum of -log softmax(logits)[label] for logits [..., C], labels and weights [...].

    It is the loss of masked LM ([B, P, V]), next sentence ([B, S, 2]), tagging ([B, T, C]) and classification. Unused
    slots and tokens without a label have weight 0, and their label may be any integer.

    Args:
        smoothing: fraction of a label's probability that is spread evenly over all classes.

    References: Szegedy et al., Rethinking the Inception Architecture, 2015, section 7 (label smoothing).
    """
    logits = at_least_float32(logits)
    target = _label_logits(logits, labels)
    if smoothing:
        target = (1.0 - smoothing) * target + smoothing * logits.mean(axis=-1)
    return _weighted_sum(jax.nn.logsumexp(logits, axis=-1) - target, weights)


def accuracy(logits: Array, labels: Array, weights: Array) -> Pair:
    """Returns the weighted number of rows whose label has the highest logit (ties count as correct)."""
    return _weighted_sum(_label_logits(logits, labels) >= logits.max(axis=-1), weights)


def _label_logits(logits: Array, labels: Array) -> Array:
    """Returns logits[..., label], and 0 where the label is not a class."""
    # Comparing with every class is one pass, which XLA fuses with the other passes over the logits. Indexing would be
    # a scatter in the backward pass, into a second array of the size of the logits.
    classes = jnp.arange(logits.shape[-1]).reshape((1,) * labels.ndim + (-1,))  # [1, ..., C]
    return jnp.where(labels[..., None] == classes, logits, 0.0).sum(axis=-1)


def classification_loss(
    logits: Array, labels: Array, weights: Array, *, problem_type: str, smoothing: float = 0.0
) -> Pair:
    """Returns the loss of logits [..., C] with weights [...] for one of Hugging Face's `problem_type`.

    `single_label_classification`: cross entropy, labels int [...], with label smoothing. `multi_label_classification`:
    mean of the binary cross entropy over the C labels, labels float [..., C]. `regression`: mean of the squared error
    over C, labels float [...] or [..., C].

    Raises:
        ValueError: `problem_type` is unknown.
    """
    if problem_type == "single_label_classification":
        return cross_entropy(logits, labels, weights, smoothing=smoothing)
    logits = at_least_float32(logits)
    labels = labels.reshape(logits.shape).astype(logits.dtype)
    if problem_type == "multi_label_classification":
        errors = jax.nn.softplus(logits) - labels * logits  # -y log s(z) - (1 - y) log(1 - s(z)), s the sigmoid
    elif problem_type == "regression":
        errors = jnp.square(logits - labels)
    else:
        raise ValueError(f"problem_type must be one of {', '.join(PROBLEM_TYPES)}; got {problem_type!r}")
    return _weighted_sum(errors.mean(axis=-1), weights)


def span_loss(
    start_logits: Array, end_logits: Array, start_positions: Array, end_positions: Array, weights: Array
) -> Pair:
    """Returns the mean of the cross entropies of the answer's first and last token.

    Args:
        start_logits, end_logits: [B, T].
        start_positions, end_positions: int [B].
        weights: [B].
    """
    start, weight = cross_entropy(start_logits, start_positions, weights)
    end, _ = cross_entropy(end_logits, end_positions, weights)
    return (start + end) / 2, weight


def _weighted_sum(values: Array, weights: Array) -> Pair:
    """Returns (sum of values * weights, sum of weights)."""
    dtype = jnp.promote_types(values.dtype, jnp.float32)
    weights = weights.astype(dtype)
    return (values.astype(dtype) * weights).sum(), weights.sum()
