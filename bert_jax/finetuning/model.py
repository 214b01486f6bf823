"""The model that fine-tuning starts from, what updates it, and the best one that it leaves."""

import json
import shutil
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bert_jax.config import BertConfig
from bert_jax.finetuning.settings import Settings, Training
from bert_jax.functional import lora
from bert_jax.interop import huggingface
from bert_jax.interop.heads import TRUNK, architecture, init_parts
from bert_jax.interop.loading import LoadedBert, load, locate, read_vocabulary
from bert_jax.models import Bert
from bert_jax.tasks import Task
from bert_jax.tasks.question_answering import NULL_THRESHOLD
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import seeds
from bert_jax.training.optimizers import Depth, make_optimizer, make_schedule
from bert_jax.training.runs.folder import write_whole
from bert_jax.training.runs.metrics import read_metrics

ATTENTION = "attention_probs_dropout_prob"
STEPS = "best.json"  # {seed: the step of the model that is kept of it}
DROPOUTS = ("hidden_dropout_prob", "classifier_dropout", ATTENTION)


@dataclass(frozen=True)
class Source:
    """What a model's folder says before its weights are read.

    Attributes:
        named: the model that config.json names, or None.
    """

    folder: Path
    config: BertConfig
    named: str | None
    tokenizer: Tokenizer

    @classmethod
    def find(cls, name: str) -> "Source":
        """Finds the model of a name.

        Raises:
            OSError, ValueError: there is none, it is no BERT, or it has no vocabulary.
        """
        folder = locate(name)
        config, named = huggingface.read_config(folder)
        tokenizer = read_vocabulary(folder, config)
        if tokenizer is None:
            raise ValueError(f"{folder}: no vocabulary here; wanted tokenizer.json or vocab.txt")
        return cls(folder, config, named, tokenizer)

    @property
    def trained_length(self) -> int | None:
        """The tokens that the model was trained to read, where that is said and is not all that it could."""
        length = self.tokenizer.max_length
        return length if length is not None and length < self.config.max_position_embeddings else None

    def labels(self, model: type[Bert]) -> tuple[str, ...] | None:
        """Returns the names of the labels that a head of this kind was trained with, or None."""
        return self.config.label_names if self.named == architecture(model) else None

    def has_head(self, task: Task) -> bool:
        """Says whether the model was made for this very task, so that its head can be kept."""
        config, changes = self.config, task.changes
        same_problem = config.problem_type in (None, changes.get("problem_type"))
        same_labels = config.label_names == changes.get("label_names") and config.num_labels == changes.get(
            "num_labels", config.num_labels
        )
        return self.named == architecture(task.model) and (not changes or (same_problem and same_labels))

    def load(self, task: Task, *, trained: bool = False, **changes: Any) -> LoadedBert:
        """Reads the weights, float32, with the head that the task needs: a new one where there is not the very same.

        Args:
            trained: whether it must have been trained already.
            **changes: to the config, beside those of the task.

        Raises:
            ValueError: it lacks a head and must have one; its files are broken.
        """
        new_head = not trained and not self.has_head(task)
        changes = task.changes | changes
        bert = load(self.folder, head=architecture(task.model), new_head=new_head, dtype="float32", **changes)
        if trained and bert.new_parts:
            raise ValueError(f"{self.folder} has no {', '.join(sorted(bert.new_parts))}: it is to be trained first")
        return bert


def dropouts(training: Training) -> dict[str, float]:
    """Returns the rates of dropout that are not as the model has them, by their names in its config."""
    rates = dict.fromkeys(DROPOUTS, training.dropout)
    if training.attention_probs_dropout_prob is not None:
        rates[ATTENTION] = training.attention_probs_dropout_prob
    return {name: rate for name, rate in rates.items() if rate is not None}


@dataclass(frozen=True)
class Start:
    """Where training starts.

    Attributes:
        model: the module.
        params: what learns, each leaf with an axis of the K seeds in front; on the host, where what the seeds have in
            common is there once.
        frozen: what does not learn, without.
    """

    model: Bert
    params: dict[str, Any]
    frozen: dict[str, Any]

    @property
    def learning(self) -> set[str]:
        """The parts of the tree that have an axis of the seeds."""
        return set(self.params)

    @property
    def seeds(self) -> int:
        """K."""
        return jax.tree.leaves(self.params)[0].shape[0]

    def as_shapes(self) -> "Start":
        """Returns the same with shapes in the place of arrays."""
        params, frozen = jax.eval_shape(lambda *given: given, self.params, self.frozen)
        return replace(self, params=params, frozen=frozen)


def make_start(settings: Settings, bert: LoadedBert) -> Start:
    """Returns a model to train, with what is new in it drawn for each seed."""
    training = settings.training
    config = replace(bert.config, dtype=training.dtype, lora_rank=training.lora_rank, lora_alpha=training.lora_alpha)
    model = type(bert.model)(config, remat=training.remat, frozen=training.freeze)
    new = set(bert.params) if settings.run.from_scratch else set(bert.new_parts)
    new |= {"adapters"} if training.lora_rank else set()
    print(f"{settings.run.model}: {bert!r}; newly initialised: {', '.join(sorted(new)) or 'nothing'}")
    learning = (set(bert.params) | new) - still(settings, config)
    drawn = jax.device_get([init_parts(config, new, "float32", seed) for seed in seeds_of(settings)])
    params = {part: jax.tree.map(lambda *leaves: np.stack(leaves), *(one[part] for one in drawn)) for part in new}
    for part, leaves in jax.device_get({name: bert.params[name] for name in learning - new}).items():
        params[part] = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (len(drawn), *leaf.shape)), leaves)
    frozen = {part: bert.params[part] for part in sorted(set(bert.params) - learning)}
    return Start(model, {part: params[part] for part in sorted(learning)}, frozen)


def still(settings: Settings, config: BertConfig) -> set[str]:
    """Returns the parts of the tree of which nothing learns."""
    freeze = settings.training.freeze
    if config.lora_rank or freeze == config.num_hidden_layers:
        return set(TRUNK)
    return set() if freeze is None else {"embeddings"}


def seeds_of(settings: Settings) -> tuple[int, ...]:
    """Returns the seeds that are trained together."""
    return tuple(range(settings.run.seed, settings.run.seed + settings.run.seeds))


def optimizer_of(settings: Settings, steps: int, num_layers: int) -> tuple[Any, Any]:
    """Returns the optimizer and its schedule."""
    training = settings.training
    schedule = make_schedule(
        training.schedule,
        peak=training.learning_rate,
        warmup_steps=round(training.warmup_share * steps),
        decay_steps=steps,
    )
    optimizer = make_optimizer(
        training.optimizer,
        schedule,
        weight_decay=training.weight_decay,
        clip_norm=training.clip_norm or None,
        depth=Depth(num_layers, training.layer_decay, training.freeze),
    )
    return optimizer, schedule


def save(
    folder: Path, model: Bert, params: dict[str, Any], tokenizer: Tokenizer, *, null_threshold: float | None = None
) -> None:
    """Writes a model of one seed in Hugging Face's layout, adapters merged into the kernels."""
    config = model.config
    if config.lora_rank:
        scale = config.lora_alpha / config.lora_rank
        merged = lora.merge(params["encoder"], params["adapters"]["encoder"], scale=scale)
        params = {name: part for name, part in params.items() if name != "adapters"} | {"encoder": merged}
    plain = type(model)(replace(config, lora_rank=0, dtype="float32", null_threshold=null_threshold))
    folder.mkdir(parents=True, exist_ok=True)
    huggingface.write_model(folder, plain, params)
    tokenizer.save(folder)


class Best:
    """Keeps each seed's best model, and at the end the best of all in the run's folder.

    What was found is remembered in the checkpoints. A run that was killed between a model and its checkpoint has a
    model that the checkpoint before knows nothing of; best.json tells, and the next evaluation replaces that model.

    Args:
        metric: of a row of evaluation; the higher the better.

    Attributes:
        selection: what is the best, and whether a better one is still waited for.
    """

    def __init__(self, run: Path, settings: Settings, model: Bert, tokenizer: Tokenizer, *, metric: str) -> None:
        self.run, self.seeds, self.model = run, seeds_of(settings), model
        self.tokenizer = Tokenizer(tokenizer.backend, getattr(settings.data, "max_length", None))
        self.selection = seeds.Selection(metric, len(self.seeds), patience=settings.training.patience)

    def folder(self, place: int) -> Path:
        """Returns where a seed's best model is."""
        return self.run if len(self.seeds) == 1 else self.run / "seeds" / str(self.seeds[place])

    def memory(self) -> dict[str, list[Any]]:
        """Returns what was found so far, as JSON holds it."""
        selection = self.selection
        best = [value if np.isfinite(value) else None for value in selection.best.tolist()]
        return {"best": best, "step": selection.step.tolist(), "waited": selection.waited.tolist()}

    def recall(self, memory: Mapping[str, list[Any]]) -> None:
        """Takes in what a run that goes on had found by its checkpoint, but for models that were replaced after it."""
        selection = self.selection
        selection.step, selection.waited = np.array(memory["step"]), np.array(memory["waited"])
        there = json.loads((self.run / STEPS).read_text()) if (self.run / STEPS).exists() else {}
        is_there = np.array([there.get(str(seed), 0) for seed in self.seeds]) == selection.step
        best = [-np.inf if value is None else value for value in memory["best"]]
        selection.best = np.where(is_there, best, -np.inf)

    def take(self, step: int, row: dict[str, np.ndarray], params: Any, learning: Collection[str]) -> None:
        """Saves the models of the seeds for which an evaluation is the best so far."""
        thresholds = row.get(f"eval_{NULL_THRESHOLD}")
        better = np.flatnonzero(self.selection.improved(step, row)).tolist()
        if better:  # before the models, so that no model is there of which it does not tell
            steps = dict(zip(map(str, self.seeds), self.selection.step.tolist(), strict=True))
            write_whole(self.run / STEPS, json.dumps(steps) + "\n")
        for place in better:
            found = {} if thresholds is None else {NULL_THRESHOLD: float(thresholds[place])}
            save(self.folder(place), self.model, seeds.of_seed(params, learning, place), self.tokenizer, **found)

    def keep(self) -> None:
        """Copies the best seed's model into the run's folder."""
        folder = self.folder(int(self.selection.best.argmax()))
        if folder != self.run:
            shutil.copytree(folder, self.run, dirs_exist_ok=True)


def evaluations(run: Path, all_seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Returns the evaluations of a run, figures as arrays [K]."""
    found: dict[int, list[dict[str, Any]]] = {}
    for row in read_metrics(run / "metrics.jsonl"):
        if any(name.startswith("eval_") for name in row):
            found.setdefault(row["step"], []).append(row)
    return [
        {"step": step} | {name: np.array([row[name] for row in rows]) for name in rows[0] if name.startswith("eval_")}
        for step, rows in sorted(found.items())
        if len(rows) == len(all_seeds)
    ]
