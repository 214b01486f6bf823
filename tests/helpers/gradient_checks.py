"""For gradient tests: comparison of trees leaf by leaf, and finite differences of a function.

Slopes are central differences of fourth order, (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h, along directions that move
one element of a leaf or all of them. A comparison that fails names the worst leaf and the worst element in it.
"""

import numpy as np

DIFFERENCES_TOLERANCE = 1e-6
STEP = 1e-3  # truncation and rounding are then both near 1e-11 of the gradient

# A leaf this much smaller than the whole, like the key bias's, is zero but for rounding, and has no scale of its own.
NEGLIGIBLE = 1e-11
NEGLIGIBLE_IN_FLOAT32 = 1e-5


def leaves(tree, path=""):
    """Lists (path, array) of a tree of dicts."""
    if isinstance(tree, dict):
        return [leaf for name, child in tree.items() for leaf in leaves(child, f"{path}/{name}" if path else name)]
    return [(path, np.asarray(tree))]


def assert_leaves_agree(got, want, tolerance, scales=None, negligible=NEGLIGIBLE):
    """Each leaf's largest error, relative to the leaf's largest element, is within the tolerance.

    `scales` holds the sizes of the leaves where `want` itself does not (it may be a few derivatives of each).
    """
    got, want = dict(leaves(got)), dict(leaves(want))
    assert got.keys() == want.keys()
    sizes = {path: np.abs(leaf).max() for path, leaf in leaves(scales or want)}
    whole = max(sizes.values())
    errors = {}
    for path, leaf in want.items():
        assert got[path].shape == leaf.shape, f"{path}: shape {got[path].shape}, wanted {leaf.shape}"
        scale = sizes[path] if sizes[path] > negligible * whole else whole
        errors[path] = np.abs(got[path] - leaf).max() / scale if scale else np.abs(got[path]).max()
    worst = max(errors, key=lambda path: np.nan_to_num(errors[path], nan=np.inf))
    place = np.unravel_index(np.abs(got[worst] - want[worst]).argmax(), want[worst].shape)
    assert errors[worst] <= tolerance, (
        f"worst leaf {worst}: relative error {errors[worst]:.2e}, allowed {tolerance:.0e}; "
        f"at {tuple(map(int, place))} got {got[worst][place]:.12e}, wanted {want[worst][place]:.12e}"
    )


def slopes(function, tree, directions):
    """Measures the derivative of `function(tree)` along each direction: {path: [K]} for directions {path: [K, ...]}."""
    measured = {}
    for path, leaf in leaves(tree):
        start, along = leaf.copy(), []
        for direction in directions[path]:
            values = []
            for steps in (1, -1, 2, -2):
                leaf[...] = start + steps * STEP * direction
                values.append(function(tree))
            leaf[...] = start
            along.append((8 * (values[0] - values[1]) - (values[2] - values[3])) / (12 * STEP))
        measured[path] = np.array(along)
    return measured


def assert_gradient_is_the_slope(function, tree, gradient, directions):
    """The hand-derived gradient, projected on the directions, is the slope along them."""
    gradient = dict(leaves(gradient))
    assert gradient.keys() == directions.keys()
    shapes = {path: leaf.shape for path, leaf in leaves(tree)}
    assert {path: leaf.shape for path, leaf in gradient.items()} == shapes
    projected = {
        path: directions[path].reshape(len(directions[path]), -1) @ gradient[path].reshape(-1) for path in shapes
    }
    assert_leaves_agree(projected, slopes(function, tree, directions), DIFFERENCES_TOLERANCE, scales=gradient)


def every_element(tree):
    """The directions along which one element moves."""
    return {path: np.eye(leaf.size).reshape(leaf.size, *leaf.shape) for path, leaf in leaves(tree)}


def random_directions(tree, count=3):
    """Unit directions along which all elements of a leaf move at once."""
    random, directions = np.random.default_rng(7), {}
    for path, leaf in leaves(tree):
        along = random.normal(size=(count, *leaf.shape))
        directions[path] = along / np.sqrt((along.reshape(count, -1) ** 2).sum(axis=1)).reshape(-1, *[1] * leaf.ndim)
    return directions
