"""The model that is fine-tuned: its config and initial parameters, its optimizer, and the best model of each seed."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from bert_jax.config import BertConfig
from bert_jax.files import write_file
from bert_jax.finetuning.settings import Settings, Training
from bert_jax.functional import lora
from bert_jax.interop import huggingface
from bert_jax.interop.formats.weights import read_json
from bert_jax.interop.heads import TRUNK, init_parts
from bert_jax.interop.loading import LoadedBert
from bert_jax.interop.names import flatten
from bert_jax.models import Bert
from bert_jax.tasks.base import Task
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training.devices.processes import addressable, is_first
from bert_jax.training.optimizers import Depth, Schedule, make_optimizer, make_schedule
from bert_jax.training.runs.metrics import read_evaluations
from bert_jax.training.seeds import SeedEnsemble, Selection

ATTENTION = "attention_probs_dropout_prob"
DROPOUTS = ("hidden_dropout_prob", "classifier_dropout", "span_dropout", "mlp_dropout", ATTENTION)
BEST_STEPS = "best.json"  # {seed: the step of its saved model}


def dropout_rates(training: Training, config: BertConfig) -> dict[str, float]:
    """Returns the dropout rates that differ from the model's, by their names in its config."""
    names = [name for name in DROPOUTS if name not in config.family.unused_fields]
    rates = dict.fromkeys(names, training.dropout)
    if training.attention_probs_dropout_prob is not None:
        rates[ATTENTION] = training.attention_probs_dropout_prob
    return {name: rate for name, rate in rates.items() if rate is not None}


def training_config(training: Training, config: BertConfig) -> BertConfig:
    """Returns a loaded model's config as it is trained."""
    return replace(config, dtype=training.dtype, lora_rank=training.lora_rank, lora_alpha=training.lora_alpha)


def new_parts(settings: Settings, bert: LoadedBert) -> set[str]:
    """Returns the parts of the parameter tree that are newly initialized."""
    new = set(bert.params if settings.run.from_scratch else bert.new_parts)
    return new | {"adapters"} if settings.training.lora_rank else new


def _frozen_parts(training: Training, config: BertConfig) -> set[str]:
    """Returns the parts of the parameter tree in which no parameter is trained.

    With `freeze` below the number of layers the encoder is trained in part: the optimizer masks the lower layers.
    """
    if training.lora_rank or training.freeze == config.num_hidden_layers:
        return set(TRUNK)
    return set() if training.freeze is None else {"embeddings"}


def fingerprint(bert: LoadedBert) -> str:
    """Returns a hash of the parameters that were loaded, not of newly initialized ones."""
    digest = hashlib.sha256()
    for part in sorted(set(bert.params) - bert.new_parts):
        for path, leaf in flatten(bert.params[part], part):
            digest.update(path.encode())
            digest.update(np.ascontiguousarray(jax.device_get(leaf)).data)
    return digest.hexdigest()[:16]


def make_ensemble(settings: Settings, bert: LoadedBert) -> SeedEnsemble:
    """Returns the seeds, and which parts of the parameter tree they train."""
    parts = set(bert.params) | new_parts(settings, bert)
    return SeedEnsemble(settings.run.all_seeds, frozenset(parts - _frozen_parts(settings.training, bert.config)))


def initial_parameters(
    settings: Settings, bert: LoadedBert, ensemble: SeedEnsemble
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the parameters to train, leaves [K, ...] on the host, and the frozen ones, without K.

    Each seed draws its own new parts. Loaded parts are the same for all seeds: the host holds them once, as a
    broadcast view. Example: K = 2 and a loaded kernel [D, F] give a view [2, D, F] with the stride 0 along K.
    """
    config = training_config(settings.training, bert.config)
    new = new_parts(settings, bert)
    drawn = jax.device_get([init_parts(config, new, "float32", seed) for seed in ensemble.seeds])
    params = {part: jax.tree.map(lambda *leaves: np.stack(leaves), *(one[part] for one in drawn)) for part in new}
    loaded = jax.device_get({name: bert.params[name] for name in ensemble.trained - new})
    for part, leaves in loaded.items():
        params[part] = jax.tree.map(lambda leaf: np.broadcast_to(leaf, (len(ensemble), *leaf.shape)), leaves)
    frozen = {part: bert.params[part] for part in sorted(set(bert.params) - ensemble.trained)}
    return {part: params[part] for part in sorted(ensemble.trained)}, frozen


def optimizer_and_schedule(
    settings: Settings, steps: int, num_layers: int
) -> tuple[optax.GradientTransformation, Schedule]:
    """Returns the optimizer and its learning rate schedule."""
    training = settings.training
    schedule = make_schedule(
        settings.optimizer.schedule,
        peak=settings.optimizer.learning_rate,
        warmup_steps=round(training.warmup_share * steps),
        decay_steps=steps,
        decay_share=settings.optimizer.decay_share,
    )
    optimizer = make_optimizer(
        settings.optimizer.optimizer,
        schedule,
        weight_decay=settings.optimizer.weight_decay,
        clip_norm=settings.optimizer.clip_norm or None,
        depth=Depth(num_layers, training.layer_decay, training.freeze),
    )
    return optimizer, schedule


def save_model(folder: Path, model: Bert, params: dict[str, Any], tokenizer: Tokenizer, **changes: Any) -> None:
    """Writes the model of one seed in Hugging Face's layout, with adapters merged into the kernels.

    Args:
        **changes: to the config, such as `null_threshold`.
    """
    config = model.config
    if config.lora_rank:
        scale = config.lora_alpha / config.lora_rank
        merged = lora.merge(params["encoder"], params["adapters"]["encoder"], scale=scale)
        params = {name: part for name, part in params.items() if name != "adapters"} | {"encoder": merged}
    saved = type(model)(replace(config, **{"lora_rank": 0, "dtype": "float32", "null_threshold": None, **changes}))
    folder.mkdir(parents=True, exist_ok=True)
    huggingface.write_model(folder, saved, params)
    tokenizer.save(folder)


class BestModel:
    """Saves the best model of each seed, and at the end exports the best of all to the run's folder.

    A resumed run reads from metrics.jsonl what was best at its checkpoint. A run that is killed after it saved a model
    and before the next checkpoint leaves a model of a later step. `best.json` holds the steps of the saved models, so
    that the resumed run notices, and its next evaluation replaces that model.

    Args:
        run: the run's folder.
        model: the module that is trained.

    Attributes:
        selection: the best evaluation of each seed, and whether a better one is still awaited.
    """

    def __init__(
        self, run: Path, settings: Settings, model: Bert, tokenizer: Tokenizer, task: Task, ensemble: SeedEnsemble
    ) -> None:
        self.run = run
        self.model = model
        self.task = task
        self.ensemble = ensemble
        self.seeds = ensemble.seeds
        self.tokenizer = tokenizer.with_settings(max_length=settings.data.max_length)
        self.selection = Selection(f"eval_{task.metric}", len(self.seeds), patience=settings.training.patience)

    def folder(self, index: int) -> Path:
        """Returns the folder of a seed's best model."""
        return self.run if len(self.seeds) == 1 else self.run / "seeds" / str(self.seeds[index])

    def resume(self, last_step: int) -> None:
        """Restores what was best at a checkpoint of `last_step` from the evaluations in metrics.jsonl.

        A seed whose saved model is from a later step than the checkpoint has no best any more. Example: metrics.jsonl
        says step 4, best.json says step 6; the model of step 4 is overwritten, so the next evaluation is the best.
        """
        for row in read_evaluations(self.run / "metrics.jsonl", self.seeds):
            if row["step"] <= last_step:
                self.selection.improved(row["step"], row)
        steps = self._saved_steps()
        is_saved = steps == self.selection.step
        for index in np.flatnonzero(~is_saved):
            best = f"seed {self.seeds[index]}: the best evaluation is of step {self.selection.step[index]}"
            print(f"{best}, but {BEST_STEPS} names step {steps[index]}: the next evaluation replaces the saved model")
        self.selection.best = np.where(is_saved, self.selection.best, -np.inf)

    def _saved_steps(self) -> np.ndarray:
        """Returns the step of each seed's saved model, int [K]; 0 if none is saved.

        Raises:
            ValueError: best.json is damaged.
        """
        path = self.run / BEST_STEPS
        if not path.exists():
            return np.zeros(len(self.seeds), int)
        try:
            saved = read_json(path)
            return np.array([int(saved.get(str(seed), 0)) for seed in self.seeds])
        except (ValueError, TypeError):
            remedy = "delete it: the next evaluation then replaces the saved models"
            raise ValueError(f"{path}: damaged, expected a step for each seed; {remedy}") from None

    def update(self, step: int, row: Mapping[str, np.ndarray], params: Mapping[str, Any]) -> None:
        """Saves the models of the seeds for which an evaluation is the best so far.

        Args:
            row: the metrics of the evaluation, [K] each.
            params: the parameter tree of the ensemble.
        """
        better = np.flatnonzero(self.selection.improved(step, row)).tolist()
        if better and is_first():  # before the models, so that a saved model is never newer than what is recorded
            steps = dict(zip(map(str, self.seeds), self.selection.step.tolist(), strict=True))
            write_file(self.run / BEST_STEPS, json.dumps(steps) + "\n")
        for index in better:
            tuned = self.task.tuned_config({name: float(values[index]) for name, values in row.items()})
            params_of_seed = addressable(self.ensemble.select(params, index))
            if is_first():
                save_model(self.folder(index), self.model, params_of_seed, self.tokenizer, **tuned)

    def export(self) -> None:
        """Copies the best seed's model to the run's folder."""
        folder = self.folder(int(self.selection.best.argmax()))
        if folder != self.run and is_first():
            shutil.copytree(folder, self.run, dirs_exist_ok=True)
