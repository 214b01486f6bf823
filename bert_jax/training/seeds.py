"""Several seeds as one program: the step of one, mapped over a leading axis K of parameters, optimizer state and keys.

What differs by seed has an axis K: what learns, what the optimizer keeps and the keys in front, the batch behind its
rows (so that rows are spread over devices as ever). What does not is there once: the number of the step, and the
parameters that do not learn.

References: Mosbach et al., On the Stability of Fine-tuning BERT, 2021; Dodge et al., Fine-Tuning Pretrained Language
Models: Weight Initializations, Data Orders, and Early Stopping, 2020 (why one seed says little).
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bert_jax.training.state import TrainState

AXES: Any = TrainState(
    step=None,  # pyright: ignore[reportArgumentType]
    params=0,
    optimizer_state=0,
    key=0,  # pyright: ignore[reportArgumentType]
    skipped=0,  # pyright: ignore[reportArgumentType]
    frozen=None,
)


def create(
    params: Any, optimizer: optax.GradientTransformation, *, seeds: Sequence[int], frozen: Any = None
) -> TrainState:
    """Returns the state before the first step of K seeds.

    Args:
        params: what learns, each leaf with K in front.
        frozen: what does not, without.
    """
    keys = jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32))
    step, skipped = jnp.zeros((), jnp.int32), jnp.zeros(len(seeds), jnp.int32)
    return TrainState(step, params, jax.vmap(optimizer.init)(params), keys, skipped, frozen or {})


def together(step: Callable) -> Callable:
    """Maps (state, batch [B, K, ...], **options) -> (state, figures) over the seeds."""

    def mapped(state: TrainState, batch: Any, **options: Any):
        return jax.vmap(lambda one, part: step(one, part, **options), in_axes=(AXES, 1), out_axes=(AXES, 0))(
            state, batch
        )

    return mapped


def answers_of_all(predict: Callable, learning: Collection[str]) -> Callable:
    """Maps (params, batch, **options) -> answers over the seeds, which are all asked the same.

    Args:
        learning: the parts of the tree that have K in front.
    """

    def mapped(params: Any, batch: Any, **options: Any) -> Any:
        axes = {name: 0 if name in learning else None for name in params}
        return jax.vmap(lambda one, rows: predict(one, rows, **options), in_axes=(axes, None))(params, batch)

    return mapped


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
