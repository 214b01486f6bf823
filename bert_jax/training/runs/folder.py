"""The folder of a run: what it may be, the settings it keeps, and whether a run may go on in it.

A folder that holds a run is never overwritten unasked, and a run goes on only with the settings it began with, but for
those that say how long it runs and how often it reports.
"""

import json
import os
import platform
import shutil
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bert_jax.training.runs.checkpoints import CHECKPOINTS, newest_step

Settings = Mapping[str, Mapping[str, Any]]
SETTINGS = "training.json"
RECORDED = (
    "bert_jax",
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "grain",
    "tokenizers",
    "datasets",
    "numpy",
)


def recorded_settings(folder: str | Path) -> dict[str, Any] | None:
    """Returns the settings of the run in `folder`, or None where there is none."""
    path = Path(folder) / SETTINGS
    if not path.is_file():
        return None
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
        return {group: dict(values) for group, values in settings.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{path}: not a run's settings (wanted JSON with groups of them under 'settings')") from None


def check_run(
    folder: str | Path,
    settings: Settings,
    *,
    resume: bool,
    overwrite: bool,
    may_change: tuple[str, ...],
    defaults: Settings,
) -> None:
    """Says whether a run with these settings may begin, or go on, in `folder`; changes nothing.

    Args:
        settings: groups of settings, {group: {name: value}}, as JSON holds them.
        resume: a run that is there is to go on.
        overwrite: a run that is there is to be replaced.
        may_change: the names of settings in which a run may differ from how it began.
        defaults: settings as they are unasked; a run that began when one of them was not there yet began with these.

    Raises:
        FileExistsError: the folder holds a run and neither is asked for, or it holds something else.
        PermissionError: nothing can be written there.
        ValueError: the run has a checkpoint, and began with another value of some setting.
    """
    folder = Path(folder)
    before = recorded_settings(folder)
    place = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    if not os.access(place, os.W_OK):
        raise PermissionError(f"{place} cannot be written: choose another --output")
    if before is None:
        if folder.exists() and (not folder.is_dir() or set(os.listdir(folder)) - {unfinished(SETTINGS)}):
            raise FileExistsError(f"{folder} exists and holds no run, having no {SETTINGS}: choose another --output")
    elif resume and newest_step(folder / CHECKPOINTS) is not None:
        changed = difference(before, settings, may_change, defaults)
        if changed:
            name, old, new = changed
            raise ValueError(f"--resume: the run in {folder} began with {name} {old!r}, now {name} is {new!r}")
    elif not resume and not overwrite:
        ways = "go on with it (--resume), replace it (--overwrite), or choose another --output"
        raise FileExistsError(f"{folder} holds a run already: {ways}")


def begin_run(folder: str | Path, settings: Settings, *, resume: bool, overwrite: bool, **choices: Any) -> Path:
    """Makes the folder, empty unless the run in it goes on, and keeps settings and versions in training.json.

    Arguments and errors are those of `check_run`, which is asked once more: text may have been read for hours since.
    """
    folder = Path(folder)
    check_run(folder, settings, resume=resume, overwrite=overwrite, **choices)
    if overwrite and not resume and folder.exists():
        clear(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / SETTINGS, json.dumps({"settings": settings, "versions": versions()}, indent=2) + "\n")
    return folder


def clear(folder: Path) -> None:
    """Removes all of a run but training.json: whoever is killed meanwhile leaves what may still be overwritten."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != SETTINGS:
            path.unlink()


def write_whole(path: Path, text: str) -> None:
    """Replaces a file in one move, so that whoever is killed leaves the old one or the new one."""
    part = path.with_name(unfinished(path.name))
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def unfinished(name: str) -> str:
    """Returns the name of a file until it is whole."""
    return f".{name}.part"


def difference(
    before: Settings, now: Settings, may_change: tuple[str, ...], defaults: Settings
) -> tuple[str, Any, Any] | None:
    """Returns the first setting that differs, as (name, before, now), or None.

    A setting is found by its name, which is unique: older versions kept some of them in another group.
    """
    old_values = {
        name: value for groups in (defaults, before) for group in groups.values() for name, value in group.items()
    }
    for values in now.values():
        for name, value in values.items():
            old = old_values.get(name)
            if old != value and name not in may_change:
                return name, old, value
    return None


def versions() -> dict[str, str]:
    """Returns the versions a run depends on."""
    return {"python": platform.python_version(), **{name: version(name) for name in RECORDED}}
