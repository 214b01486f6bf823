"""Settings as flags: command lines from groups of dataclasses, and flags in the messages of the library.

The library names Python arguments in its messages, in backticks: `batch_size` must be at least 1. A program replaces
those that are settings by their flags.
"""

import argparse
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any, TypeVar

from tyro.constructors import (
    ConstructorRegistry,
    StructConstructorSpec,
    StructFieldSpec,
    StructTypeInfo,
)

Flags = Mapping[str, tuple[Any, str]]  # {name of a field: (its type on the command line, help text)}
S = TypeVar("S")


def as_flags(message: str, names: Collection[str]) -> str:
    """Returns a message with flags in place of the settings that it names.

    >>> as_flags("`batch_size=7` or `plan=True` or `packing=False`, not `lr`", ["batch_size", "plan", "packing"])
    '--batch-size 7 or --plan or --no-packing, not `lr`'
    """

    def flag(match: re.Match[str]) -> str:
        name, value = match["name"], match["value"]
        if name not in names:
            return match[0]
        dashed = name.replace("_", "-")
        if value == "False":
            return f"--no-{dashed}"
        return f"--{dashed}" if value in (None, "True") else f"--{dashed} {value}"

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


def registry_of(flags: Mapping[type, Flags]) -> ConstructorRegistry:
    """Returns what makes tyro show only some fields of the library's dataclasses, with help texts.

    tyro gets a dict of them, from which `with_fields` makes the dataclass. If tyro called its constructor, it would
    turn a ValueError about a value into an error about the syntax.
    """
    registry = ConstructorRegistry()

    @registry.struct_rule
    def rule(info: StructTypeInfo) -> StructConstructorSpec | None:
        if info.type not in flags:
            return None
        default = info.default if isinstance(info.default, info.type) else info.type()
        shown = flags[info.type].items()
        specs = [StructFieldSpec(name, kind, getattr(default, name), helptext=text) for name, (kind, text) in shown]
        return StructConstructorSpec(instantiate=dict, fields=tuple(specs))

    return registry


def with_fields(parsed: S, default: S) -> S:
    """Returns parsed settings with dataclasses in place of dicts; fields that are not flags have their default."""
    groups: dict[str, Any] = {}
    for group in fields(parsed):  # pyright: ignore[reportArgumentType]
        values = getattr(parsed, group.name)
        if isinstance(values, dict):
            groups[group.name] = replace(getattr(default, group.name), **values)
    return replace(parsed, **groups)  # pyright: ignore[reportArgumentType]


def first_look(arguments: Sequence[str], *names: str) -> argparse.Namespace:
    """Returns --resume and some flags with a value (None: not given), which decide about the defaults of the others."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--resume", action="store_true")
    for name in names:
        parser.add_argument(f"--{name}")
    return parser.parse_known_args(arguments)[0]
