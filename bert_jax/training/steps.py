"""One step of training and one of evaluation, as pure functions.

The gradient is that of the global batch: each loss is a sum, divided once by the weight of all micro-batches on all
devices. How the batch was split does not show.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from bert_jax.training.objectives import Batch, Metrics, Objective
from bert_jax.training.optimizers import Schedule
from bert_jax.training.state import TrainState


def train_step(
    state: TrainState,
    batch: Batch,
    axis: str | None = None,
    *,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    schedule: Schedule | None = None,
    accumulate: int = 1,
    skip: bool = False,
) -> tuple[TrainState, dict[str, Array]]:
    """Returns the state after one update, and the batch's figures before it.

    Args:
        batch: arrays [B, ...]; B must be divisible by `accumulate`.
        axis: the name of the mapped axis under `pmap` or `shard_map`; None under plain `jit`, where XLA adds up the
        devices.
        schedule: the optimizer's, to be told in the figures.
        accumulate: micro-batches, run one after another, whose gradients are added up.
        skip: where the loss or the gradient is not finite, leave parameters and optimizer as they are, and count it.

    Returns:
        The new state, and scalars: `loss`, each measure's mean, `gradient_norm` before clipping, `tokens` (not
        padding), `row_efficiency`, their share of the batch; with `skip` also `skipped`, the steps skipped so far.
    """
    key = jax.random.fold_in(state.key, state.step)
    if axis is not None:
        key = jax.random.fold_in(key, jax.lax.axis_index(axis))
    totals = {name: divisor(across(batch[weights].sum(), axis)) for name, weights in objective.losses.items()}

    def loss(params, part: Batch, key: Array) -> tuple[Array, Metrics]:
        measures = objective.loss_and_metrics({**state.frozen, **params}, part, key)
        return jnp.asarray(sum(measures[name][0] / total for name, total in totals.items())), measures

    def gradients_of(part: Batch, key: Array):
        (_, measures), gradients = jax.value_and_grad(loss, has_aux=True)(state.params, part, key)
        return gradients, measures

    gradients, measures = across(accumulated(gradients_of, batch, key, accumulate), axis)
    with jax.named_scope("optimizer"):
        updates, optimizer_state = optimizer.update(gradients, state.optimizer_state, state.params)
        params = optax.apply_updates(state.params, updates)
    figures = means(measures)
    figures["loss"] = jnp.asarray(sum(figures[name] for name in objective.losses))
    figures["gradient_norm"] = optax.tree.norm(gradients)
    if schedule is not None:
        figures["learning_rate"] = schedule(state.step - state.skipped)  # what the optimizer has counted
    figures["tokens"] = across((batch["attention_mask"] != 0).sum(), axis)
    figures["row_efficiency"] = figures["tokens"] / across(batch["attention_mask"].size, axis)
    after = replace(state, step=state.step + 1, params=params, optimizer_state=optimizer_state)
    if skip:
        finite = jnp.isfinite(figures["loss"]) & jnp.isfinite(figures["gradient_norm"])
        after = unless(finite, after, state)
        figures["skipped"] = after.skipped
    return after, figures


def unless(finite: Array, after: TrainState, before: TrainState) -> TrainState:
    """Returns `after`, or where it is not finite the state before, a step further and one more skipped."""
    kept = replace(before, step=after.step, skipped=before.skipped + 1)
    return jax.tree.map(lambda new, old: new if new is old else jnp.where(finite, new, old), after, kept)


def evaluation_step(params, batch: Batch, axis: str | None = None, *, objective: Objective) -> Metrics:
    """Returns the batch's measures as pairs (sum, weight), without dropout."""
    return across(objective.loss_and_metrics(params, batch, None), axis)


def prediction_step(
    params, batch: Batch, axis: str | None = None, *, objective: Objective
) -> tuple[dict[str, Array], Metrics]:
    """Returns the logits that a model gives to a batch, float32, and its measures as pairs (sum, weight)."""
    outputs = objective.apply(params, batch, None)
    logits = {name: value.astype(jnp.float32) for name, value in outputs.items() if name.endswith("logits")}
    return logits, across(objective.compute_metrics(outputs, batch), axis)


def accumulated(gradients_of, batch: Batch, key: Array, parts: int) -> Any:
    """Returns the sum of `gradients_of(part, key)` over `parts` parts of the batch, computed one after another.

    Every part takes each parts-th row, so that a batch laid over devices needs no row to move.
    """
    if parts == 1:
        return gradients_of(batch, key)
    rows = len(batch["input_ids"])
    if rows % parts:
        raise ValueError(f"a batch of {rows} rows cannot be divided into {parts} micro-batches")
    stacked = jax.tree.map(lambda x: x.reshape(rows // parts, parts, *x.shape[1:]).swapaxes(0, 1), dict(batch))

    def add(total, inputs):
        index, part = inputs
        return jax.tree.map(jnp.add, total, gradients_of(part, jax.random.fold_in(key, index))), None

    shapes = jax.eval_shape(gradients_of, jax.tree.map(lambda x: x[0], stacked), key)
    start = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(add, start, (jnp.arange(parts), stacked))[0]


def across(tree, axis: str | None) -> Any:
    """Returns the sum over the devices of a mapped axis."""
    return tree if axis is None else jax.lax.psum(tree, axis)


def means(measures: Mapping[str, Any]) -> dict[str, Any]:
    """Returns sum / weight of each measure; 0 where nothing was weighed."""
    return {name: total / divisor(weight) for name, (total, weight) in measures.items()}


def divisor(weight: Array) -> Array:
    """Returns a weight to divide by: 1 where there is none, and the sum is 0."""
    return jnp.where(weight > 0, weight, 1.0)
