"""Evaluation of one or more seeds on held-out splits: logits in the order of the examples, and metrics.

Axes: K seeds, B rows, S sequences in a row, T tokens, n sequences or tokens of a split.
"""

from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np

from bert_jax.data.finetuning.batches import Placement, RowFormat, evaluation_batches
from bert_jax.models import Bert
from bert_jax.tasks.base import Logits, Split, Task
from bert_jax.training.devices import parallel
from bert_jax.training.devices.compilations import CompilationCounter
from bert_jax.training.runs.interruption import Interruption, until_requested
from bert_jax.training.seeds import SeedEnsemble
from bert_jax.training.steps import prediction_step


class SplitOutputs(NamedTuple):
    """The outputs of one seed for a split.

    Attributes:
        logits: {name: [n, ...]}, in the order of the features.
        means: the mean of each metric that the objective computes, `loss` among them.
    """

    logits: Logits
    means: dict[str, float]


@dataclass(eq=False)
class Evaluator:
    """Evaluates the seeds of an ensemble on held-out splits.

    Attributes:
        splits: the first selects the best model.
        params: the parameter tree of the ensemble, or its shapes; not kept.
        row_format: how examples become rows.
        num_rows: the number of rows of a batch.
        layout: the devices of the batches.
        predict: the compiled model, which counts its compilations by the shape of `input_ids`.
    """

    task: Task
    splits: Sequence[Split]
    model: Bert
    params: InitVar[Any]
    ensemble: SeedEnsemble
    row_format: RowFormat
    num_rows: int
    layout: parallel.MeshLayout
    predict: CompilationCounter = field(init=False)

    def __post_init__(self, params: Any) -> None:
        step = partial(prediction_step, objective=self.task.objective(self.model, training=False))
        self.predict = CompilationCounter(self.layout.compile_evaluation(self.ensemble.evaluate(step), params))

    def metrics(self, params: Any, interruption: Interruption | None = None) -> dict[str, np.ndarray]:
        """Returns the metrics of all seeds, float [K] each, named `eval_...`.

        Raises:
            StopRequested: a signal that `interruption` received asked the run to end.
        """
        row: dict[str, np.ndarray] = {}
        for split in self.splits:
            by_seed = []
            for outputs in self.outputs(params, split, interruption):
                decoded = self.task.decode(split, outputs.logits)
                by_seed.append({"loss": outputs.means["loss"]} | self.task.compute_metrics(split, decoded))
            for name in by_seed[0]:
                row[f"eval_{split.file_prefix}{name}"] = np.array([metrics[name] for metrics in by_seed])
        return row

    def outputs(self, params: Any, split: Split, interruption: Interruption | None = None) -> list[SplitOutputs]:
        """Returns each seed's outputs for a split; arguments and errors are those of `metrics`.

        The next batch is built and dispatched before the results of the previous one are fetched.
        """
        buffers = [PredictionBuffer(split, per_token=self.task.per_token) for _ in self.ensemble.seeds]
        pending = None
        batches = evaluation_batches(split.features, self.row_format, num_rows=self.num_rows)
        for batch, placement in until_requested(batches, interruption):
            results = self.predict(params, self.layout.device_put_whole(batch))
            if pending is not None:
                _add_results(buffers, *pending)
            pending = results, placement
        if pending is not None:
            _add_results(buffers, *pending)
        return [SplitOutputs(buffer.logits, buffer.means()) for buffer in buffers]


class PredictionBuffer:
    """The logits of one seed for a split, filled batch by batch."""

    def __init__(self, split: Split, *, per_token: bool) -> None:
        sequences = split.features.sequences
        self.per_token = per_token
        self.group = split.features.group
        self.size = len(sequences.ids) if per_token else len(split.features)
        self.logits: dict[str, np.ndarray] = {}
        self.totals: dict[str, np.ndarray] = {}

    def add(self, logits: Logits, metrics: Mapping[str, Any], placement: Placement) -> None:
        """Adds the results of one batch.

        Args:
            logits: {name: [B, T, ...] per token, [B, S, ...] per sequence, or [B / C, C] for groups of C sequences}.
            metrics: {name: (sum, weight)}.
        """
        if self.per_token:
            target = placement.tokens
            source = (placement.token_rows, placement.token_columns)
        elif self.group > 1:
            # Groups of 3: the sequences [6, 7, 8, 0, 1, 2] are the examples [2, 0], in rows 0 and 1 of the logits.
            target = placement.sequences[:: self.group] // self.group
            source = (np.arange(len(target)),)
        else:
            target = placement.sequences
            source = (placement.rows, placement.slots)
        # Sums and weights are added up here and divided once at the end: the last batch is smaller than the others.
        for name, pair in metrics.items():
            self.totals[name] = self.totals.get(name, 0.0) + np.array(pair, np.float64)
        for name, values in logits.items():
            if name not in self.logits:
                self.logits[name] = np.zeros((self.size, *values.shape[len(source) :]), values.dtype)
            self.logits[name][target] = values[source]

    def means(self) -> dict[str, float]:
        """Returns sum / weight of each metric; 0 if the weight is 0."""
        return {name: float(total / (weight if weight > 0 else 1.0)) for name, (total, weight) in self.totals.items()}


def _add_results(buffers: Sequence[PredictionBuffer], results: Any, placement: Placement) -> None:
    """Fetches the results of one batch, [K, ...] each, and adds them to the seeds' buffers."""
    logits, metrics = jax.device_get(results)  # one transfer for all seeds
    for index, buffer in enumerate(buffers):
        of_seed = {name: (total[index], weight[index]) for name, (total, weight) in metrics.items()}
        buffer.add({name: values[index] for name, values in logits.items()}, of_seed, placement)
