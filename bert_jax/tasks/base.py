"""What a program needs from a task, and how to add one.

A task is one file of this folder, with two classes:

- the data's settings, a frozen dataclass that extends `TaskData`. Its fields are the options of the command; it checks
  them, reads and encodes the data, and returns the task;
- the task itself, a `Task`: its model and objective, and how logits are decoded, scored, written and reported.

`bert_jax.tasks.TASKS` maps the name of the command to the first. A task does not depend on steps, seeds or devices.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from bert_jax.data.finetuning.batches import Features
from bert_jax.data.finetuning.sequences import Truncation
from bert_jax.data.readers.report import ReadReport
from bert_jax.messages import counted
from bert_jax.models import Bert
from bert_jax.tasks.source import ModelSource
from bert_jax.training.objectives import Objective
from bert_jax.training.settings import LONGEST_ROW, require_at_least, require_at_most

Do = Literal["train", "evaluate", "predict"]
Logits = Mapping[str, np.ndarray]  # {"logits": [n, ...]}, per sequence or per token, in the order of the features
TRAIN = "train"  # the name of the training split
TRUNCATED = "truncated_sequences"  # keys of `Split.lost`
NEVER_SEEN = "tokens_never_seen"


@dataclass(frozen=True, eq=False)
class Split:
    """A split of the data, encoded.

    Attributes:
        name: `train`, empty for the held-out split that selects the best model, or the name of another held-out split.
        examples: as they were read.
        features: the same examples as sequences, with targets if there are labels.
        labelled: whether labels are known.
        lost: how many sequences or tokens the encoding cut or left out, as {"truncated_sequences": 3}.
    """

    name: str
    examples: Sequence[Any]
    features: Features
    labelled: bool = True
    lost: Mapping[str, int] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """The name for messages."""
        return self.name or "dev"

    @property
    def file_prefix(self) -> str:
        """The prefix of file names and metric names."""
        return f"{self.name}_" if self.name else ""

    @property
    def labels(self) -> np.ndarray:
        """The encoded labels, one per example."""
        return self.features.of_sequences["labels"][:: self.features.group]


def list_first(names: Iterable[str], most: int = 20) -> str:
    """Returns the first names for the screen, and dots if there are more."""
    names = list(names)
    return f"{', '.join(names[:most])}{', ...' if len(names) > most else ''}"


def parse_names(label_names: str | None) -> tuple[str, ...]:
    """Returns the names in the setting `label_names`, `O,B-per,I-per`; none if it is None.

    Raises:
        ValueError: one name only, an empty one, or one name twice.
    """
    if label_names is None:
        return ()
    names = tuple(name.strip() for name in label_names.split(","))
    if not all(names) or len(set(names)) < len(names) or len(names) == 1:
        raise ValueError(f"`label_names` must be different names separated by commas, got {label_names!r}")
    return names


def lost_by(cut: Truncation) -> dict[str, int]:
    """Returns the `lost` of a split whose sequences were truncated."""
    return {TRUNCATED: cut.sequences, NEVER_SEEN: cut.tokens}


class Task(ABC):
    """A task whose data has been read: it knows its labels.

    `decode` turns logits into what `compute_metrics`, `predictions` and `report` share.

    Attributes:
        model: the model class with the head of the task.
        per_token: whether the model predicts for each token, not for each sequence.
    """

    model: ClassVar[type[Bert]]
    per_token: ClassVar[bool] = False

    @property
    @abstractmethod
    def metric(self) -> str:
        """The metric that selects the best model; higher is better."""

    @property
    def config_changes(self) -> dict[str, Any]:
        """The config fields that the head needs, such as `label_names`."""
        return {}

    def tuned_config(self, metrics: Mapping[str, float]) -> dict[str, Any]:
        """Returns the config fields that an evaluation tuned, such as a threshold; `metrics` are `eval_...`."""
        return {}

    @abstractmethod
    def objective(self, model: Bert, *, training: bool = True) -> Objective:
        """Returns the objective of a step. Evaluation (`training=False`) does not smooth labels."""

    @abstractmethod
    def decode(self, split: Split, logits: Logits) -> Any:
        """Decodes the logits of a split into predictions."""

    @abstractmethod
    def compute_metrics(self, split: Split, decoded: Any) -> dict[str, float]:
        """Returns the metrics of a labelled split; `collapsed` is 1 if all predictions are the same."""

    @abstractmethod
    def predictions(self, split: Split, decoded: Any) -> Iterator[dict[str, Any]]:
        """Yields the prediction for each example as JSON, in the order of the examples."""

    @abstractmethod
    def report(self, folder: Path, split: Split, decoded: Any, *, mistakes: int) -> list[str]:
        """Writes pictures, tables and the task's own files; returns lines for the screen.

        Args:
            mistakes: the number of mistakes to list; of an unlabelled split none are.
        """


class Unused(NamedTuple):
    """Settings that have no effect under a condition, and why: `reason` completes "`name` ..."."""

    condition: bool
    names: Iterable[str]
    reason: str


@dataclass(frozen=True)
class PreparedData:
    """A task and its encoded splits; the first held-out split selects the best model.

    Attributes:
        reports: what the readers made of each source.
    """

    task: Task
    splits: list[Split]
    reports: list[ReadReport] = field(default_factory=list)

    @property
    def train(self) -> Split | None:
        """The training split; None unless a model is trained."""
        return next((split for split in self.splits if split.name == TRAIN), None)

    @property
    def held_out(self) -> list[Split]:
        """The splits to evaluate or to predict."""
        return [split for split in self.splits if split.name != TRAIN]

    @property
    def fingerprints(self) -> dict[str, str | None]:
        """A hash of the training data and one of the held-out data; None unless a model is trained."""
        if self.train is None:
            return {"training data": None, "held-out data": None}
        return {"training data": _fingerprint([self.train]), "held-out data": _fingerprint(self.held_out)}


def _fingerprint(splits: Sequence[Split]) -> str:
    """Returns a hash of the content of splits: ids, lengths and targets."""
    digest = hashlib.sha256()
    for features in (split.features for split in splits):
        targets = features.of_sequences | features.of_tokens | features.positions
        for array in (features.sequences.ids, features.sequences.offsets, *targets.values()):
            digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


@dataclass(frozen=True)
class TaskData:
    """Data"""

    # The docstring of a class is the title of its options in --help, that of a field is the option's help text. The
    # class variables are: `summary`, one line about the command; `model`, the model class that the task trains;
    # `default_length`, of `max_length`; `training_defaults`, training settings whose default differs for this task.

    train: str | None = None
    """Training data: a file, or a dataset on the Hugging Face hub (name:config)."""
    dev: str | None = None
    """Data to evaluate or to predict: a file or a dataset, like --train."""
    train_split: str = "train"
    """Split of a hub dataset to train on."""
    dev_split: str = "validation"
    """Split of a hub dataset to evaluate or to predict."""
    encoding: str = "utf-8"
    """Encoding of text files."""
    max_length: int = 0
    """Maximum number of tokens per sequence; longer texts are cut or read in windows. 0 = 128 (squad: 384) for
    training, and the length the model was trained with for evaluate and predict.
    """
    special_tokens: bool = False
    """Read [SEP], [MASK] and the other special tokens in texts as special tokens, for templates that contain them.
    Default: they are text like any other, unless the model was trained with this option.
    """

    summary: ClassVar[str]
    model: ClassVar[type[Bert]]
    default_length: ClassVar[int] = 128
    training_defaults: ClassVar[Mapping[str, Any]] = {}

    def check(self, do: Do) -> None:
        """Raises ValueError for impossible values; the message names the field."""
        require_at_least(0, self, "max_length")
        require_at_most(LONGEST_ROW, self, "max_length")

    def unused(self, do: Do) -> list[Unused]:
        """Returns the task's settings that have no effect."""
        return []

    def check_files(self, do: Do) -> None:
        """Raises ValueError if there is no data to train on, to evaluate or to predict."""
        if do == "train" and self.train is None:
            raise ValueError("`train`: a file or a dataset to train on is needed")
        if self.dev is None:
            purpose = "predict" if do == "predict" else "evaluate on"
            raise ValueError(f"`dev`: a file or a dataset to {purpose} is needed")

    @property
    def evaluates_on_training_data(self) -> bool:
        """Whether `dev` is the same file, or the same split of a hub dataset, as `train`."""
        same_split = self.train_split == self.dev_split or Path(self.train or "").is_file()
        return self.train is not None and self.train == self.dev and same_split

    def sources(self, do: Do) -> list[tuple[str, str, str]]:
        """Returns the files or datasets to read: (name of the split here, source, split of a hub dataset)."""
        dev = ("", str(self.dev), self.dev_split)
        return [(TRAIN, str(self.train), self.train_split), dev] if do == "train" else [dev]

    def prepare(self, source: ModelSource, do: Do) -> PreparedData:
        """Reads and encodes the data, and prints what was guessed, cut or left out.

        Args:
            source: the model to start from; without training, its labels are the task's.

        Raises:
            OSError, ValueError: data that is missing or wrong, with file and line.
        """
        data = self.read_and_encode(source, do)
        print("; ".join(f"{split.title}: {counted(len(split.examples), 'example')}" for split in data.splits))
        if data.train is not None and self.evaluates_on_training_data:
            print("the evaluation data is the training data: the metrics measure memorization")
        names = data.task.config_changes.get("label_names")
        if names:
            print(f"{counted(len(names), 'label')}: {list_first(names)}")
        return data

    def read_and_encode(self, source: ModelSource, do: Do) -> PreparedData:
        """Reads and encodes the data; see `prepare`."""
        raise NotImplementedError
