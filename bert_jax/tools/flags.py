"""What the command lines have in common: settings as a record and back, and refusals that name the flag.

Settings are a frozen dataclass whose fields are groups, frozen dataclasses themselves; the name of a group's field is
its flag.
"""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import Any, TypeVar, get_type_hints

CACHE_DIR = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "bert_jax")
Record = dict[str, dict[str, Any]]
S = TypeVar("S")


def as_record(settings: Any) -> Record:
    """Returns settings as training.json holds them: {group: {name: value}}, tuples as lists.

    How processes find one another is no matter of the run, which may go on elsewhere.
    """
    record = json.loads(json.dumps(asdict(settings)))
    record.pop("processes", None)
    return record


def from_record(kind: type[S], recorded: Mapping[str, Mapping[str, Any]]) -> S:
    """Returns the settings of a `kind` that a run's training.json holds; what it does not name has its default."""
    groups = {}
    for name, group in get_type_hints(kind).items():
        values = recorded.get(name, {})
        known = {field.name: values[field.name] for field in fields(group) if field.name in values}
        groups[name] = group(**{key: tuple(x) if isinstance(x, list) else x for key, x in known.items()})
    return kind(**groups)


def flag(name: str) -> str:
    """Returns the flag of a field: `batch_size` -> `--batch-size`."""
    return f"--{name.replace('_', '-')}"


def require_at_least(least: float, group: Any, *names: str) -> None:
    """Raises ValueError where one of the fields of a group is below `least`, or not finite; None passes."""
    for name in names:
        value = getattr(group, name)
        if value is not None and not least <= value < math.inf:
            raise ValueError(f"{flag(name)} must be at least {least}, got {value}")


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
