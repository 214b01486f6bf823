"""Several seeds as one program: the step of one, mapped over a leading axis K of parameters, optimizer state and keys.

What differs by seed has an axis K: what learns, what the optimizer keeps and the keys in front, the batch behind its
rows (so that rows are spread over devices as ever). What does not is there once: the number of the step, and the
parameters that do not learn.

References: Mosbach et al., On the Stability of Fine-tuning BERT, 2021; Dodge et al., Fine-Tuning Pretrained Language
Models: Weight Initializations, Data Orders, and Early Stopping, 2020 (why one seed says little).
"""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bert_jax.training.state import TrainState, run_key

AXES: Any = TrainState(
    step=None,  # pyright: ignore[reportArgumentType]
    params=0,
    optimizer_state=0,
    key=0,  # pyright: ignore[reportArgumentType]
    skipped=0,  # pyright: ignore[reportArgumentType]
    frozen=None,
)


def create(
    params: Any,
    optimizer: optax.GradientTransformation,
    *,
    seeds: Sequence[int],
    frozen: Any = None,
    random_bits: str = "hashed",
) -> TrainState:
    """Returns the state before the first step of K seeds.

    Args:
        params: what learns, each leaf with K in front.
        frozen: what does not, without.
        random_bits: see `run_key`.
    """
    keys = jax.vmap(lambda seed: run_key(jax.random.key(seed), random_bits))(jnp.asarray(seeds, jnp.uint32))
    step, skipped = jnp.zeros((), jnp.int32), jnp.zeros(len(seeds), jnp.int32)
    return TrainState(step, params, jax.vmap(optimizer.init)(params), keys, skipped, frozen or {})


def together(step: Callable) -> Callable:
    """Maps (state, batch [B, K, ...], **options) -> (state, figures) over the seeds."""

    def of_all(state: TrainState, batch: Any, **options: Any):
        run = mapped(partial(step, **options), (AXES, 1), (AXES, 0), count=len(state.skipped))
        return run(state, batch)

    return of_all


def answers_of_all(predict: Callable, learning: Collection[str]) -> Callable:
    """Maps (params, batch, **options) -> answers over the seeds, which are all asked the same.

    Args:
        learning: the parts of the tree that have K in front.
    """

    def of_all(params: Any, batch: Any, **options: Any) -> Any:
        axes = {name: 0 if name in learning else None for name in params}
        count = next(len(leaf) for name in learning for leaf in jax.tree.leaves(params[name]))
        return mapped(partial(predict, **options), (axes, None), 0, count=count)(params, batch)

    return of_all


def mapped(function: Callable, in_axes: Any, out_axes: Any, *, count: int) -> Callable:
    """Returns `jax.vmap(function, in_axes, out_axes)`. A single seed is not mapped: not every kernel can be."""
    if count > 1:
        return jax.vmap(function, in_axes=in_axes, out_axes=out_axes)

    def change(how: Callable, axes: Any, trees: Any) -> Any:
        def of_one(axis: int | None, tree: Any) -> Any:
            return tree if axis is None else jax.tree.map(lambda x: how(x, axis), tree)

        return jax.tree.map(of_one, axes, trees, is_leaf=lambda axis: axis is None)

    return lambda *inputs: change(jnp.expand_dims, out_axes, function(*change(jnp.squeeze, in_axes, inputs)))


def of_seed(params: Any, learning: Collection[str], place: int) -> dict[str, Any]:
    """Returns the parameters of one of the seeds, by its place in K."""
    return {name: jax.tree.map(lambda x: x[place], part) if name in learning else part for name, part in params.items()}


class Selection:
    """Keeps the best evaluation of each seed, and says when none of them gets better any more.

    Args:
        metric: the key of an evaluation's row; the higher the better.
        count: K.
        patience: evaluations in a row without a better one, after which a seed is done; 0 = never.

    Attributes:
        best: float [K], the best so far; minus infinity at first.
        step: int [K], where it was.
    """

    def __init__(self, metric: str, count: int, *, patience: int = 0) -> None:
        self.metric, self.patience = metric, patience
        self.best, self.step = np.full(count, -np.inf), np.zeros(count, int)
        self.waited = np.zeros(count, int)

    @property
    def done(self) -> np.ndarray:
        """Bool [K]: which seeds have waited long enough; what they do afterwards does not count."""
        return (self.waited >= self.patience) & (self.patience > 0)

    def improved(self, step: int, row: Any) -> np.ndarray:
        """Takes an evaluation; returns, bool [K], for which seeds it is the best so far."""
        values = np.broadcast_to(np.asarray(row[self.metric], float), self.best.shape)
        better = (values > self.best) & ~self.done
        self.waited = np.where(self.done, self.waited, np.where(better, 0, self.waited + 1))
        self.best = np.where(better, values, self.best)
        self.step = np.where(better, step, self.step)
        return better
