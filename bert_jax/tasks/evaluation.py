"""The answers of K seeds at once to what was held out, and their scores."""

from collections.abc import Collection, Sequence
from typing import Any

import jax
import numpy as np

from bert_jax.data.finetuning.batches import Layout, Placement, evaluation_batches
from bert_jax.models import Bert
from bert_jax.tasks.base import Answers, Part, Task
from bert_jax.training import seeds
from bert_jax.training.devices import parallel
from bert_jax.training.steps import prediction_step


class Evaluator:
    """Evaluates K seeds on every part that was held out.

    Args:
        parts: the first decides which model is the best.
        model: what answers.
        params: its parameter tree, or the tree's shapes.
        learning: the parts of the tree that have an axis of seeds in front.
        rows: how examples become rows, `num_rows` of them a batch.
        layout: where the batches lie.

    Attributes:
        shapes: rows x tokens that were compiled.
    """

    def __init__(
        self,
        task: Task,
        parts: Sequence[Part],
        model: Bert,
        params: Any,
        learning: Collection[str],
        rows: Layout,
        *,
        num_rows: int,
        layout: parallel.MeshLayout,
    ) -> None:
        self.task, self.parts, self.rows, self.num_rows, self.layout = task, parts, rows, num_rows, layout
        self.shapes: set[tuple[int, ...]] = set()
        objective = task.objective(model, learning=False)

        def step(params: Any, batch: Any, axis: str | None = None) -> Any:
            self.shapes.add(batch["input_ids"].shape)  # runs only while it is traced
            return prediction_step(params, batch, axis, objective=objective)

        self.answer = layout.compile_evaluation(seeds.answers_of_all(step, learning), params)

    def scores(self, params: Any) -> dict[str, np.ndarray]:
        """Returns the scores of all seeds, [K] each, named `eval_...`."""
        row: dict[str, np.ndarray] = {}
        for part in self.parts:
            answers, measures = self.gather(params, part)
            found = [self.task.decode(part, of_seed(answers, place)) for place in range(len(measures["loss"]))]
            scores = [self.task.score(part, one) for one in found]
            table = {"loss": measures["loss"]} | {name: np.array([one[name] for one in scores]) for name in scores[0]}
            row |= {f"eval_{part.file_prefix}{name}": values for name, values in table.items()}
        return row

    def gather(self, params: Any, part: Part) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """Returns the answers to every example of a part, each once, and the means of their measures.

        The next batch is made and dispatched before the answers to the one before are fetched.

        Returns:
            {name: [K, sequences or tokens, ...]}, in the order of the features, and {name: [K]}.
        """
        gathering = PredictionBuffer(part, per_token=self.task.per_token)
        pending = None
        for batch, placement in evaluation_batches(part.features, self.rows, num_rows=self.num_rows):
            results = self.answer(params, self.layout.device_put(batch))
            if pending is not None:
                gathering.take(*pending)
            pending = results, placement
        if pending is not None:
            gathering.take(*pending)
        return gathering.answers, gathering.means()


class PredictionBuffer:
    """Answers of batches, each put in its place among those to the whole part."""

    def __init__(self, part: Part, *, per_token: bool) -> None:
        sequences = part.features.sequences
        self.per_token, self.group = per_token, part.features.group
        self.size = len(sequences.ids) if per_token else len(part.features)
        self.answers: dict[str, np.ndarray] = {}
        self.totals: dict[str, np.ndarray] = {}

    def take(self, results: Any, placement: Placement) -> None:
        """Takes in a batch's ({name: [K, B, ...]}, {name: (sum [K], weight [K])})."""
        if self.per_token:
            target, source = placement.tokens, (placement.token_rows, placement.token_columns)
        elif self.group > 1:
            target = placement.sequences[:: self.group] // self.group
            source = (np.arange(len(target)),)
        else:
            target, source = placement.sequences, (placement.rows, placement.slots)
        answers, measures = jax.device_get(results)
        for name, pair in measures.items():
            self.totals[name] = self.totals.get(name, 0.0) + np.array(pair, np.float64)
        for name, values in answers.items():
            if name not in self.answers:
                shape = (len(values), self.size, *values.shape[1 + len(source) :])
                self.answers[name] = np.zeros(shape, values.dtype)
            self.answers[name][:, target] = values[:, *source]

    def means(self) -> dict[str, np.ndarray]:
        """Returns {name: [K]}, 0 where nothing was weighed."""
        return {name: total / np.where(weight > 0, weight, 1.0) for name, (total, weight) in self.totals.items()}


def of_seed(answers: Answers, place: int) -> dict[str, np.ndarray]:
    """Returns the answers of one of the K seeds."""
    return {name: values[place] for name, values in answers.items()}
