"""The `bert-jax` command: predictions in a shell pipe, checkpoints inspected and converted, and the two programs.

    bert-jax classify MODEL "a wonderful film ."
    bert-jax tag MODEL --file articles.txt --json | jq .
    zcat reviews.gz | bert-jax classify MODEL | cut -f1 | sort | uniq -c
    bert-jax answer MODEL "who wrote it?" < article.txt
    bert-jax convert RUN FOLDER
    bert-jax push RUN OWNER/NAME --private
    bert-jax prepare --corpus 'texts/*.txt' --output STORE
    bert-jax pretrain --corpus STORE --output RUN
    bert-jax --version

Texts are arguments, the lines of --file, or the lines of standard input. Each gives one line of output, in order, with
tabs between its fields, or with --json a line of JSON. An invalid line ends the command with exit code 1, after the
output for the lines before it; the message gives its number.
"""

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib.metadata import version
from typing import Annotated, Any, Union

import tyro
from tyro.conf import FlagCreatePairsOff, Positional, subcommand

from bert_jax.cli import process
from bert_jax.cli.commands import Answer, Attention, Classify, Convert, Embed, FillMask, Inspect, Push, Tag
from bert_jax.cli.doctor import Doctor
from bert_jax.cli.flags import flags_in_messages, require_command, require_flags
from bert_jax.cli.preparation import Prepare

# Nothing above imports JAX, and nothing below does until there is work to do, so that --help is quick.

_MARKER = Positional[str].__metadata__[0]  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(frozen=True)
class Pretrain:
    """Pretrain a model on text files, as train.py does; see bert-jax pretrain --help."""


@dataclass(frozen=True)
class Finetune:
    """Fine-tune a model, as finetune.py does; see bert-jax finetune --help."""


COMMANDS: dict[str, type] = {
    "fill-mask": FillMask,
    "classify": Classify,
    "tag": Tag,
    "answer": Answer,
    "embed": Embed,
    "attention": Attention,
    "convert": Convert,
    "push": Push,
    "inspect": Inspect,
    "doctor": Doctor,
    "prepare": Prepare,
    "pretrain": Pretrain,
    "finetune": Finetune,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command and returns its exit code: see `process.run`; 2 if the command line cannot be read."""
    arguments = sys.argv[1:] if arguments is None else arguments
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # XLA's notes on the machine are not part of the output
    name = arguments[0] if arguments else ""
    if name in process.NOT_RESUMABLE:
        return process.run(
            lambda: run_program(name, arguments[1:]),
            f"bert-jax {name}",
            not_resumable=process.NOT_RESUMABLE[name],
        )
    return process.run(lambda: run_command(arguments), "bert-jax")


def run_program(name: str, arguments: Sequence[str]) -> None:
    """Pretrains or fine-tunes."""
    from bert_jax.cli import programs

    getattr(programs, name)(arguments, prog=f"bert-jax {name}")


def run_command(arguments: Sequence[str]) -> None:
    """Runs one of the other commands."""
    if list(arguments) == ["--version"]:
        print(f"bert-jax {version('bert_jax')}")
        return
    require_command(arguments, list(COMMANDS), kind="command", prog="bert-jax")
    if arguments and arguments[0] in COMMANDS:
        kind = COMMANDS[arguments[0]]
        require_flags(arguments, _flags(kind), prog=f"bert-jax {arguments[0]}", positional=_positional(kind))
    kinds: Any = Union[tuple(Annotated[kind, subcommand(name)] for name, kind in COMMANDS.items())]  # noqa: UP007
    command = tyro.cli(
        kinds,
        args=arguments,
        prog="bert-jax",
        description=__doc__,
        config=(FlagCreatePairsOff,),
    )
    with flags_in_messages(_flags(type(command))):
        command.run()


def _flags(kind: type) -> set[str]:
    """Returns the names of a command's fields that are flags."""
    return {field.name for field in fields(kind)} - _positional(kind)


def _positional(kind: type) -> set[str]:
    """Returns the names of a command's fields that are arguments without a flag."""
    return {field.name for field in fields(kind) if _MARKER in getattr(field.type, "__metadata__", ())}


if __name__ == "__main__":
    sys.exit(main())
