"""Checks before any work starts: settings that contradict each other or have no effect, and models that do not fit."""

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path

from bert_jax.finetuning.settings import Settings, make_settings
from bert_jax.messages import counted
from bert_jax.tasks.base import Split, Unused
from bert_jax.tasks.source import ModelSource
from bert_jax.training.devices.plan import check_plan
from bert_jax.training.runs.contents import require_outside
from bert_jax.training.runs.tracking import check_track
from bert_jax.training.settings import require_at_least, require_fraction, require_positive

SEED_LIMIT = 2**32  # keys are made of 32 bits
SWEPT = ("learning_rate", "batch_size", "epochs")
SWEEP_FIELDS = ("sweep_learning_rates", "sweep_batch_sizes", "sweep_epochs")
INPUT_FIELDS = ("train", "dev", "glue_folder")  # files and folders of any task
INFERENCE_FIELDS = {"batch_size", "pack", "dtype", "attention", "fsdp", "tensor"}  # also used without training


def check(settings: Settings) -> None:
    """Raises ValueError for settings that cannot work; the message names the field."""
    run = settings.run
    training = settings.training
    require_at_least(1, run, "seeds")
    require_at_least(0, run, "seed")
    if run.seed + run.seeds > SEED_LIMIT:
        raise ValueError(f"`seed={run.seed}` is too high: seeds must be below 2**32")
    require_at_least(1, training, "epochs", "batch_size")
    require_at_least(0, training, "lora_rank", "patience", "eval_every", "freeze")
    require_positive(training, "layer_decay", "lora_alpha")
    settings.optimizer.check()
    require_at_least(1, settings.devices, "accumulate", "fsdp", "tensor")
    require_fraction(training, "warmup_share", "dropout", "attention_probs_dropout_prob")
    require_at_least(1, settings.reports, "log_every")
    require_at_least(0, settings.reports, "mistakes")
    _check_combinations(settings)
    settings.processes.check()
    check_plan(run, settings.devices, settings.processes)
    check_track(settings.reports.track)
    settings.data.check(run.do)
    _check_unused(settings)
    settings.data.check_files(run.do)
    require_outside(run.output, **{name: (getattr(settings.data, name, None),) for name in INPUT_FIELDS})


def _check_combinations(settings: Settings) -> None:
    """Raises ValueError for settings that contradict each other."""
    run = settings.run
    training = settings.training
    run.check()
    optimizer = settings.optimizer
    if optimizer.schedule == "warmup-stable-decay" and training.warmup_share + optimizer.decay_share > 1:
        raise ValueError(
            f"`warmup_share={training.warmup_share}` and `decay_share={optimizer.decay_share}` are more than 1 together"
        )
    if training.lora_rank and training.freeze is not None:
        raise ValueError("`lora_rank` cannot be combined with `freeze`: it trains only the adapters and the head")
    if run.from_scratch and (training.lora_rank or training.freeze is not None):
        other = "lora_rank" if training.lora_rank else "freeze"
        raise ValueError(f"`from_scratch` cannot be combined with `{other}`: frozen weights would stay random")
    if run.sweep:
        if run.resume:
            raise ValueError("`sweep` cannot be combined with `resume`: a sweep always starts from the beginning")
        if settings.processes.distributed:
            raise ValueError("`sweep` cannot be combined with `distributed`: start a run for each combination")
        require_positive(run, *SWEEP_FIELDS)
        for name in SWEEP_FIELDS:
            values = getattr(run, name)
            if not values or len(set(values)) < len(values):
                given = ", ".join(map(str, values)) or "none"
                raise ValueError(f"`{name}` needs one or more different values, got {given}")


def _check_unused(settings: Settings) -> None:
    """Raises ValueError for a setting that is not at its default and has no effect; names it and the reason."""
    defaults = make_settings(settings.task, model=settings.run.model)
    given = {
        one.name: (getattr(getattr(settings, group.name), one.name), getattr(getattr(defaults, group.name), one.name))
        for group in fields(settings)
        for one in fields(getattr(settings, group.name))
    }
    for rule in [*_unused(settings), *settings.data.unused(settings.run.do)]:
        for name in rule.names if rule.condition else ():
            value, default = given.get(name, (None, None))  # not every task has every field
            if value != default:
                shown = f"`{name}=False`" if value is False else f"`{name}`"
                raise ValueError(f"{shown} {rule.reason}")


def _unused(settings: Settings) -> list[Unused]:
    """Returns the settings that have no effect, whatever the task."""
    run = settings.run
    groups = (settings.training, settings.optimizer, settings.devices)
    training_only = [one.name for group in groups for one in fields(group) if one.name not in INFERENCE_FIELDS]
    training_only += ["resume", "begin", "sweep", "from_scratch", "seed", "seeds", "log_every", "track", "plan"]
    training_only += ["train", "train_split", "label_smoothing", "class_weights"]
    return [
        Unused(run.do != "train", training_only, f"is only used for training, not with `do={run.do}`"),
        Unused(run.do == "predict", ["mistakes"], "is only used if labels are known, not with `do=predict`"),
        Unused(not run.sweep, SWEEP_FIELDS, "is only used with `sweep`"),
        Unused(run.sweep, ["plan"], "is for one training, not for those of `sweep`"),
        Unused(run.sweep, SWEPT, "is not used with `sweep`, which has its own values"),
        Unused(
            settings.optimizer.schedule != "warmup-stable-decay",
            ["decay_share"],
            "is only used with `schedule=warmup-stable-decay`",
        ),
        Unused(not settings.training.lora_rank, ["lora_alpha"], "is only used with `lora_rank`"),
    ]


def check_model(settings: Settings, source: ModelSource) -> None:
    """Raises ValueError for a model that does not fit the settings; names the field, or what the model is."""
    run = settings.run
    config = source.config
    output = Path(run.output).resolve()
    folder = source.folder.resolve()
    if output == folder or output in folder.parents:
        raise ValueError(f"`output={run.output}` contains the model to start from: choose another folder")
    wanted = source.architecture_of(settings.data.model)
    if run.do != "train" and source.architecture is not None and source.architecture != wanted:
        raise ValueError(f"{source.folder} is a {source.architecture}; `do={run.do}` needs a {wanted}")
    length = settings.data.max_length
    if length > config.max_length:  # sinusoidal positions too: they are saved as a table of that size
        raise ValueError(f"`max_length={length}` exceeds the model's {config.max_length} positions")
    freeze = settings.training.freeze or 0
    if freeze > config.num_hidden_layers:
        raise ValueError(f"`freeze={freeze}`: the model has {counted(config.num_hidden_layers, 'layer')}")
    tensor = settings.devices.tensor
    if config.num_attention_heads % tensor:
        raise ValueError(f"`tensor={tensor}` does not divide the model's {config.num_attention_heads} heads")


def check_pairs(source: ModelSource, splits: Iterable[Split]) -> None:
    """Raises ValueError for pairs of texts mixed with single texts, or given to a model with one token type."""
    one_type = source.config.uses_token_types and source.config.type_vocab_size < 2
    first: dict[bool, str] = {}  # whether it is a pair -> where its first example is
    for split in splits:
        sequences = split.features.sequences
        paired = bool((sequences.second < sequences.lengths).any())
        if paired and one_type:
            raise ValueError(f"{source.folder} has one token type: it cannot distinguish the two texts of a pair")
        first.setdefault(paired, split.examples[0].where)
    if len(first) > 1:
        raise ValueError(f"{first[True]} is a pair of texts, {first[False]} is a single text")
