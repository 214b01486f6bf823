"""What fine-tuning asks of a task, and how a model's answers to all of its examples are gathered.

A task knows its examples, how they are encoded, what is learned of them, and what an answer is worth. It knows nothing
of steps, seeds or devices.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import jax
import numpy as np

from bert_jax.data.finetuning import Features, Layout, Placement, evaluation_batches
from bert_jax.models import Bert
from bert_jax.training.objectives import Objective

Answers = Mapping[str, np.ndarray]  # {"logits": [n, ...]}, of sequences or of tokens, in the order of the features


@dataclass(frozen=True, eq=False)
class Part:
    """A part of the data, encoded.

    Attributes:
        name: empty for the part that decides which model is the best; otherwise it comes before the names of scores.
        examples: as they were read.
        features: the same as sequences, with targets where there are labels.
    """

    name: str
    examples: Sequence[Any]
    features: Features

    @property
    def file_prefix(self) -> str:
        """What the names of files begin with."""
        return f"{self.name}_" if self.name else ""


class Task(Protocol):
    """A kind of task with its data.

    Attributes:
        model: the class with the head that is needed.
        per_token: whether the model answers for each token, not for each sequence.
    """

    model: ClassVar[type[Bert]]
    per_token: ClassVar[bool]

    @property
    def changes(self) -> dict[str, Any]:
        """What the head asks of the config, such as `label_names`."""
        ...

    @property
    def metric(self) -> str:
        """The score that decides which model is the best; the higher the better."""
        ...

    def objective(self, model: Bert) -> Objective:
        """Returns what a step minimises."""
        ...

    def score(self, part: Part, answers: Answers) -> dict[str, float]:
        """Returns the scores of a part whose labels are known."""
        ...

    def predictions(self, part: Part, answers: Answers) -> Iterator[dict[str, Any]]:
        """Yields what is predicted for each example, in their order, as JSON holds it."""
        ...

    def report(self, folder: Path, part: Part, answers: Answers) -> list[str]:
        """Leaves pictures, tables and files of the task's own in a folder; returns what to say of them, by line."""
        ...


def gather(
    compiled: Callable, params: Any, part: Part, layout: Layout, *, num_rows: int, place: Callable, per_token: bool
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Returns the answers of K seeds to every example of a part, each once, and the means of their measures.

    The next batch is made and dispatched before the answers to the one before are fetched.

    Args:
        compiled: (params, batch) -> ({name: [K, B, ...]}, {name: (sum [K], weight [K])}).
        num_rows: rows of a batch; the last one is filled up.
        place: lays a batch on the devices.

    Returns:
        {name: [K, sequences or tokens, ...]}, in the order of the features, and {name: [K]}.
    """
    sequences, group = part.features.sequences, part.features.group
    size = len(sequences.ids) if per_token else len(sequences.lengths) // group
    gathered: dict[str, np.ndarray] = {}
    totals: dict[str, np.ndarray] = {}

    def take(results: Any, placement: Placement) -> None:
        if per_token:
            target, source = placement.tokens, (placement.token_rows, placement.token_columns)
        elif group > 1:
            target = placement.sequences[::group] // group
            source = (np.arange(len(target)),)
        else:
            target, source = placement.sequences, (placement.rows, placement.slots)
        answers, measures = jax.device_get(results)
        for name, pair in measures.items():
            totals[name] = totals.get(name, 0.0) + np.array(pair, np.float64)
        for name, values in answers.items():
            if name not in gathered:
                gathered[name] = np.zeros((len(values), size, *values.shape[1 + len(source) :]), values.dtype)
            gathered[name][:, target] = values[:, *source]

    pending = None
    for batch, placement in evaluation_batches(part.features, layout, num_rows=num_rows):
        results = compiled(params, place(batch))
        if pending is not None:
            take(*pending)
        pending = results, placement
    if pending is not None:
        take(*pending)
    return gathered, {name: total / np.maximum(weight, 1e-30) for name, (total, weight) in totals.items()}


def of_seed(answers: Answers, place: int) -> dict[str, np.ndarray]:
    """Returns the answers of one of the K seeds."""
    return {name: values[place] for name, values in answers.items()}


def labels_of(part: Part) -> np.ndarray:
    """Returns the examples' labels as numbers."""
    return part.features.of_sequences["labels"][:: part.features.group]


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the softmax over the last axis, float64."""
    shares = np.exp(np.asarray(logits, np.float64) - logits.max(axis=-1, keepdims=True))
    return shares / shares.sum(axis=-1, keepdims=True)
