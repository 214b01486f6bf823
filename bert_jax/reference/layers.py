"""The basic layers and their derivatives: dense, softmax, layer norm, activations.

Notation: y = f(x) in the forward pass; dy = dLoss/dy comes in and dx = dLoss/dx goes out in the backward pass. All act
on the last axis and treat the axes before it as rows, so a parameter's gradient is a sum over rows.

References: Ba et al., Layer Normalization, 2016. Hendrycks and Gimpel, Gaussian Error Linear Units, 2016.
"""

import math

import numpy as np

erf = np.vectorize(math.erf, otypes=[np.float64])


def dense(params, x):
    """Computes y = x W + b.

    Args:
        params: kernel W [I, O], bias b [O]; b is 0 if there is none.
        x: [..., I].
    Returns:
        y [..., O], cache.
    """
    return x @ params["kernel"] + params.get("bias", 0), (params, x)


def dense_backward(dy, cache):
    """dx = dy W^T;  dW = sum over rows of x^T dy;  db = sum over rows of dy."""
    params, x = cache
    x_rows = x.reshape(-1, x.shape[-1])
    dy_rows = dy.reshape(-1, dy.shape[-1])
    gradient = {"kernel": x_rows.T @ dy_rows, "bias": dy_rows.sum(axis=0)}
    return dy @ params["kernel"].T, {name: gradient[name] for name in params}


def softmax(x):
    """Computes p_i = exp(x_i) / sum_j exp(x_j), after subtracting the maximum: it cancels, and exp cannot overflow.

    Args:
        x: [..., S].
    Returns:
        p [..., S], cache.
    """
    exponentials = np.exp(x - x.max(axis=-1, keepdims=True))
    p = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return p, p


def softmax_backward(dp, cache):
    """dx_i = p_i (dp_i - sum_j p_j dp_j), because dp_j/dx_i = p_j ([i = j] - p_i)."""
    p = cache
    return p * (dp - (p * dp).sum(axis=-1, keepdims=True))


def layer_norm(params, x, *, layer_norm_eps):
    """Computes y = scale * h + bias, where h = (x - mean(x)) / sigma and sigma = sqrt(variance(x) + eps).

    Args:
        params: scale [D], bias [D]; the bias is 0 if there is none.
        x: [..., D]. Mean and (biased) variance are over D.
    Returns:
        y [..., D], cache.
    """
    centered = x - x.mean(axis=-1, keepdims=True)
    sigma = np.sqrt((centered**2).mean(axis=-1, keepdims=True) + layer_norm_eps)
    h = centered / sigma
    return params["scale"] * h + params.get("bias", 0), (params, h, sigma)


def layer_norm_backward(dy, cache):
    """dx = (dh - mean(dh) - h mean(dh h)) / sigma, with dh = dy scale.

    x affects y directly, through the mean and through sigma. With dmean/dx_i = 1/D and dsigma/dx_i = h_i/D these are
    the three terms: the gradient loses its component along 1 (adding a constant to x changes nothing) and along h
    (scaling x changes nothing, except through eps).  dscale = sum over rows of dy h;  dbias = sum over rows of dy.
    """
    params, h, sigma = cache
    dh = dy * params["scale"]
    dx = (dh - dh.mean(axis=-1, keepdims=True) - h * (dh * h).mean(axis=-1, keepdims=True)) / sigma
    rows = tuple(range(dy.ndim - 1))
    gradient = {"scale": (dy * h).sum(axis=rows), "bias": dy.sum(axis=rows)}
    return dx, {name: gradient[name] for name in params}


def gelu(x):
    """x Phi(x), where Phi(x) = (1 + erf(x / sqrt 2)) / 2 is the normal distribution function."""
    return x * 0.5 * (1 + erf(x / math.sqrt(2)))


def gelu_derivative(x):
    """Phi(x) + x phi(x), where phi(x) = exp(-x^2 / 2) / sqrt(2 pi) is the normal density."""
    return 0.5 * (1 + erf(x / math.sqrt(2))) + x * np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)


def gelu_new(x):
    """x (1 + tanh u) / 2, where u = sqrt(2 / pi) (x + 0.044715 x^3): as in the original BERT."""
    return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def gelu_new_derivative(x):
    """(1 + t) / 2 + x (1 - t^2) u' / 2, where t = tanh u and u' = sqrt(2 / pi) (1 + 3 * 0.044715 x^2)."""
    t = np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))
    return 0.5 * (1 + t) + 0.5 * x * (1 - t**2) * math.sqrt(2 / math.pi) * (1 + 3 * 0.044715 * x**2)


def relu(x):
    """max(x, 0)."""
    return np.maximum(x, 0)


def relu_derivative(x):
    """1 where x > 0, else 0 (at 0 there is no derivative; 0 is the convention)."""
    return np.where(x > 0, 1.0, 0.0)


def silu(x):
    """x s(x), where s(x) = 1 / (1 + exp(-x)) is the logistic function."""
    return x / (1 + np.exp(-x))


def silu_derivative(x):
    """s(x) (1 + x (1 - s(x))), because s' = s (1 - s)."""
    s = 1 / (1 + np.exp(-x))
    return s * (1 + x * (1 - s))


def tanh_derivative(x):
    """1 - tanh(x)^2."""
    return 1 - np.tanh(x) ** 2


ACTIVATIONS = {
    "gelu": (gelu, gelu_derivative),
    "gelu_new": (gelu_new, gelu_new_derivative),
    "relu": (relu, relu_derivative),
    "silu": (silu, silu_derivative),
    "tanh": (np.tanh, tanh_derivative),
}


def activation(x, *, hidden_act):
    """Computes y = f(x) elementwise, where `hidden_act` is the name of f, a key of ACTIVATIONS."""
    function, derivative = ACTIVATIONS[hidden_act]
    return function(x), (derivative, x)


def activation_backward(dy, cache):
    """dx = f'(x) dy."""
    derivative, x = cache
    return derivative(x) * dy
