"""The embeddings: word, position and token type, summed and normalized.

Positions are learned if the parameters have a table for them, otherwise sinusoidal. Other families than BERT have no
token types, start at another position, or project the result to another size; ModernBERT's attention has the positions.

References: Devlin et al., BERT, 2018, figure 2. Vaswani et al., Attention Is All You Need, 2017, section 3.5.
"""

import numpy as np

from bert_jax.reference.layers import dense, dense_backward, layer_norm, layer_norm_backward


def sinusoidal_positions(position_ids, hidden_size):
    """Returns for each position p a vector with sin(p / 10000^(2i/D)) at 2i and cos(p / 10000^(2i/D)) at 2i + 1.

    Args:
        position_ids: int [...].
    Returns:
        float64 [..., D].
    """
    column = np.arange(hidden_size)
    angles = position_ids[..., None] / 10000.0 ** (2 * (column // 2) / hidden_size)
    return np.where(column % 2 == 0, np.sin(angles), np.cos(angles))


def lookup_backward(dy, ids, table):
    """The derivative of table[ids]: row i of the table receives the sum of dy over the positions with id i.

    `np.add.at` and not `+=`: the gradient of an id that occurs twice must be added twice.
    """
    dtable = np.zeros_like(table)
    np.add.at(dtable, ids, dy)
    return {"embedding": dtable}


def embeddings(params, input_ids, token_type_ids, position_ids, *, layer_norm_eps, sinusoidal=True):
    """Computes y = norm(word[input_ids] + position[position_ids] + token_type[token_type_ids]), projected if E != D.

    Args:
        params: word/embedding [V, E] and norm; position/embedding [positions, E] if positions are learned;
            token_type/embedding [types, E] if there are token types; projection: kernel [E, D], bias [D], if E != D.
        input_ids, token_type_ids, position_ids: int [B, T]; the last are rows of the position table.
        sinusoidal: whether positions without a table are sinusoidal; otherwise there are none.
    Returns:
        y [B, T, D], cache.
    """
    ids = {"word": input_ids, "token_type": token_type_ids, "position": position_ids}
    ids = {name: rows for name, rows in ids.items() if name in params}  # without positions if they are sinusoidal
    # [B, T, D]: one row of each table per position, summed over the tables.
    x = np.sum([params[name]["embedding"][rows] for name, rows in ids.items()], axis=0)
    if sinusoidal and "position" not in ids:
        x = x + sinusoidal_positions(position_ids, x.shape[-1])
    y, norm_cache = layer_norm(params["norm"], x, layer_norm_eps=layer_norm_eps)
    projection_cache = None
    if "projection" in params:
        y, projection_cache = dense(params["projection"], y)
    return y, (params, ids, norm_cache, projection_cache)


def embeddings_backward(dy, cache):
    """Each table receives the gradient of the sum. Ids have no derivative, so there is no dx.

    Returns:
        The gradient only.
    """
    params, ids, norm_cache, projection_cache = cache
    gradient = {}
    if projection_cache is not None:
        dy, gradient["projection"] = dense_backward(dy, projection_cache)
    dx, gradient["norm"] = layer_norm_backward(dy, norm_cache)
    return gradient | {name: lookup_backward(dx, rows, params[name]["embedding"]) for name, rows in ids.items()}
