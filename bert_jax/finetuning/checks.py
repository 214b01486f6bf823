"""What fine-tuning refuses before any work: flags that say too much, too little or the impossible, and models that do
not fit them.
"""

import math
from collections.abc import Iterable
from dataclasses import MISSING, fields
from pathlib import Path

from bert_jax.config import BertConfig
from bert_jax.data.readers.glue import glue_task
from bert_jax.finetuning.settings import Run, Settings, Squad, Tagged, Texts, Training
from bert_jax.interop.heads import architecture
from bert_jax.models import Bert
from bert_jax.tasks import Part
from bert_jax.training.settings import (
    LONGEST_ROW,
    flag,
    require_at_least,
    require_at_most,
    require_positive,
    require_share,
)

LARGEST_SEED = 2**32  # keys are made of 32 bits
SINGLE, SEVERAL = "single_label_classification", "multi_label_classification"
SWEPT = ("learning_rate", "batch_size", "epochs")
SWEEPS = ("sweep_learning_rates", "sweep_batch_sizes", "sweep_epochs")
COLUMNS = ("text_column", "pair_column", "label_column", "header", "encoding", "train_split", "dev_split")
ANSWERING = {"batch_size", "pack", "dtype", "attention", "fsdp", "tensor"}  # what of training says how answers come


def check(settings: Settings) -> None:
    """Refuses settings that cannot be.

    Raises:
        ValueError: naming the flag.
    """
    run, training, data, reports = settings.run, settings.training, settings.data, settings.reports
    require_at_least(1, run, "seeds")
    require_at_least(0, run, "seed")
    if run.seed + run.seeds > LARGEST_SEED:
        raise ValueError(f"--seed {run.seed} is too high: seeds lie below {LARGEST_SEED}")
    require_at_least(1, training, "epochs", "batch_size", "accumulate", "fsdp", "tensor")
    require_at_least(0, training, "lora_rank", "patience", "eval_every", "freeze", "weight_decay", "clip_norm")
    require_positive(training, "learning_rate", "layer_decay", "lora_alpha")
    require_share(training, "warmup_share", "dropout", "attention_probs_dropout_prob")
    require_at_least(1, reports, "log_every")
    require_at_least(0, reports, "mistakes")
    require_at_least(0, data, "max_length")
    require_at_most(LONGEST_ROW, data, "max_length")
    check_run_flags(run, training)
    if isinstance(data, Texts | Tagged):
        require_share(data, "label_smoothing")
    if isinstance(data, Tagged):
        require_at_least(0, data, "overlap")
    if isinstance(data, Squad):
        require_at_least(1, data, "stride", "max_question_length", "max_answer_length", "n_best")
        if 0 < data.max_length < data.max_question_length + 4:
            raise ValueError(
                f"--max-length {data.max_length} leaves no room for a context beside --max-question-length "
                f"{data.max_question_length} and special tokens"
            )
        if data.null_threshold is not None and not math.isfinite(data.null_threshold):
            raise ValueError(f"--null-threshold must be a finite number, got {data.null_threshold}")
    if isinstance(data, Texts) and not data.label_separator:
        raise ValueError("--label-separator must not be empty")
    check_that_all_is_read(settings)
    of_its_own = isinstance(data, Texts) and run.do != "predict" and data.train is None and data.dev is None
    if of_its_own or (isinstance(data, Texts) and data.glue):
        return
    if run.do == "train" and data.train is None:
        raise ValueError("--train: a file or a dataset to train on is needed")
    if data.dev is None:
        purpose = "predict" if run.do == "predict" else "evaluate on"
        raise ValueError(f"--dev: a file or a dataset to {purpose} is needed")


def check_run_flags(run: Run, training: Training) -> None:
    """Refuses flags of the run and of training that contradict each other."""
    if training.lora_rank and training.freeze is not None:
        raise ValueError("--lora-rank leaves everything but adapters and head as it is: --freeze says nothing more")
    if run.from_scratch and (training.lora_rank or training.freeze is not None):
        raise ValueError("--from-scratch has nothing learned: --lora-rank or --freeze would leave it so")
    if run.resume and run.overwrite:
        raise ValueError("--resume goes on with the run that --overwrite would replace: give one of them")
    if run.sweep:
        if run.resume:
            raise ValueError("--sweep trains anew: it does not go with --resume")
        require_positive(run, *SWEEPS)
        for name in SWEEPS:
            values = getattr(run, name)
            if not values or len(set(values)) < len(values):
                given = ", ".join(map(str, values)) or "none"
                raise ValueError(f"{flag(name)} wants one value or more, each once; got {given}")


def check_that_all_is_read(settings: Settings) -> None:
    """Refuses a setting that is not at its default, where nothing will read it.

    Raises:
        ValueError: naming the flag, and the one that decides that it is not read.
    """
    defaults = {name.name: name.default_factory() for name in fields(settings) if name.default_factory is not MISSING}
    defaults["run"] = Run(settings.run.model)
    for idle, group, names, why in unread(settings):
        for name in names if idle else ():
            given = getattr(getattr(settings, group), name, None)
            if given != getattr(defaults[group], name, None):
                said = f"--no-{flag(name)[2:]}" if given is False else flag(name)
                raise ValueError(f"{said} is {why}")


def unread(settings: Settings) -> list[tuple[bool, str, Iterable[str], str]]:
    """Returns when which settings of which group are not read, and what they are for instead."""
    run, training, data = settings.run, settings.training, settings.data
    told, trained = f"for training, not for --do {run.do}", run.do == "train"
    table: list[tuple[bool, str, Iterable[str], str]] = [
        (not trained, "run", ("resume", "sweep", "from_scratch", "seed", "seeds"), told),
        (not trained, "training", [one.name for one in fields(training) if one.name not in ANSWERING], told),
        (not trained, "data", ("train", "train_split", "label_smoothing", "class_weights"), told),
        (not trained, "reports", ("log_every",), told),
        (run.do == "predict", "reports", ("mistakes",), "for what is known, not for --do predict"),
        (not run.sweep, "run", SWEEPS, "for --sweep"),
        (run.sweep, "training", SWEPT, "not for --sweep, which has flags of its own"),
        (not training.lora_rank, "training", ("lora_alpha",), "for --lora-rank"),
    ]
    if isinstance(data, Texts):
        glue = data.glue is not None
        problem = glue_task(data.glue).problem_type if data.glue else data.problem_type
        reviews = not glue and data.train is None and data.dev is None
        named = ("train", "dev", *COLUMNS, "problem_type", "label_separator")
        table += [
            (glue, "data", named, "not for --glue, which names data and problem"),
            (not glue, "data", ("glue_folder",), "for --glue"),
            (reviews, "data", named, "for --train and --dev, not for the film reviews"),
            (problem != SINGLE, "data", ("label_smoothing", "class_weights"), f"for single labels, not for {problem}"),
            (trained and problem != SEVERAL, "data", ("label_separator",), f"for --problem-type {SEVERAL}"),
        ]
    return table


def check_model(settings: Settings, source: Path, config: BertConfig, named: str | None, wanted: type[Bert]) -> None:
    """Refuses a model that the settings ask too much of.

    Args:
        source: its folder.
        named: what its config.json calls it.
        wanted: the model that the task needs.

    Raises:
        ValueError: naming the flag, or what the model is.
    """
    run, training, data = settings.run, settings.training, settings.data
    output = Path(run.output).resolve()
    if output == source.resolve() or output in source.resolve().parents:
        raise ValueError(f"--output {run.output} holds the --model that is asked for: choose another folder")
    if run.do != "train" and named is not None and named != architecture(wanted):
        raise ValueError(f"{source} is a {named}; --do {run.do} needs a {architecture(wanted)}")
    longest = getattr(data, "max_length", 0)
    if longest > config.max_position_embeddings:  # sinusoids go on, but not the table that they are written as
        raise ValueError(f"--max-length {longest} is beyond the model's {config.max_position_embeddings} positions")
    if (training.freeze or 0) > config.num_hidden_layers:
        raise ValueError(f"--freeze {training.freeze}: the model has {config.num_hidden_layers} layers")
    if config.num_attention_heads % training.tensor:
        raise ValueError(f"--tensor {training.tensor} does not divide the model's {config.num_attention_heads} heads")


def check_pairs(source: Path, config: BertConfig, parts: Iterable[Part]) -> None:
    """Refuses pairs of texts beside single texts, and for a model that knows one kind of token only.

    Raises:
        ValueError: naming the model, or an example of each kind.
    """
    first: dict[bool, str] = {}
    for part in parts:
        sequences = part.features.sequences
        paired = bool((sequences.second < sequences.lengths).any())
        if paired and config.type_vocab_size < 2:
            raise ValueError(f"{source} has one token type: it cannot tell the texts of a pair apart")
        first.setdefault(paired, part.examples[0].where)
    if len(first) > 1:
        raise ValueError(f"{first[True]} is a pair of texts, {first[False]} is a single one")
