"""What fine-tuning asks of a task.

A task knows its examples, how they are encoded, what is learned of them, and what an answer is worth. It knows nothing
of steps, seeds or devices.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np

from bert_jax.data.finetuning.batches import Features
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
        labelled: whether it is known what is right.
    """

    name: str
    examples: Sequence[Any]
    features: Features
    labelled: bool = True

    @property
    def file_prefix(self) -> str:
        """What the names of files begin with."""
        return f"{self.name}_" if self.name else ""


class Task(Protocol):
    """A kind of task with its data.

    `decode` makes of logits what `score`, `predictions` and `report` go by, once for all three of them.

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

    def objective(self, model: Bert, *, learning: bool = True) -> Objective:
        """Returns what a step minimises or, where nothing is learned, what is measured: no label is smoothed then."""
        ...

    def decode(self, part: Part, answers: Answers) -> Any:
        """Returns what the model's answers to a part say."""
        ...

    def score(self, part: Part, found: Any) -> dict[str, float]:
        """Returns the scores of a part whose labels are known; `collapsed` is 1 where everything gets one answer."""
        ...

    def predictions(self, part: Part, found: Any) -> Iterator[dict[str, Any]]:
        """Yields what is predicted for each example, in their order, as JSON holds it."""
        ...

    def report(self, folder: Path, part: Part, found: Any) -> list[str]:
        """Leaves pictures, tables and files of the task's own in a folder; returns what to say of them, by line.

        Where labels are not known, nothing is said of mistakes.
        """
        ...


def labels_of(part: Part) -> np.ndarray:
    """Returns the examples' labels as numbers."""
    return part.features.of_sequences["labels"][:: part.features.group]
