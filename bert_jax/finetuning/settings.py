"""The settings of fine-tuning: frozen dataclasses that are the command line of finetune.py and the record of a run.

References: Devlin et al., BERT, 2018, appendix A.3 (rates, batches, epochs).
"""

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar, Literal, Union

import tyro

from bert_jax.training.runs.folder import SETTINGS, recorded_settings
from bert_jax.training.settings import Record, as_record, from_record


@dataclass(frozen=True)
class Run:
    """The run"""

    model: str
    """What to start from: the folder of a run of train.py, one in Hugging Face's layout, or a name on its hub."""
    output: str = "runs/finetuned"
    """The run's folder, for what is evaluated or predicted too; one that holds another run is left alone."""
    do: Literal["train", "evaluate", "predict"] = "train"
    """Train on --train; or evaluate --model on --dev; or predict --dev, which needs no labels then."""
    resume: bool = False
    """Go on with the run in --output; begin it where there is none."""
    overwrite: bool = False
    """Replace the run in --output."""
    seed: int = 0
    """Decides the new head's parameters, the order of the data and dropout."""
    seeds: int = 1
    """How many seeds to train in one program, --seed and those after it; the best one is kept."""
    from_scratch: bool = False
    """Take the model's architecture and vocabulary, but new parameters: what is pretraining worth?"""
    sweep: bool = False
    """Try all of --sweep-learning-rates, --sweep-batch-sizes and --sweep-epochs, and keep the best."""
    sweep_learning_rates: tuple[float, ...] = (2e-5, 3e-5, 5e-5)
    sweep_batch_sizes: tuple[int, ...] = (16, 32)
    sweep_epochs: tuple[int, ...] = (2, 3, 4)

    @property
    def labelled(self) -> bool:
        """Whether what is known of the data held out is looked at."""
        return self.do != "predict"


@dataclass(frozen=True)
class Training:
    """Training"""

    epochs: int = 3
    batch_size: int = 32
    """Examples an update, over all devices."""
    learning_rate: float = 3e-5
    """The highest learning rate."""
    warmup_share: float = 0.1
    """The share of all steps in which the learning rate rises."""
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    optimizer: Literal["adamw", "bert_adamw", "lamb"] = "adamw"
    weight_decay: float = 0.01
    clip_norm: float = 1.0
    """The largest global norm of a gradient; 0 = any."""
    accumulate: int = 1
    """Micro-batches the batch is computed in, one after another; the gradient is the same, but each draws dropout masks
    of its own. A run that goes on may have more or fewer.
    """
    layer_decay: float = 1.0
    """What each layer multiplies the learning rate of the layer above by."""
    freeze: int | None = None
    """Leave the embeddings and so many of the lowest layers as they are (0: the embeddings alone)."""
    lora_rank: int = 0
    """Train low-rank adapters of this rank beside the encoder's kernels, and the head, instead of the whole model."""
    lora_alpha: float = 16.0
    """The adapters' scale is this over their rank."""
    dropout: float | None = None
    """Dropout in the encoder and before the head; None = as the model has it."""
    attention_probs_dropout_prob: float | None = None
    """Dropout of attention weights; None = as --dropout, or as the model has it."""
    pack: bool = True
    """Put several short examples in a row, where they do not see each other; else each has a row of its own."""
    patience: int = 0
    """Stop after so many evaluations without a better one; 0 = never."""
    eval_every: int = 0
    """Steps between evaluations; 0 = once an epoch."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """The dtype of computation; parameters are float32."""
    remat: Literal["auto", "none", "dots", "full"] = "auto"
    """What the backward pass computes again instead of keeping it in memory: nothing, all but matrix products, or whole
    layers; auto: dots on a CPU, whose memory is slower than its arithmetic, and none elsewhere.
    """
    attention: Literal["auto", "plain", "cudnn", "pallas"] = "auto"
    """How attention is computed: by plain matrix products, a kernel's name, or the first kernel that is right here.
    Kernels have no dropout of attention weights.
    """
    random_bits: Literal["hashed", "threefry2x32", "rbg"] = "hashed"
    """The generator of dropout: a hash of each element's place; JAX's own, which costs more; or the hardware's, whose
    masks depend on the number of devices and on the seeds that are trained together.
    """
    parallel: Literal["mesh", "pmap"] = "mesh"
    """How the devices share a step: mesh = data x fsdp x tensor, by jax.jit; pmap = rows alone, by jax.pmap."""
    fsdp: int = 1
    """Devices to split rows, parameters and optimizer state over; groups of so many hold copies of one another."""
    tensor: int = 1
    """Devices to split heads and inner layers over."""
    on_nan: Literal["stop", "skip"] = "stop"
    """Where a loss or a gradient is not finite: stop, all seeds; or skip that update, of that seed."""


@dataclass(frozen=True)
class Reports:
    """Reports"""

    log_every: int = 10
    """Steps between rows of metrics.jsonl."""
    mistakes: int = 20
    """How many of the most confident mistakes are listed."""
    quiet: bool = False
    """No progress bar."""


@dataclass(frozen=True)
class Files:
    """Data"""

    train: str | None = None
    """A file, or the name of a dataset on the Hugging Face hub (name:config), to train on."""
    dev: str | None = None
    """The same, to evaluate or to predict."""
    train_split: str = "train"
    """The split of a dataset on the hub to train on."""
    dev_split: str = "validation"
    encoding: str = "utf-8"
    """The encoding of files."""

    usual_length: ClassVar[int] = 128


@dataclass(frozen=True)
class Texts(Files):
    """Data: csv, tsv, jsonl, parquet, a dataset on the hub or GLUE; default: 2,000 film reviews, a fifth held out"""

    text_column: str | None = None
    """The column of the text; default: what such columns are usually called."""
    pair_column: str | None = None
    """The column of the second text of a pair."""
    label_column: str | None = None
    header: bool = True
    """Whether the first line of a csv or tsv names its columns; else they are 1, 2 and so on."""
    problem_type: Literal["single_label_classification", "multi_label_classification", "regression"] = (
        "single_label_classification"
    )
    label_separator: str = ","
    """What stands between the labels of a text that may have several."""
    class_weights: Literal["none", "balanced"] = "none"
    """balanced: examples of rare classes count for more, so that every class has the same weight."""
    label_smoothing: float = 0.0
    """The share of a label's probability that is spread over all classes."""
    glue: str | None = None
    """A task of GLUE instead of --train and --dev."""
    glue_folder: str | None = None
    """Where GLUE's own files are, as in FOLDER/MRPC/train.tsv; default: the hub."""
    max_length: int = 0
    """The most tokens of an example; what is longer is cut. 0 = 128; to evaluate and to predict, what the model was
    trained with.
    """


@dataclass(frozen=True)
class Tagged(Files):
    """Data: CoNLL, jsonl, parquet or a dataset on the hub"""

    word_column: str | None = None
    """The column of the words: a name, or in CoNLL a number from 1."""
    tag_column: str | None = None
    """The column of the tags; in CoNLL the last."""
    max_length: int = 0
    """Tokens of a window; a longer sentence is read in several. 0 = 128; to evaluate and to predict, what the model was
    trained with.
    """
    overlap: int = 32
    """Tokens that neighbouring windows share, at most half of them."""
    label_smoothing: float = 0.0
    """The share of a tag's probability that is spread over all tags."""


@dataclass(frozen=True)
class Squad(Files):
    """Data: SQuAD v1.1 or v2.0 in its own JSON, or rows of jsonl, parquet or a dataset on the hub"""

    usual_length: ClassVar[int] = 384
    max_length: int = 0
    """Tokens of a window: question and a part of the context. 0 = 384; to evaluate and to predict, what the model was
    trained with.
    """
    stride: int = 128
    """Tokens from the start of a window to that of the next."""
    max_question_length: int = 64
    """Tokens of a question; what is longer is cut."""
    max_answer_length: int = 30
    """Tokens of an answer."""
    version_2: bool = False
    """Whether there may be no answer. It is so anyway where there is a threshold, and, to train and to evaluate, where
    some question says that there is none.
    """
    n_best: int = 20
    """Answers written to nbest_predictions.json."""
    null_threshold: float | None = None
    """There is no answer where its logit is above the best answer's by more than this. Default: what scores best on
    --dev, which the model keeps; to evaluate and to predict, what it keeps. A model that keeps none is evaluated by
    what scores best, and predicts by 0.
    """


@dataclass(frozen=True)
class Choices(Files):
    """Data: csv, jsonl, parquet or a dataset on the hub in the format of SWAG"""

    text_column: str | None = None
    """The column of the text; default: what such columns are usually called."""
    lead_column: str | None = None
    """The column of what every choice begins with; default: sent2 beside sent1."""
    choice_columns: tuple[str, ...] = ()
    """The columns of the choices, or the one that holds lists of them; default: ending0, ending1 and so on."""
    label_column: str | None = None
    """The column of the right choice's number, from 0, or its letter, from A; default: label."""
    max_length: int = 0
    """The most tokens of the text with one of its choices; what is longer is cut. 0 = 128; to evaluate and to predict,
    what the model was trained with.
    """


@dataclass(frozen=True)
class Settings:
    """What all kinds of tasks have; the data are of one of four kinds"""

    run: Run
    data: Files
    training: Training
    reports: Reports = field(default_factory=Reports)


@dataclass(frozen=True)
class Classification(Settings):
    """Classes, labels that may hold together, or scores, of texts or of pairs of texts"""

    data: Texts = field(default_factory=Texts)
    training: Training = field(default_factory=Training)


@dataclass(frozen=True)
class Tokens(Settings):
    """A tag for every word: named entities, parts of speech"""

    data: Tagged = field(default_factory=Tagged)
    training: Training = field(default_factory=lambda: Training(learning_rate=5e-5))


@dataclass(frozen=True)
class QuestionAnswering(Settings):
    """Answers that are spans of a context: SQuAD v1.1 and v2.0"""

    data: Squad = field(default_factory=Squad)
    training: Training = field(default_factory=lambda: Training(epochs=2))


@dataclass(frozen=True)
class MultipleChoice(Settings):
    """The right one of several continuations: SWAG"""

    data: Choices = field(default_factory=Choices)
    training: Training = field(default_factory=lambda: Training(learning_rate=5e-5, batch_size=16))


KINDS: dict[str, type[Settings]] = {
    "classification": Classification,
    "tokens": Tokens,
    "squad": QuestionAnswering,
    "multiple-choice": MultipleChoice,
}
MAY_CHANGE_ON_RESUME = (
    "output", "resume", "overwrite", "log_every", "mistakes", "quiet", "accumulate", "remat", "attention", "parallel",
    "fsdp", "tensor", "on_nan",
)  # fmt: skip


def read_settings(arguments: Sequence[str], *, description: str) -> Settings:
    """Returns a command line's settings; a run that goes on takes those it began with as defaults."""
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--output", default="runs/finetuned")
    first.add_argument("--resume", action="store_true")
    chosen, _ = first.parse_known_args(arguments)
    recorded = recorded_settings(chosen.output) if chosen.resume else None
    commands = []
    for name, kind in KINDS.items():
        default: dict[str, Any] = {}
        if recorded is not None and recorded.get("task") == {"name": name}:
            default["default"] = from_record(kind, recorded, os.path.join(chosen.output, SETTINGS))
        summary = (kind.__doc__ or "").splitlines()[0]
        options = tyro.conf.subcommand(name, description=summary, prefix_name=False, **default)
        commands.append(Annotated[kind, options])
    kinds: Any = Union[tuple(commands)]  # noqa: UP007
    settings = tyro.cli(
        tyro.conf.OmitArgPrefixes[kinds],
        args=arguments,
        prog="finetune.py",
        description=description,
    )
    return with_length(settings, None) if settings.run.do == "train" else settings


def with_length(settings: Settings, trained: int | None) -> Settings:
    """Returns the settings with a length: the one asked for, else `trained`, else the usual one of such a task."""
    data: Any = settings.data
    return replace(settings, data=replace(data, max_length=data.max_length or trained or data.usual_length))


def record_of(settings: Settings) -> Record:
    """Returns the settings as training.json holds them, with the name of the kind of task."""
    return {
        "task": {"name": next(name for name, kind in KINDS.items() if type(settings) is kind)},
        **as_record(settings),
    }
