"""One step of training and one of evaluation, as pure functions.

The gradient is that of the global batch: each loss is a sum, divided once by the total weight over all micro-batches
and devices. So it does not depend on how the batch was split.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import Array

from bert_jax.functional.random_bits import skips_rows
from bert_jax.training.objectives import Batch, Metrics, Objective
from bert_jax.training.optimizers import Schedule
from bert_jax.training.state import TrainState

Axis = str | tuple[str, ...]  # names of mapped axes


def train_step(
    state: TrainState,
    batch: Batch,
    axis: Axis | None = None,
    *,
    objective: Objective,
    optimizer: optax.GradientTransformation,
    schedule: Schedule | None = None,
    accumulate: int = 1,
    skip: bool = False,
) -> tuple[TrainState, dict[str, Array]]:
    """Returns the state after one update, and the metrics of the batch before it.

    Args:
        batch: arrays [B, ...]; B must be divisible by `accumulate`.
        axis: the mapped axis, or axes, under `pmap` or `shard_map`, over which gradients are summed once, after the
            last micro-batch and in float32; None under `jit`, where XLA sums over the devices.
        schedule: the optimizer's learning rate, for the metrics.
        accumulate: number of micro-batches, computed one after another, whose gradients are summed.
        skip: if the loss or the gradient is not finite, keep parameters and optimizer state, and count the skip.

    Returns:
        The new state, and scalars: `loss`, the mean of each metric, `gradient_norm` before clipping, `tokens` without
        padding, `row_efficiency` = tokens / (tokens and padding); with `skip` also `skipped`, the skips so far.
    """
    key = jax.random.fold_in(state.key, state.step)
    if axis is not None and not skips_rows(key):
        key = jax.random.fold_in(key, jax.lax.axis_index(axis))  # another dropout mask on each device
    # The weight of the global batch, known before the first micro-batch.
    totals = {name: _divisor(_sum_over(batch[weights].sum(), axis)) for name, weights in objective.losses.items()}

    def loss(params, micro_batch: Batch, key: Array) -> tuple[Array, Metrics]:
        pairs = objective.loss_and_metrics({**state.frozen, **params}, micro_batch, key)
        return jnp.asarray(sum(pairs[name][0] / total for name, total in totals.items())), pairs

    def gradients_and_pairs(micro_batch: Batch, key: Array):
        (_, pairs), gradients = jax.value_and_grad(loss, has_aux=True)(state.params, micro_batch, key)
        return gradients, pairs

    gradients, pairs = _sum_over(_accumulate(gradients_and_pairs, batch, key, accumulate), axis)
    with jax.named_scope("optimizer"):
        updates, optimizer_state = optimizer.update(gradients, state.optimizer_state, state.params)
        params = optax.apply_updates(state.params, updates)
    metrics = means(pairs)
    metrics["loss"] = jnp.asarray(sum(metrics[name] for name in objective.losses))
    metrics["gradient_norm"] = optax.tree.norm(gradients)
    if schedule is not None:
        metrics["learning_rate"] = schedule(state.step - state.skipped)  # the optimizer counts no skipped steps
    metrics["tokens"] = _sum_over((batch["attention_mask"] != 0).sum(), axis)
    metrics["row_efficiency"] = metrics["tokens"] / _sum_over(batch["attention_mask"].size, axis)
    after = replace(state, step=state.step + 1, params=params, optimizer_state=optimizer_state)
    if skip:
        finite = jnp.isfinite(metrics["loss"]) & jnp.isfinite(metrics["gradient_norm"])
        after = _skip_unless(finite, after, state)
        metrics["skipped"] = after.skipped
    return after, metrics


def evaluation_step(params, batch: Batch, axis: Axis | None = None, *, objective: Objective) -> Metrics:
    """Returns the metrics of a batch as pairs (sum, weight), without dropout."""
    return _sum_over(objective.loss_and_metrics(params, batch, None), axis)


def prediction_step(
    params, batch: Batch, axis: Axis | None = None, *, objective: Objective
) -> tuple[dict[str, Array], Metrics]:
    """Returns the logits of a batch, float32, and its metrics as pairs (sum, weight), without dropout."""
    outputs = objective.apply(params, batch, None)
    logits = {name: value.astype(jnp.float32) for name, value in outputs.items() if name.endswith("logits")}
    return logits, _sum_over(objective.compute_metrics(outputs, batch), axis)


def ranking_step(params, batch: Batch, axis: Axis | None = None, *, objective: Objective) -> dict[str, Array]:
    """Returns the next-sentence scores of the global batch on every device, without dropout.

    Returns:
        Arrays [B, S]: `scores`, the logit of label 1 (a random sentence) above that of label 0; `labels`; `weights`, 0
        where a row has no pair.
    """
    logits = objective.apply(params, batch, None).seq_relationship_logits.astype(jnp.float32)  # [B, S, 2]
    pairs = {
        "scores": logits[..., 1] - logits[..., 0],
        "labels": batch["next_sentence_labels"],
        "weights": batch["next_sentence_weights"],
    }
    return pairs if axis is None else jax.lax.all_gather(pairs, axis, tiled=True)


def means(pairs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns sum / weight of each pair; 0 if the weight is 0."""
    return {name: total / _divisor(weight) for name, (total, weight) in pairs.items()}


def _accumulate(function: Callable, batch: Batch, key: Array, count: int) -> Any:
    """Returns the sum of `function(micro_batch, key)` over `count` micro-batches, computed one after another.

    Micro-batch i takes the rows i, i + count, i + 2 count, ... Example: 8 rows on 2 devices (rows 0-3 and 4-7) in 2
    micro-batches. The rows are reshaped to [4, 2]:

        device 0: 0 1      micro-batch 0: rows 0 2 on device 0, 4 6 on device 1
                  2 3      micro-batch 1: rows 1 3 on device 0, 5 7 on device 1
        device 1: 4 5
                  6 7

    Each micro-batch uses all devices, and no row moves between them. Consecutive rows (0-3, then 4-7) would all lie on
    one device.
    """
    if count == 1:
        return function(batch, key)
    rows = len(batch["input_ids"])
    if rows % count:
        raise ValueError(f"a batch of {rows} rows cannot be divided into {count} micro-batches")
    # [B, ...] -> [B / count, count, ...] -> [count, B / count, ...]
    stacked = jax.tree.map(lambda x: x.reshape(rows // count, count, *x.shape[1:]).swapaxes(0, 1), dict(batch))

    def add(total, inputs):
        index, micro_batch = inputs
        return jax.tree.map(jnp.add, total, function(micro_batch, jax.random.fold_in(key, index))), None

    shapes = jax.eval_shape(function, jax.tree.map(lambda x: x[0], stacked), key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    return jax.lax.scan(add, zeros, (jnp.arange(count), stacked))[0]


def _skip_unless(finite: Array, after: TrainState, before: TrainState) -> TrainState:
    """Returns `after` if it is finite, else `before` with the step and the number of skipped steps increased."""
    skipped = replace(before, step=after.step, skipped=before.skipped + 1)
    return jax.tree.map(lambda new, old: new if new is old else jnp.where(finite, new, old), after, skipped)


def _sum_over(tree, axis: Axis | None) -> Any:
    """Returns the sum over the devices of a mapped axis; the tree itself if there is none."""
    return tree if axis is None else jax.lax.psum(tree, axis)


def _divisor(weight: Array) -> Array:
    """Returns a weight to divide by: 1 instead of 0, where the sum is 0 too."""
    return jnp.where(weight > 0, weight, 1.0)
