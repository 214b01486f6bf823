"""Rotary positions: queries and keys are rotated by angles that grow with their position.

Columns i and i + H/2 of a head are a point in the plane. At position p it is rotated by the angle p / theta^(2i/H). The
product of a query at p and a key at p' then depends on p - p' only: a rotation by a followed by the inverse of one by b
is a rotation by a - b.

References: Su et al., RoFormer: Enhanced Transformer with Rotary Position Embedding, 2021, section 3.2.
"""

import numpy as np


def rotations(position_ids, head_size, theta):
    """Returns cosine and sine of the angles.

    Args:
        position_ids: int [B, T].
    Returns:
        Two arrays [B, T, 1, H / 2], for all N heads.
    """
    angles = position_ids[..., None] / theta ** (np.arange(0, head_size, 2) / head_size)
    return np.cos(angles)[:, :, None], np.sin(angles)[:, :, None]


def rotate(x, rotation):
    """Computes y_i = x_i cos - x_j sin, y_j = x_j cos + x_i sin for each pair i, j = i + H/2.

    Args:
        x: [B, T, N, H].
        rotation: see `rotations`.
    Returns:
        y [B, T, N, H].
    """
    cosine, sine = rotation
    first, second = np.split(x, 2, axis=-1)
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], axis=-1)


def rotate_backward(dy, rotation):
    """The transposed rotation, which is the inverse: the same with -sin."""
    cosine, sine = rotation
    return rotate(dy, (cosine, -sine))
