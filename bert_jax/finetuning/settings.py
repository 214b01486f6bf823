"""The settings of fine-tuning: groups of frozen dataclasses, which a run's training.json records.

The group `data` is the task's, see `bert_jax.tasks`; the other groups are the same for all tasks.

References: Devlin et al., BERT, 2018, appendix A.3 (learning rates, batch sizes, epochs).
"""

from dataclasses import dataclass, field, fields, make_dataclass
from functools import cache, partial
from typing import Any, Literal, Self

from bert_jax.tasks import TASKS, TaskData
from bert_jax.training import settings as shared
from bert_jax.training.devices.processes import Processes
from bert_jax.training.runs.folder import settings_to_resume
from bert_jax.training.settings import Devices, GroupedSettings, Optimizer, Record, as_record


@dataclass(frozen=True)
class Run(shared.Run):
    """Run"""

    model: str = field(kw_only=True)
    """Model to start from: the folder of a pretraining run, a Hugging Face folder, or a name on the hub."""
    output: str = "runs/finetuned"
    """Folder of the run. A folder that holds another run is not changed."""
    do: Literal["train", "evaluate", "predict"] = "train"
    """Train on --train; evaluate --model on --dev; or predict --dev, which needs no labels then."""
    seed: int = 0
    """Random seed of the new head, the order of the data and dropout."""
    seeds: int = 1
    """Number of seeds to train together: --seed and the ones after it. The best one is kept."""
    from_scratch: bool = False
    """Use the model's architecture and vocabulary with random weights, to measure what pretraining is worth."""
    sweep: bool = False
    """Train every combination of --sweep-learning-rates, --sweep-batch-sizes and --sweep-epochs; keep the best."""
    sweep_learning_rates: tuple[float, ...] = (2e-5, 3e-5, 5e-5)
    """Learning rates of --sweep."""
    sweep_batch_sizes: tuple[int, ...] = (16, 32)
    """Batch sizes of --sweep."""
    sweep_epochs: tuple[int, ...] = (2, 3, 4)
    """Numbers of epochs of --sweep."""

    @property
    def all_seeds(self) -> tuple[int, ...]:
        """The seeds that are trained together."""
        return tuple(range(self.seed, self.seed + self.seeds))


@dataclass(frozen=True)
class Training:
    """Training"""

    epochs: int = 3
    """Passes over the training data."""
    batch_size: int = 32
    """Examples per update, over all devices."""
    warmup_share: float = 0.1
    """Fraction of all steps during which the learning rate rises."""
    layer_decay: float = 1.0
    """Factor of each layer's learning rate relative to the layer above it."""
    freeze: int | None = None
    """Freeze the embeddings and this many of the lowest layers (0: only the embeddings)."""
    lora_rank: int = 0
    """Train only the head and low-rank adapters (LoRA) of this rank on the encoder's kernels; 0 trains everything."""
    lora_alpha: float = 16.0
    """LoRA scale: adapters are multiplied by lora_alpha / lora_rank."""
    dropout: float | None = None
    """Dropout rate in the encoder and before the head; None keeps the model's."""
    attention_probs_dropout_prob: float | None = None
    """Dropout rate of attention weights; None = --dropout, or the model's."""
    pack: bool = True
    """Pack several short examples into a row, without attention between them; otherwise one example per row."""
    patience: int = 0
    """Stop after this many evaluations without improvement; 0 disables early stopping."""
    eval_every: int = 0
    """Steps between evaluations; 0 = once per epoch."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """dtype of computation; parameters are always float32. auto: bfloat16 on GPUs and TPUs, float32 on CPUs."""
    on_nan: Literal["stop", "skip"] = "stop"
    """On a loss or gradient that is not finite: stop all seeds, or skip that seed's update."""


@dataclass(frozen=True)
class Reports(shared.Reports):
    """Reports"""

    mistakes: int = 20
    """Number of most confident mistakes to list."""


@dataclass(frozen=True)
class Settings(GroupedSettings):
    """The settings of a run"""

    run: Run
    data: TaskData
    training: Training = field(default_factory=Training)
    optimizer: Optimizer = field(default_factory=partial(Optimizer, learning_rate=3e-5))
    devices: Devices = field(default_factory=Devices)
    reports: Reports = field(default_factory=Reports)
    processes: Processes = field(default_factory=Processes)

    @property
    def task(self) -> str:
        """The name of the task in `TASKS`."""
        return next(name for name, data in TASKS.items() if type(self.data) is data)

    def with_length(self, trained: int | None = None) -> Self:
        """Returns the settings with `max_length` set: the given, else the `trained`, else the default length."""
        return self.replace(max_length=self.data.max_length or trained or self.data.default_length)

    def as_record(self) -> Record:
        """Returns the settings as training.json holds them, with the name of the task."""
        return {"task": {"name": self.task}, **as_record(self)}


@cache
def settings_type(task: str) -> type[Settings]:
    """Returns the type of a task's settings: `Settings` with the task's data group and its training defaults.

    Raises:
        ValueError: there is no such task.
    """
    if task not in TASKS:
        raise ValueError(f"there is no task {task!r}; the tasks are {', '.join(TASKS)}")
    data = TASKS[task]
    # The groups of `Settings` with their defaults for this task; `model` has none, so `run` stays as it is.
    defaults = Settings(Run(model=""), data()).replace(**data.training_defaults)
    groups = [(one.name, getattr(defaults, one.name)) for one in fields(Settings) if one.name != "run"]
    kind = make_dataclass(
        data.__name__.replace("Data", "Settings"),
        [(name, type(group), field(default=group)) for name, group in groups],
        bases=(Settings,),
        frozen=True,
    )
    kind.__doc__ = data.summary
    return kind


def make_settings(task: str, *, model: str, **changes: Any) -> Settings:
    """Returns the settings of a task: its defaults, and some fields changed, whichever group they are in.

    Args:
        task: a name in `TASKS`: `classification`, `tokens`, `squad` or `multiple-choice`.
        model: a model's folder or its name on the hub.
        changes: with `resume=True`, they change the settings of the run in `output`, if there is one.

    Raises:
        ValueError: there is no such task, no such field, or a value has the wrong type.
    """
    kind: Any = settings_type(task)
    settings = kind(run=Run(model=""))
    if changes.get("resume"):
        settings = settings_to_resume(settings, changes.get("output", settings.run.output))
    return settings.replace(model=model, **changes)


MAY_CHANGE_ON_RESUME = (*shared.MAY_CHANGE_ON_RESUME, "mistakes")
# What the settings that name files name: the contents decide whether a run may be resumed.
CONTENTS = {
    "model": "contents of the model",
    "train": "contents of the training data",
    "train_split": "contents of the training data",
    "dev": "contents of the held-out data",
    "dev_split": "contents of the held-out data",
    "encoding": "contents of the training data",
    "glue_folder": "contents of the training data",
}
