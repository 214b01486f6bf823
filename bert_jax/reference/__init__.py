"""BERT in NumPy with hand-derived gradients: slow, short, and meant to be read next to the equations.

Every layer is a pair of functions. `y, cache = layer(params, x, ...)` is the forward pass, `dx, gradient =
layer_backward(dy, cache)` the backward pass. dy is the derivative of the loss with respect to y, of the same shape as
y; the cache holds the values that the derivative needs; the gradient is a dict with the names of params. The chain rule
then means calling the backward functions in reverse order, and adding gradients where a value was used twice.

Axes: B batch, T query position, S key position, D hidden, N heads, H head size, F inner, V vocabulary, L layers,
P predictions, C classes, I and O inputs and outputs of a dense layer. After `cls_positions`, [B, S] counts the
sequences of a row.

Read in this order: layers, attention, encoder, embeddings, heads, losses, model; then rotary and modern, which are of
ModernBERT. The tests compare every parameter's gradient with central differences and with automatic differentiation of
the JAX model.
"""
