"""What the command lines have in common: settings as a record and back, and refusals that name the flag.

Settings are a frozen dataclass whose fields are groups, frozen dataclasses themselves; the name of a group's field is
its flag.
"""

import json
import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import MISSING, asdict, fields
from inspect import formatannotation
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

CACHE_DIR = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "bert_jax")
LONGEST_ROW = 65_536  # tokens: attention alone takes 16 GiB a head there
Record = dict[str, dict[str, Any]]
S = TypeVar("S")


def as_record(settings: Any) -> Record:
    """Returns settings as training.json holds them: {group: {name: value}}, tuples as lists.

    How processes find one another is no matter of the run, which may go on elsewhere.
    """
    record = json.loads(json.dumps(asdict(settings)))
    record.pop("processes", None)
    return record


def from_record(kind: type[S], recorded: Mapping[str, Mapping[str, Any]], file: str | Path) -> S:
    """Returns the settings of a `kind` that a run's training.json holds; what it does not name has its default.

    Raises:
        ValueError: a value that its field cannot have, or lacks; naming `file` and the field.
    """
    groups = {}
    for name, group in get_type_hints(kind).items():
        values, hints, known = recorded.get(name, {}), get_type_hints(group), {}
        for field in fields(group):
            where = f"{file}: {name}.{field.name}"
            if field.name in values:
                value, hint = values[field.name], hints[field.name]
                try:
                    known[field.name] = as_hinted(value, hint)
                except (TypeError, OverflowError):
                    raise ValueError(f"{where} must be {formatannotation(hint)}, got {value!r:.60}") from None
            elif field.default is MISSING and field.default_factory is MISSING:
                raise ValueError(f"{where} is missing")
        groups[name] = group(**known)
    return kind(**groups)


def as_hinted(value: Any, hint: Any) -> Any:
    """Returns a value of JSON as a field with the type hint holds it: a list as a tuple, a whole number as a float.

    Raises:
        TypeError: it is of another type; true and false are no numbers.
        OverflowError: a number that no machine holds.
    """
    kind, arguments = get_origin(hint), get_args(hint)
    if kind in (Union, UnionType):
        for one in arguments:
            with suppress(TypeError):
                return as_hinted(value, one)
    elif kind is tuple and isinstance(value, list):
        return tuple(as_hinted(one, arguments[0]) for one in value)
    elif hint is float and type(value) is int:
        return float(value)
    elif kind is Literal and value in arguments:
        return value
    elif type(value) is hint:
        if hint is int and not -(2**63) <= value < 2**63:
            raise OverflowError
        return value
    raise TypeError


def defaults_of(kind: type) -> Record:
    """Returns what settings of a `kind` are unasked, as training.json would hold them, but for those that are asked."""
    groups = {
        name: {field.name: field.default for field in fields(group) if field.default is not MISSING}
        for name, group in get_type_hints(kind).items()
    }
    return json.loads(json.dumps(groups))


def flag(name: str) -> str:
    """Returns the flag of a field: `batch_size` -> `--batch-size`."""
    return f"--{name.replace('_', '-')}"


def require_at_least(least: float, group: Any, *names: str) -> None:
    """Raises ValueError where one of the fields of a group is below `least`, or not finite; None passes."""
    for name in names:
        value = getattr(group, name)
        if value is not None and not least <= value < math.inf:
            raise ValueError(f"{flag(name)} must be at least {least}, got {value}")


def require_at_most(most: float, group: Any, *names: str) -> None:
    """Raises ValueError where one of the fields of a group is above `most`."""
    for name in names:
        if getattr(group, name) > most:
            raise ValueError(f"{flag(name)} must be at most {most}, got {getattr(group, name)}")


def require_positive(group: Any, *names: str) -> None:
    """Raises ValueError where one of the fields of a group, or of its values, is not above 0, or not finite."""
    for name in names:
        value = getattr(group, name)
        for one in value if isinstance(value, tuple) else (value,):
            if not 0 < one < math.inf:
                raise ValueError(f"{flag(name)} must be above 0, got {one}")


def require_share(group: Any, *names: str) -> None:
    """Raises ValueError where one of the fields of a group is not in [0, 1); None passes."""
    for name in names:
        value = getattr(group, name)
        if value is not None and not 0 <= value < 1:
            raise ValueError(f"{flag(name)} must lie in [0, 1), got {value}")
