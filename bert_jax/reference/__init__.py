"""BERT in NumPy, forward and backward by hand: slow, short, and meant to be read beside the equations.

Every part is a pair of functions. `y, cache = part(params, x, ...)` goes forward and `dx, gradient =
part_backward(dy, cache)` goes back. Here dy is the derivative of the loss with respect to y, of the same shape as y;
the cache holds what the derivative has to remember; the gradient is a dict with the names of params. The chain rule
is then nothing but calling the backward halves in reverse order, and adding where a value was used twice.

Read in this order: layers, attention, encoder, embeddings, heads, losses, model. The tests hold every parameter's
gradient against central differences, and against automatic differentiation of the JAX model.
"""
