"""For gradient tests: comparison of trees leaf by leaf, and finite differences of a function.

Derivatives are central differences of fourth order, (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h, along directions that
change one element of a leaf or all of them. A comparison that fails names the worst leaf and its worst element.
"""

import numpy as np

DIFFERENCES_TOLERANCE = 1e-6
STEP = 1e-3  # truncation and rounding are then both near 1e-11 of the gradient

# A leaf this much smaller than the largest, like the key bias's, is zero up to rounding.
# Its errors are relative to the largest leaf.
NEGLIGIBLE = 1e-11
NEGLIGIBLE_IN_FLOAT32 = 1e-5


def leaves(tree, path=""):
    """Returns (path, array) for every leaf of a tree of dicts."""
    if isinstance(tree, dict):
        return [leaf for name, child in tree.items() for leaf in leaves(child, f"{path}/{name}" if path else name)]
    return [(path, np.asarray(tree))]


def assert_leaves_agree(got, want, tolerance, scales=None, negligible=NEGLIGIBLE):
    """Asserts that each leaf's largest error, relative to the leaf's largest element, is within the tolerance.

    `scales` is a tree with the sizes of the leaves, if `want` has only some derivatives of each.
    """
    got = dict(leaves(got))
    want = dict(leaves(want))
    assert got.keys() == want.keys()
    sizes = {path: np.abs(leaf).max() for path, leaf in leaves(scales or want)}
    whole = max(sizes.values())
    errors = {}
    for path, leaf in want.items():
        assert got[path].shape == leaf.shape, f"{path}: shape {got[path].shape}, expected {leaf.shape}"
        scale = sizes[path] if sizes[path] > negligible * whole else whole
        errors[path] = np.abs(got[path] - leaf).max() / scale if scale else np.abs(got[path]).max()
    worst = max(errors, key=lambda path: np.nan_to_num(errors[path], nan=np.inf))
    place = np.unravel_index(np.abs(got[worst] - want[worst]).argmax(), want[worst].shape)
    assert errors[worst] <= tolerance, (
        f"worst leaf {worst}: relative error {errors[worst]:.2e}, allowed {tolerance:.0e}; "
        f"at {tuple(map(int, place))} got {got[worst][place]:.12e}, expected {want[worst][place]:.12e}"
    )


def slopes(function, tree, directions):
    """Returns finite differences of `function(tree)` as {path: [K]}, for K directions per leaf, {path: [K, ...]}."""
    measured = {}
    for path, leaf in leaves(tree):
        start = leaf.copy()
        along = []
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
    """Asserts that the gradient, projected on the directions, equals the finite differences along them."""
    gradient = dict(leaves(gradient))
    assert gradient.keys() == directions.keys()
    shapes = {path: leaf.shape for path, leaf in leaves(tree)}
    assert {path: leaf.shape for path, leaf in gradient.items()} == shapes
    projected = {
        path: directions[path].reshape(len(directions[path]), -1) @ gradient[path].reshape(-1) for path in shapes
    }
    assert_leaves_agree(projected, slopes(function, tree, directions), DIFFERENCES_TOLERANCE, scales=gradient)


def every_element(tree):
    """Directions that change one element each."""
    return {path: np.eye(leaf.size).reshape(leaf.size, *leaf.shape) for path, leaf in leaves(tree)}


def random_directions(tree, count=3):
    """Unit directions that change all elements of a leaf."""
    random = np.random.default_rng(7)
    directions = {}
    for path, leaf in leaves(tree):
        along = random.normal(size=(count, *leaf.shape))
        directions[path] = along / np.sqrt((along.reshape(count, -1) ** 2).sum(axis=1)).reshape(-1, *[1] * leaf.ndim)
    return directions
