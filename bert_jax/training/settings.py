"""Settings of a run: groups of frozen dataclasses that both programs share, and their record in training.json.

The settings of a program are a frozen dataclass whose fields are groups, which are frozen dataclasses too. The names of
settings are unique across groups, so a setting is found by its name alone: `settings.replace(steps=3)`. On the command
line the name is the flag, the docstring of a group its title and the docstring of a field its help text.
"""

import dataclasses
import json
import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import MISSING, asdict, dataclass, fields
from inspect import formatannotation
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints
from urllib.parse import urlsplit, urlunsplit

import numpy as np

LONGEST_ROW = 65_536  # tokens: attention alone takes 16 GiB per head there
Record = dict[str, dict[str, Any]]
S = TypeVar("S")
# Settings of the groups below in which a resumed run may differ from how it began.
MAY_CHANGE_ON_RESUME = (
    "output", "resume", "begin", "overwrite", "save_on_signal", "accumulate", "parallel", "fsdp", "tensor", "remat",
    "attention", "on_nan", "log_every", "quiet", "track", "plan", "device",
)  # fmt: skip
# How a command is called, which is no property of the run: not recorded, and ignored in records of older versions.
OF_A_CALL = ("resume", "begin", "overwrite", "plan", "device")


@dataclass(frozen=True)
class Run:
    """Run"""

    output: str = "runs/run"
    """Folder of the run. A folder that holds another run is not changed."""
    resume: bool = False
    """Resume the run in --output, with its settings."""
    begin: bool = False
    """With --resume: begin a new run if --output holds none."""
    overwrite: bool = False
    """Replace the run in --output."""
    save_on_signal: tuple[Literal["SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU"], ...] = ()
    """Signals at which the run saves and ends, besides SIGTERM and Ctrl-C: a scheduler's, or SIGHUP, which a terminal
    sends when it is closed."""
    plan: bool = False
    """Print the memory, the largest batch and the speed of the run, and stop."""
    device: str | None = None
    """With --plan: devices to compile for, which need not be there: a100, h100, h200, b200, v5e, v5p or v6e; then,
    after a colon, the number of GPUs (h100:8), of machines and GPUs (h100:2x8), or the grid of TPU chips (v5e:4x4)."""

    def check(self) -> None:
        """Raises ValueError if the settings contradict each other."""
        if self.resume and self.overwrite:
            raise ValueError("`resume` cannot be combined with `overwrite`: continue the run or replace it")
        if self.begin and not self.resume:
            raise ValueError("`begin` is only used with `resume`: without it, a run always begins")


@dataclass(frozen=True)
class Optimizer:
    """Optimizer"""

    optimizer: Literal["bert_adamw", "adamw", "lamb"] = "adamw"
    """adamw; bert_adamw: without bias correction, as in the original BERT; lamb: for large batches."""
    learning_rate: float = 1e-4
    """Peak learning rate."""
    schedule: Literal["linear", "cosine", "constant", "warmup-stable-decay"] = "linear"
    """Shape of the learning rate after warm-up. warmup-stable-decay: constant, then 1 - sqrt decay to 0 at the end."""
    decay_share: float = 0.1
    """With --schedule warmup-stable-decay: fraction of the steps, counted to the end of the decay, that decay."""
    weight_decay: float = 0.01
    """Weight decay of kernels and embeddings; biases and layer norms have none."""
    clip_norm: float = 1.0
    """Gradient clipping by global norm; 0 disables it."""

    def check(self) -> None:
        """Raises ValueError for values that no schedule or optimizer takes."""
        require_positive(self, "learning_rate", "decay_share")
        require_at_most(1, self, "decay_share")
        require_at_least(0, self, "weight_decay", "clip_norm")


@dataclass(frozen=True)
class Devices:
    """Devices and computation"""

    parallel: Literal["mesh", "pmap"] = "mesh"
    """How devices share a step: mesh = data x fsdp x tensor (jax.jit); pmap = data parallelism only (jax.pmap)."""
    fsdp: int = 1
    """Devices over which rows, parameters and optimizer state are sharded."""
    tensor: int = 1
    """Devices over which attention heads and feed-forward layers are sharded."""
    accumulate: int = 1
    """Micro-batches per update, computed one after another to save memory. The gradient is the same; dropout masks
    differ. May change on --resume."""
    remat: Literal["auto", "none", "dots", "full"] = "auto"
    """What the backward pass recomputes instead of storing: nothing, everything except matrix products (dots), or whole
    layers (full). auto: none if all layers are unrolled, else dots."""
    attention: Literal["auto", "plain", "cudnn", "pallas"] = "auto"
    """Attention implementation: plain matrix products, a kernel, or (auto) the first kernel that is correct on this
    machine. cudnn does not support dropout of attention weights or packed rows."""
    random_bits: Literal["hashed", "threefry2x32", "rbg"] = "hashed"
    """Random number generator of dropout: a hash of each element's position; JAX's default, which is slower; or the
    hardware's, whose masks depend on the number of devices and of seeds trained together."""


@dataclass(frozen=True)
class Reports:
    """Reports"""

    log_every: int = 10
    """Steps between rows of metrics.jsonl."""
    quiet: bool = False
    """Hide the progress bar."""
    track: str | None = None
    """Experiment tracker for settings, metrics and pictures, besides the run's folder: wandb, mlflow or trackio, or one
    of them with a project, as in wandb:PROJECT."""


@dataclass(frozen=True)
class GroupedSettings:
    """Base class of the settings of a program."""

    def replace(self, **changes: Any) -> Self:
        """Returns the settings with some of them changed, whichever group they are in: `replace(steps=3)`.

        Paths become strings, lists tuples, and integers floats where a float is expected.

        Raises:
            ValueError: there is no setting of that name, or the value has another type or is refused by its group.
        """
        groups = {}
        for group in fields(self):
            values = getattr(self, group.name)
            hints = get_type_hints(type(values))
            own = {
                one.name: _checked(one.name, changes.pop(one.name), hints[one.name])
                for one in fields(values)
                if one.name in changes
            }
            if own:
                groups[group.name] = dataclasses.replace(values, **own)
        if changes:
            raise ValueError(f"there is no setting `{min(changes)}`")
        return dataclasses.replace(self, **groups)


def as_record(settings: Any) -> Record:
    """Returns settings as training.json holds them: {group: {name: value}}, tuples as lists.

    How processes find one another is left out, because a run may be resumed elsewhere, and so are settings `OF_A_CALL`.
    """
    record = json.loads(json.dumps(asdict(settings)))
    record.pop("processes", None)
    return {
        group: {name: value for name, value in values.items() if name not in OF_A_CALL}
        for group, values in record.items()
    }


def map_texts(change: Callable[[str], str], value: Any) -> Any:
    """Returns a value of JSON with all its strings changed, except the names in objects."""
    if isinstance(value, Mapping):
        return {name: map_texts(change, inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [map_texts(change, inner) for inner in value]
    return change(value) if isinstance(value, str) else value


def without_secrets(text: str) -> str:
    """Returns a URL without user name, password, query and fragment; other texts as they are."""
    if "://" not in text:
        return text
    url = urlsplit(text)
    return urlunsplit(url._replace(netloc=url.netloc.rpartition("@")[2], query="", fragment=""))


def from_record(kind: type[S], recorded: Mapping[str, Mapping[str, Any]], file: str | Path) -> S:
    """Returns the settings of a `kind` that a run's training.json holds; a setting that is missing has its default.

    Settings are found by name: older versions kept some of them in another group. Those `OF_A_CALL` have their default.

    Raises:
        ValueError: a value of the wrong type, or a missing one without default; names `file` and the setting.
    """
    found = {name: (group, value) for group, values in recorded.items() for name, value in values.items()}
    groups = {}
    for name, group in get_type_hints(kind).items():
        hints = get_type_hints(group)
        values: dict[str, Any] = {}
        for field in fields(group):
            if field.name in found and field.name not in OF_A_CALL:
                group_name, value = found[field.name]
                hint = hints[field.name]
                try:
                    values[field.name] = _as_hinted(value, hint)
                except (TypeError, OverflowError):
                    wanted = formatannotation(hint)
                    raise ValueError(f"{file}: {group_name}.{field.name} must be {wanted}, got {value!r:.60}") from None
            elif field.default is MISSING and field.default_factory is MISSING:
                raise ValueError(f"{file}: {name}.{field.name} is missing")
        try:
            groups[name] = group(**values)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
    return kind(**groups)


def _checked(name: str, value: Any, hint: Any) -> Any:
    """Returns a Python value as a field with the type hint holds it, or raises ValueError."""
    try:
        return _as_hinted(value, hint)
    except (TypeError, OverflowError):
        raise ValueError(f"`{name}` must be {formatannotation(hint)}, got {value!r:.60}") from None


def _as_hinted(value: Any, hint: Any) -> Any:
    """Returns a value of JSON or of Python as a field with the type hint holds it.

    A list becomes a tuple, 1 becomes 1.0 for a float, a path becomes a string, a NumPy scalar a Python number.

    Raises:
        TypeError: the value has another type; true and false are not numbers.
        OverflowError: an integer that does not fit in 64 bits.
    """
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    elif isinstance(value, np.generic):
        value = value.item()
    kind = get_origin(hint)
    arguments = get_args(hint)
    if kind in (Union, UnionType):
        for one in arguments:
            with suppress(TypeError):
                return _as_hinted(value, one)
    elif kind is tuple and isinstance(value, list | tuple):
        return tuple(_as_hinted(one, arguments[0]) for one in value)
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
    """Returns the defaults of settings of a `kind`, as training.json would hold them, without required settings."""
    groups = {
        name: {field.name: field.default for field in fields(group) if field.default is not MISSING}
        for name, group in get_type_hints(kind).items()
    }
    return json.loads(json.dumps(groups))


def require_at_least(least: float, group: Any, *names: str) -> None:
    """Raises ValueError if a setting of a group is below `least`, or not finite; None passes."""
    for name in names:
        value = getattr(group, name)
        if value is not None and not least <= value < math.inf:
            raise ValueError(f"`{name}` must be at least {least}, got {value}")


def require_at_most(most: float, group: Any, *names: str) -> None:
    """Raises ValueError if a setting of a group is above `most`."""
    for name in names:
        if getattr(group, name) > most:
            raise ValueError(f"`{name}` must be at most {most}, got {getattr(group, name)}")


def require_positive(group: Any, *names: str) -> None:
    """Raises ValueError if a setting of a group, or one of its values, is not above 0, or not finite."""
    for name in names:
        value = getattr(group, name)
        for one in value if isinstance(value, tuple) else (value,):
            if not 0 < one < math.inf:
                raise ValueError(f"`{name}` must be above 0, got {one}")


def require_fraction(group: Any, *names: str) -> None:
    """Raises ValueError if a setting of a group is not in [0, 1); None passes."""
    for name in names:
        value = getattr(group, name)
        if value is not None and not 0 <= value < 1:
            raise ValueError(f"`{name}` must be in [0, 1), got {value}")
