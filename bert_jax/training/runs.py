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

from bert_jax.training.checkpoints import CHECKPOINTS, newest_step

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
    folder: str | Path, settings: Settings, *, resume: bool, overwrite: bool, may_change: tuple[str, ...]
) -> None:
    """Says whether a run with these settings may begin, or go on, in `folder`; changes nothing.

    Args:
        settings: groups of settings, {group: {name: value}}, as JSON holds them.
        resume: a run that is there is to go on.
        overwrite: a run that is there is to be replaced.
        may_change: the names of settings in which a run may differ from how it began.

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
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise FileExistsError(f"{folder} exists and holds no run, having no {SETTINGS}: choose another --output")
    elif resume and newest_step(folder / CHECKPOINTS) is not None:
        changed = difference(before, settings, may_change)
        if changed:
            name, old, new = changed
            raise ValueError(f"--resume: the run in {folder} began with {name} {old!r}, now {name} is {new!r}")
    elif not resume and not overwrite:
        ways = "go on with it (--resume), replace it (--overwrite), or choose another --output"
        raise FileExistsError(f"{folder} holds a run already: {ways}")


def begin_run(
    folder: str | Path, settings: Settings, *, resume: bool, overwrite: bool, may_change: tuple[str, ...]
) -> Path:
    """Makes the folder, empty unless the run in it goes on, and keeps settings and versions in training.json.

    Arguments and errors are those of `check_run`, which is asked once more: text may have been read for hours since.
    """
    folder = Path(folder)
    check_run(folder, settings, resume=resume, overwrite=overwrite, may_change=may_change)
    if overwrite and not resume and folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / SETTINGS, json.dumps({"settings": settings, "versions": versions()}, indent=2) + "\n")
    return folder


def write_whole(path: Path, text: str) -> None:
    """Replaces a file in one move, so that whoever is killed leaves the old one or the new one."""
    unfinished = path.with_name(f".{path.name}.part")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


def difference(before: Settings, now: Settings, may_change: tuple[str, ...]) -> tuple[str, Any, Any] | None:
    """Returns the first setting that differs, as (name, before, now), or None."""
    for group, values in now.items():
        for name, value in values.items():
            old = before.get(group, {}).get(name)
            if old != value and name not in may_change:
                return name, old, value
    return None


def versions() -> dict[str, str]:
    """Returns the versions a run depends on."""
    return {"python": platform.python_version(), **{name: version(name) for name in RECORDED}}
