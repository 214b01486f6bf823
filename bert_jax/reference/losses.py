"""The losses and their derivatives with respect to the logits.

A loss is a pair (sum, weight): sums and weights of several devices or accumulation steps are added first and divided
once. So the backward function takes dsum, the derivative with respect to the sum, which is 1 / weight for a mean.
"""

import numpy as np

from bert_jax.reference.layers import softmax

IGNORED = -100  # the label of tokens without a label, as in PyTorch


def cross_entropy(logits, labels, weights):
    """Computes the sum of -w log p(label), where p = softmax(logits), i.e. w (log sum_c exp(z_c) - z_label).

    Args:
        logits: z [..., C].
        labels: int [...]; any integer where the weight is 0.
        weights: w [...].
    Returns:
        (sum, weight), cache.
    """
    labels = np.where(weights == 0, 0, labels)  # any valid class: the weight removes it
    shifted = logits - logits.max(axis=-1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    log_p_label = np.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]
    return (-(weights * log_p_label).sum(), weights.sum()), (logits, labels, weights)


def cross_entropy_backward(dsum, cache):
    """dz_c = w (p_c - [c = label]) dsum."""
    logits, labels, weights = cache
    p, _ = softmax(logits)
    is_label = labels[..., None] == np.arange(logits.shape[-1])
    return weights[..., None] * (p - is_label) * dsum


def token_cross_entropy(logits, labels, weights):
    """Computes the cross entropy of every token whose label is not -100, weighted by its example.

    Args:
        logits: [B, T, C].
        labels: int [B, T].
        weights: [B].
    Returns:
        (sum, weight), cache for cross_entropy_backward.
    """
    return cross_entropy(logits, labels, weights[:, None] * (labels != IGNORED))


def binary_cross_entropy(logits, labels, weights):
    """Computes the mean over classes of -y log s(z) - (1 - y) log(1 - s(z)) = log(1 + e^z) - y z, summed over examples.

    Here s(z) = 1 / (1 + e^-z); log(1 + e^z) is computed as max(z, 0) + log(1 + e^-|z|), which cannot overflow.

    Args:
        logits: z [B, C].
        labels: y, float [B, C] in [0, 1].
        weights: [B].
    Returns:
        (sum, weight), cache.
    """
    losses = np.maximum(logits, 0) + np.log1p(np.exp(-np.abs(logits))) - labels * logits  # [B, C]
    return ((weights * losses.mean(axis=-1)).sum(), weights.sum()), (logits, labels, weights)


def binary_cross_entropy_backward(dsum, cache):
    """dz = w (s(z) - y) / C dsum."""
    logits, labels, weights = cache
    s = 0.5 * (1 + np.tanh(logits / 2))  # the same function as above, without the overflow of e^-z
    return weights[:, None] * (s - labels) / logits.shape[-1] * dsum


def squared_error(logits, labels, weights):
    """Computes the mean of (z - y)^2 over the outputs, summed over examples.

    Args:
        logits: z [B, C].
        labels: y, float [B, C], or [B] if C = 1.
        weights: [B].
    Returns:
        (sum, weight), cache.
    """
    difference = logits - labels.reshape(logits.shape)
    return ((weights * (difference**2).mean(axis=-1)).sum(), weights.sum()), (difference, weights)


def squared_error_backward(dsum, cache):
    """dz = 2 w (z - y) / C dsum."""
    difference, weights = cache
    return 2 * weights[:, None] * difference / difference.shape[-1] * dsum


def span_cross_entropy(logits, start_positions, end_positions, weights):
    """Computes the mean of two cross entropies: which of the T tokens starts the answer, and which ends it.

    Args:
        logits: [B, T, 2], start and end.
        start_positions, end_positions: int [B].
        weights: [B].
    Returns:
        (sum, weight), cache.
    """
    (start, weight), start_cache = cross_entropy(logits[..., 0], start_positions, weights)
    (end, _), end_cache = cross_entropy(logits[..., 1], end_positions, weights)
    return ((start + end) / 2, weight), (start_cache, end_cache)


def span_cross_entropy_backward(dsum, cache):
    """Each of the two receives half of dsum."""
    return np.stack([cross_entropy_backward(dsum / 2, half) for half in cache], axis=-1)
