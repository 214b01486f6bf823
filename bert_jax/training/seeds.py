"""Several seeds trained as one program: the step of one seed, vmapped over an axis K of per-seed arrays.

Axes: K seeds, B rows of a batch. Per-seed arrays have the axis K: trained parameters, optimizer state and keys in
front, a training batch behind its rows, [B, K, ...], so that rows are spread over devices as they are for one seed.
What is shared exists once: the step number, frozen parameters, and the batches of an evaluation.

Only `SeedEnsemble` handles the axis K; all other code is written for one seed.

References: Mosbach et al., On the Stability of Fine-tuning BERT, 2021; Dodge et al., Fine-Tuning Pretrained Language
Models: Weight Initializations, Data Orders, and Early Stopping, 2020 (why one seed says little).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bert_jax.training.state import TrainState, run_key

# The axis of K in each field of the state; None = shared by all seeds.
STATE_AXES: Any = TrainState(
    step=None,  # pyright: ignore[reportArgumentType]
    params=0,
    optimizer_state=0,
    key=0,  # pyright: ignore[reportArgumentType]
    skipped=0,  # pyright: ignore[reportArgumentType]
    frozen=None,
)
BATCH_AXIS = 1

# Example: K = 2 seeds (3 and 5), B = 3 rows. The seeds shuffle the data differently, so each row holds two examples:
#
#     batch["labels"]              [B, K]  [[0, 1], [1, 1], [2, 0]]   seed 3 has the labels 0, 1, 2; seed 5 has 1, 1, 0
#     params["classifier"]["bias"] [K, C]                             one bias for each seed
#     frozen["embeddings"]         [V, D]                             shared
#     metrics["loss"]              [K]     [0.7, 0.9]                 the losses that the seeds have when trained alone


@dataclass(frozen=True)
class SeedEnsemble:
    """K seeds that are trained and evaluated together.

    Attributes:
        seeds: K of them.
        trained: the top-level parts of the parameter tree that differ by seed; the others are shared.
    """

    seeds: tuple[int, ...]
    trained: frozenset[str]

    def __len__(self) -> int:
        """K."""
        return len(self.seeds)

    def create(
        self, params: Any, optimizer: optax.GradientTransformation, *, frozen: Any = None, random_bits: str = "hashed"
    ) -> TrainState:
        """Returns the state before the first step.

        Args:
            params: trained parameters, leaves [K, ...].
            frozen: the other parameters, without K.
            random_bits: see `run_key`.
        """
        seeds = jnp.asarray(self.seeds, jnp.uint32)
        return TrainState(
            step=jnp.zeros((), jnp.int32),
            params=params,
            optimizer_state=jax.vmap(optimizer.init)(params),
            key=jax.vmap(lambda seed: run_key(jax.random.key(seed), random_bits))(seeds),
            skipped=jnp.zeros(len(self), jnp.int32),
            frozen=frozen or {},
        )

    def stack_batches(self, batches: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        """Returns one batch [B, K, ...] of the seeds' batches [B, ...], which must have the same shapes."""
        return {name: np.stack([batch[name] for batch in batches], axis=BATCH_AXIS) for name in batches[0]}

    def step(self, step: Callable) -> Callable:
        """Maps a step (state, batch, **options) -> (state, metrics) of one seed over all of them.

        Returns:
            (state, batch [B, K, ...], **options) -> (state, metrics [K]).
        """

        def step_all(state: TrainState, batch: Any, **options: Any):
            run = self._map(partial(step, **options), in_axes=(STATE_AXES, BATCH_AXIS), out_axes=(STATE_AXES, 0))
            return run(state, batch)

        return step_all

    def evaluate(self, predict: Callable) -> Callable:
        """Maps (params, batch, **options) -> outputs of one seed over all of them, on the same batch.

        Returns:
            (params, batch [B, ...], **options) -> outputs [K, ...].
        """

        def evaluate_all(params: Any, batch: Any, **options: Any) -> Any:
            axes = {name: 0 if name in self.trained else None for name in params}
            return self._map(partial(predict, **options), in_axes=(axes, None), out_axes=0)(params, batch)

        return evaluate_all

    def select(self, params: Mapping[str, Any], index: int) -> dict[str, Any]:
        """Returns the parameters of one seed, by its index in K."""
        return {
            name: jax.tree.map(lambda leaf: leaf[index], part) if name in self.trained else part
            for name, part in params.items()
        }

    def _map(self, function: Callable, *, in_axes: Any, out_axes: Any) -> Callable:
        """Returns `jax.vmap(function, in_axes, out_axes)`.

        A single seed is not mapped, because some attention kernels have no batching rule: its axis is removed from the
        inputs and added to the outputs.
        """
        if len(self) > 1:
            return jax.vmap(function, in_axes=in_axes, out_axes=out_axes)

        def change_axis(change: Callable, axes: Any, trees: Any) -> Any:
            def change_leaves(axis: int | None, tree: Any) -> Any:
                return tree if axis is None else jax.tree.map(lambda leaf: change(leaf, axis), tree)

            return jax.tree.map(change_leaves, axes, trees, is_leaf=lambda axis: axis is None)

        def call(*inputs: Any) -> Any:
            outputs = function(*change_axis(jnp.squeeze, in_axes, inputs))
            return change_axis(jnp.expand_dims, out_axes, outputs)

        return call


class Selection:
    """Tracks the best evaluation of each seed, and when no seed improves any more (early stopping).

    Args:
        metric: the key of an evaluation's row; higher is better.
        count: K.
        patience: the number of evaluations without improvement after which a seed is done; 0 = never.

    Attributes:
        best: float [K], the best metric so far; minus infinity at first.
        step: int [K], the step of that evaluation.
        waited: int [K], evaluations since.
    """

    def __init__(self, metric: str, count: int, *, patience: int = 0) -> None:
        self.metric = metric
        self.patience = patience
        self.best = np.full(count, -np.inf)
        self.step = np.zeros(count, int)
        self.waited = np.zeros(count, int)

    @property
    def done(self) -> np.ndarray:
        """Bool [K]: which seeds have run out of patience; later evaluations of theirs do not count."""
        return (self.waited >= self.patience) & (self.patience > 0)

    def improved(self, step: int, row: Any) -> np.ndarray:
        """Records an evaluation; returns, bool [K], for which seeds it is the best so far.

        Example: patience 2 and the metrics [0.5, 0.1], [0.4, 0.2], [0.5, 0.3], [0.9, 0.4] of two seeds: the first seed
        is done after the third evaluation, so its 0.9 does not count.
        """
        values = np.broadcast_to(np.asarray(row[self.metric], float), self.best.shape)
        better = (values > self.best) & ~self.done  # False for NaN
        self.waited = np.where(self.done, self.waited, np.where(better, 0, self.waited + 1))
        self.best = np.where(better, values, self.best)
        self.step = np.where(better, step, self.step)
        return better
