"""The two programs as commands: flags to settings, and the library's functions called with them.

`train.py` and `bert-jax pretrain` are one program, `finetune.py` and `bert-jax finetune` the other.
"""

import itertools
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal, Union

import jax
import tyro

from bert_jax.cli.flags import (
    Flags,
    first_look,
    flags_in_messages,
    given_names,
    registry_of,
    require_command,
    require_flags,
    setting_names,
    with_fields,
)
from bert_jax.config import BertConfig
from bert_jax.data.pretraining.loader import BatchSettings
from bert_jax.data.readers.cache import CACHE_DIR
from bert_jax.finetuning import checks as finetuning_checks
from bert_jax.finetuning import plan as finetuning_plan
from bert_jax.finetuning import program as finetuning
from bert_jax.finetuning import settings as finetuning_settings
from bert_jax.pretraining import plan as pretraining_plan
from bert_jax.pretraining import program as pretraining
from bert_jax.pretraining.checks import check
from bert_jax.pretraining.presets import initial_settings, with_implied
from bert_jax.pretraining.settings import Settings
from bert_jax.tasks import TASKS
from bert_jax.training.devices.compilation_cache import keep_compiled
from bert_jax.training.runs.folder import check_run, recorded_settings, settings_to_resume
from bert_jax.training.runs.interruption import second_interrupt_exits

PRETRAINING = """Pretrain a BERT on text files. The run's folder can be loaded with `bert_jax.load`.

{prog} -- a small BERT on film reviews, in a few minutes on two cores.

{prog} --corpus 'texts/*.txt' --preset base --output RUN -- BERT's published settings on your own text.

{prog} --model bert-base-uncased --corpus 'texts/*.txt' --output RUN -- continue from a model on your text.

{prog} --output RUN --resume --steps 200000 -- resume the run in RUN.

{prog} --preset base --plan -- memory, largest batch and speed of a run, without training.

{prog} --preset base --plan --device h100:8 -- the same for machines that you do not have.
"""
FINETUNING = """Fine-tune a BERT. The run's folder can be loaded with `bert_jax.load`.

{prog} classification --model runs/demo -- film reviews, negative or positive.

{prog} tokens --model SOURCE --train train.conll --dev dev.conll --output RUN -- named entities.

{prog} squad --model SOURCE --train train-v1.1.json --dev dev-v1.1.json --output RUN -- answers in a text.

{prog} multiple-choice --model SOURCE --train train.csv --dev val.csv --output RUN -- SWAG.

{prog} classification --model SOURCE --plan --device h100 -- memory, largest batch and speed, without training.
"""
COMPILED = os.path.join(CACHE_DIR, "compiled")
# Fields of the library's dataclasses that are flags; the other fields have no meaning for pretraining.
FLAGS: dict[type, Flags] = {
    BatchSettings: {
        "objective": (
            Literal["mlm-nsp", "mlm"],
            "What to predict: masked words and next sentences, in sentence pairs (mlm-nsp); or masked words alone, in "
            "runs of sentences of one document (mlm).",
        ),
        "seed": (int, "Random seed of the initial weights, the order of the data, the masks and dropout."),
        "max_length": (int, "Tokens per row, and the maximum length of a sequence."),
        "packing": (bool, "Pack several sequences into a row, so that little computation is spent on padding."),
        "masked_share": (float, "Fraction of the tokens to predict."),
        "max_predictions": (
            int | None,
            "Maximum number of predictions per sequence; None = as --masked-share implies.",
        ),
        "whole_word_masking": (bool, "Mask all pieces of a word together."),
        "short_probability": (
            float,
            "Fraction of the documents cut into shorter sequences, to learn short inputs too.",
        ),
    },
    BertConfig: {
        "vocab_size": (int, "Size of the vocabulary to train."),
        "num_hidden_layers": (int, "Number of encoder layers."),
        "hidden_size": (int, "Width of the hidden states."),
        "num_attention_heads": (int, "Number of attention heads; divides --hidden-size."),
        "intermediate_size": (int, "Width of the feed-forward layers."),
        "hidden_act": (
            Literal["gelu", "gelu_new", "relu", "silu", "tanh"],
            "Activation: gelu (erf), gelu_new (its tanh form), relu, silu or tanh.",
        ),
        "hidden_dropout_prob": (float, "Dropout rate of embeddings and hidden states."),
        "attention_probs_dropout_prob": (float, "Dropout rate of attention weights."),
        "max_position_embeddings": (int, "Size of the position embeddings: the longest row the model can read."),
        "position_embedding_type": (Literal["absolute", "sinusoidal"], "Learned or sinusoidal position embeddings."),
        "initializer_range": (float, "Standard deviation of the initial weights."),
        "dtype": (
            Literal["auto", "float32", "bfloat16"],
            "dtype of computation; parameters are always float32. auto: bfloat16 on GPUs and TPUs, float32 on CPUs.",
        ),
    },
}


def pretrain(arguments: Sequence[str] | None = None, *, prog: str = "train.py") -> None:
    """Parses the arguments of the pretraining command and runs it.

    Raises:
        ValueError, OSError, NotFinite, Interrupted: those of `bert_jax.pretraining.pretrain`, with flags in messages.
    """
    with flags_in_messages(setting_names(Settings(), FLAGS)), second_interrupt_exits():
        settings = parse_pretraining(sys.argv[1:] if arguments is None else arguments, prog=prog)
        check(settings)  # before the cache folder is made
        _run(settings, pretraining.pretrain, pretraining_plan.plan)


def _run(settings: Any, program: Callable[[Any], Any], plan: Callable[[Any], Iterator[str]]) -> None:
    """Runs a program, or prints its plan if the settings ask for it."""
    if settings.run.device:
        jax.config.update("jax_platforms", "cpu")  # the devices of this machine are left alone
    else:
        settings.processes.join()  # from here on only one of several processes prints
        keep_compiled(COMPILED)
    if not settings.run.plan:
        program(settings)
        return
    for line in plan(settings):
        print(line)


def parse_pretraining(arguments: Sequence[str], *, prog: str = "train.py") -> Settings:
    """Returns the settings of a command line: those of a preset, or of the run to resume, changed by the flags."""
    require_flags(arguments, setting_names(Settings(), FLAGS), prog=prog)
    arguments = _with_values(arguments)
    chosen = first_look(arguments, "preset", "output", "model")
    if {"-h", "--help"} & set(arguments):  # defaults of the preset alone: --model may be missing or broken
        chosen.model = None
    default = initial_settings(chosen.preset, model=chosen.model, output=chosen.output, resume=chosen.resume)
    parsed = tyro.cli(
        Annotated[Settings, tyro.conf.OmitArgPrefixes],
        args=arguments,
        default=default,
        prog=prog,
        description=PRETRAINING.format(prog=prog),
        registry=registry_of(FLAGS),
    )
    return with_implied(with_fields(parsed, default), given_names(arguments))


def _with_values(arguments: Sequence[str]) -> list[str]:
    """Returns the arguments with a value after --lowercase, which had none before None was one of its values."""
    found = []
    for argument, following in itertools.zip_longest(arguments, arguments[1:]):
        if argument in ("--lowercase", "--no-lowercase") and following not in ("True", "False", "None"):
            found += ["--lowercase", str(argument == "--lowercase")]
        else:
            found.append(argument)
    return found


def finetune(arguments: Sequence[str] | None = None, *, prog: str = "finetune.py") -> None:
    """Parses the arguments of the fine-tuning command and runs it.

    Raises:
        ValueError, OSError, NotFinite, Interrupted: those of `bert_jax.finetuning.finetune`, with flags in messages.
    """
    examples = [finetuning_settings.make_settings(task, model="") for task in TASKS]
    names = set().union(*(setting_names(settings) for settings in examples))
    with flags_in_messages(names), second_interrupt_exits():
        settings = parse_finetuning(sys.argv[1:] if arguments is None else arguments, prog=prog)
        finetuning_checks.check(settings)  # before the cache folder is made
        _run(settings, finetuning.finetune, finetuning_plan.plan)


def parse_finetuning(arguments: Sequence[str], *, prog: str = "finetune.py") -> finetuning_settings.Settings:
    """Returns the settings of a command line: those of a task, or of the run to resume, changed by the flags."""
    require_command(arguments, list(TASKS), kind="task", prog=prog)
    if arguments and arguments[0] in TASKS:
        names = setting_names(finetuning_settings.make_settings(arguments[0], model=""))
        require_flags(arguments, names, prog=f"{prog} {arguments[0]}")
    chosen = first_look(arguments, "output", "model")
    folder = chosen.output or finetuning_settings.Run(model="").output
    recorded = recorded_settings(folder) if chosen.resume else None
    if chosen.resume and recorded is None and chosen.model is None:  # or tyro would only say that --model is missing
        check_run(folder, {}, resume=True, begin=chosen.begin, overwrite=False, may_change=(), contents={}, defaults={})
    commands = []
    for task in TASKS:
        kind = finetuning_settings.settings_type(task)
        default: dict[str, Any] = {}
        if recorded is not None and recorded.get("task") == {"name": task}:
            default["default"] = settings_to_resume(finetuning_settings.make_settings(task, model=""), folder)
        options = tyro.conf.subcommand(task, description=kind.__doc__, prefix_name=False, **default)
        commands.append(Annotated[kind, options])
    kinds: Any = Union[tuple(commands)]  # noqa: UP007
    return tyro.cli(
        tyro.conf.OmitArgPrefixes[kinds],
        args=arguments,
        prog=prog,
        description=FINETUNING.format(prog=prog),
        registry=registry_of(),
    )
