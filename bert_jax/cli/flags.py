"""Settings as flags: command lines from groups of dataclasses, and flags in the messages of the library.

The library names Python arguments in its messages, in backticks: `batch_size` must be at least 1. A program replaces
those that are settings by their flags.
"""

import argparse
import ast
import difflib
import inspect
import itertools
import re
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from functools import cache
from types import MappingProxyType
from typing import Any, TypeVar, get_type_hints

from tyro import MISSING
from tyro.constructors import (
    ConstructorRegistry,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

from bert_jax.training.settings import GroupedSettings

Flags = Mapping[str, tuple[Any, str]]  # {name of a field: (its type on the command line, help text)}
S = TypeVar("S")


def as_flags(message: str, names: Collection[str]) -> str:
    """Returns a message with flags in place of the settings that it names, and the command in place of `finetune`.

    >>> as_flags("`batch_size=7` or `plan=True` or `packing=False`, not `lr`", ["batch_size", "plan", "packing"])
    '--batch-size 7 or --plan or --no-packing, not `lr`'
    """

    def flag(match: re.Match[str]) -> str:
        name = match["name"]
        value = match["value"]
        if name not in names:
            return match[0]
        dashed = name.replace("_", "-")
        if value == "False":
            return f"--no-{dashed}"
        return f"--{dashed}" if value in (None, "True") else f"--{dashed} {value}"

    message = re.sub(
        r'`finetune\(make_settings\("([\w-]+)", model=...\)\)`', r"bert-jax finetune \1 --model ...", message
    )
    return re.sub(r"`(?P<name>\w+)(=(?P<value>[^`]*))?`", flag, message)


@contextmanager
def flags_in_messages(names: Collection[str]) -> Iterator[None]:
    """Puts flags into the message of an exception that leaves the block."""
    try:
        yield
    except Exception as error:
        error.args = tuple(as_flags(value, names) if isinstance(value, str) else value for value in error.args)
        raise


def setting_names(settings: Any, flags: Mapping[type, Flags] = MappingProxyType({})) -> set[str]:
    """Returns the names of the settings that are flags: of a group in `flags`, those named there; else all."""
    groups = [getattr(settings, group.name) for group in fields(settings)]
    return {name for group in groups for name in flags.get(type(group), [one.name for one in fields(group)])}


def registry_of(flags: Mapping[type, Flags] = MappingProxyType({})) -> ConstructorRegistry:
    """Returns how tyro reads groups of settings: all fields of ours, of the library's dataclasses those in `flags`.

    For the latter tyro returns a dict, from which `with_fields` makes the dataclass. If tyro called its constructor, it
    would turn a ValueError about a value into an error about the syntax.
    """
    registry = ConstructorRegistry()

    @registry.struct_rule
    def rule(info: StructTypeInfo) -> StructConstructorSpec | None:
        kind: Any = info.type
        if not (isinstance(kind, type) and is_dataclass(kind) and kind.__module__.startswith("bert_jax.")):
            return None
        if issubclass(kind, GroupedSettings):
            return None
        default = info.default if isinstance(info.default, kind) else kind
        specs = [
            StructFieldSpec(name, type_, getattr(default, name, MISSING), helptext=text)
            for name, (type_, text) in (flags.get(kind) or _documented_fields(kind)).items()
        ]
        return StructConstructorSpec(instantiate=dict if kind in flags else kind, fields=tuple(specs))

    return registry


@cache
def _documented_fields(kind: type) -> Flags:
    """Returns the type and the docstring of each field. tyro would keep the docstring's line breaks, at any width."""
    texts: dict[str, str] = {}
    for base in reversed(kind.__mro__[:-1]):
        [definition] = ast.parse(inspect.getsource(base)).body
        assert isinstance(definition, ast.ClassDef)
        for field, text in itertools.pairwise(definition.body):
            if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
                texts[ast.unparse(field.target)] = " ".join(ast.literal_eval(text.value).split())
    hints = get_type_hints(kind)
    return {field.name: (hints[field.name], texts[field.name]) for field in fields(kind)}


def with_fields(parsed: S, default: S) -> S:
    """Returns parsed settings with dataclasses in place of dicts; fields that are not flags have their default."""
    groups: dict[str, Any] = {}
    for group in fields(parsed):  # pyright: ignore[reportArgumentType]
        values = getattr(parsed, group.name)
        if isinstance(values, dict):
            groups[group.name] = replace(getattr(default, group.name), **values)
    return replace(parsed, **groups)  # pyright: ignore[reportArgumentType]


def require_command(arguments: Sequence[str], known: Sequence[str], *, kind: str, prog: str) -> None:
    """Prints one line and exits with code 2 unless the arguments begin with one of the `known` sub-commands.

    tyro would print a page about each. Its own flags and --help are left to it.

    Args:
        kind: what the sub-commands are: `command` or `task`.
    """
    first = arguments[0] if arguments else ""
    if first in known or {"-h", "--help"} & set(arguments) or first.startswith("--tyro"):
        return
    missing = not first or first.startswith("-")
    problem = f"the {kind} must come first" if missing else f"unknown {kind} {first!r:.60}"
    close = difflib.get_close_matches(first, known, n=2)
    hint = f"did you mean {' or '.join(close)}?" if close else f"choose one of {', '.join(known)}"
    print(f"{prog}: {problem}; {hint}", file=sys.stderr)
    sys.exit(2)


def require_flags(
    arguments: Sequence[str], names: Collection[str], *, prog: str, positional: Collection[str] = ()
) -> None:
    """Prints one line and exits with code 2 if a word of the arguments looks like a flag and is none.

    tyro would first complain about what is missing, or print a page. Values of flags are left to it.

    Args:
        names: of the fields that are flags.
        positional: names of the fields that are arguments without a flag.
    """
    dashed = [name.replace("_", "-") for name in names]
    known = {"help", *dashed, *(f"no-{name}" for name in dashed)}
    for word in arguments:
        flag = word.partition("=")[0].replace("_", "-")
        if word == "--":
            return
        if not flag.startswith("--") or flag.startswith("--tyro") or flag[2:] in known:
            continue
        hint = f"; see {prog} --help"
        for near in difflib.get_close_matches(flag[2:], [*known, *positional], n=1):
            given = near in positional
            hint = f"; {near.upper()} is an argument without a flag" if given else f"; did you mean --{near}?"
        print(f"{prog}: there is no flag {word.partition('=')[0]!r:.60}{hint}", file=sys.stderr)
        sys.exit(2)


def first_look(arguments: Sequence[str], *names: str) -> argparse.Namespace:
    """Returns --resume, --begin and some flags with a value (None: not given): the others' defaults depend on them."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--begin", action="store_true")
    for name in names:
        parser.add_argument(f"--{name}")
    return parser.parse_known_args(arguments)[0]


def given_names(arguments: Sequence[str]) -> set[str]:
    """Returns the names of the settings whose flags are on a command line."""
    flags = [argument.partition("=")[0] for argument in arguments if argument.startswith("--")]
    return {flag.removeprefix("--").replace("-", "_") for flag in flags}
