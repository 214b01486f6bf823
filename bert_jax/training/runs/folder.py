"""The folder of a run: who may write to it, and the settings that it keeps.

A run is never overwritten unless `overwrite` is set. A run is resumed only with the settings that it started with,
except those that say how long it runs and how often it reports.
"""

import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from bert_jax.training.runs.checkpoints import newest_step
from bert_jax.training.runs.manifests import CHECKPOINTS
from bert_jax.training.settings import GroupedSettings, from_record

G = TypeVar("G", bound=GroupedSettings)
Settings = Mapping[str, Mapping[str, Any]]  # {group: {name: value}}, as JSON holds them
SETTINGS = "training.json"
RECORDED = (  # packages whose versions training.json holds
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
    """Returns the settings of the run in `folder`, or None if there is no run.

    Raises:
        ValueError: training.json cannot be read.
    """
    path = Path(folder) / SETTINGS
    if not path.is_file():
        return None
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))["settings"]
        return {group: dict(values) for group, values in settings.items()}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise ValueError(f"{path}: not the settings of a run (expected JSON with groups under 'settings')") from None


def settings_to_resume(default: G, folder: str | Path) -> G:
    """Returns the settings of the run in `folder`, as settings that resume it there, or `default` if it holds none.

    A record of another task, which has other groups of settings, counts as none.

    Raises:
        ValueError: training.json cannot be read, or holds a value of the wrong type.
    """
    recorded = recorded_settings(folder)
    if recorded is None or recorded.get("task", {}).get("name") != getattr(default, "task", None):
        return default
    settings = from_record(type(default), recorded, Path(folder) / SETTINGS)
    return settings.replace(output=folder, resume=True)


def check_run(
    folder: str | Path,
    settings: Settings,
    *,
    resume: bool,
    begin: bool,
    overwrite: bool,
    may_change: tuple[str, ...],
    defaults: Settings,
) -> None:
    """Checks that a run with these settings may start or resume in `folder`; changes nothing.

    Args:
        resume: continue the run in the folder.
        begin: with `resume`, begin a run if there is none.
        overwrite: replace the run in the folder. A training run is not replaced by one that only evaluates or predicts
            (setting `do`), because that would delete a model.
        may_change: names of settings that may differ when a run is resumed.
        defaults: default values; a run that started before a setting existed is compared with its default.

    Raises:
        FileNotFoundError: `resume` without `begin`, and there is no run.
        FileExistsError: the folder holds a run and neither `resume` nor `overwrite` is set, a training run that would
            be lost, or something that is not a run.
        PermissionError: the folder cannot be written.
        ValueError: the run has a checkpoint and started with another value of a setting.
    """
    folder = Path(folder)
    before = recorded_settings(folder)
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not os.access(existing, os.W_OK):
        raise PermissionError(f"{existing} cannot be written: choose another `output`")
    if before is None:
        if folder.exists() and (not folder.is_dir() or set(os.listdir(folder)) - {_unfinished(SETTINGS)}):
            raise FileExistsError(f"{folder} exists and holds no run (no {SETTINGS}): choose another `output`")
        # A run that was killed while its training.json was written is a run that is being begun.
        if resume and not begin and not (folder / _unfinished(SETTINGS)).exists():
            raise FileNotFoundError(f"no run in {folder} to resume: check `output`, or add `begin` to begin one there")
        return
    if _do(before) == "train" and _do(settings) != "train":
        raise FileExistsError(
            f"{folder} holds a training run, which `do={_do(settings)}` would replace: choose another `output`"
        )
    if resume and newest_step(folder / CHECKPOINTS) is not None:
        for name, old, new in _differences(before, settings, defaults):
            if name not in may_change:
                raise ValueError(
                    f"cannot resume the run in {folder}: it began with {name} {old!r}, now {name} is {new!r}"
                )
    elif not resume and not overwrite:
        ways = "continue it (`resume=True`), replace it (`overwrite=True`) or choose another `output`"
        raise FileExistsError(f"{folder} holds a run already: {ways}")


def begin_run(folder: str | Path, settings: Settings, *, resume: bool, overwrite: bool, **options: Any) -> Path:
    """Makes the folder, empty unless a run is resumed, and writes settings and versions to training.json.

    Arguments and errors are those of `check_run`, which is called again: hours may have passed since, reading text.
    """
    folder = Path(folder)
    check_run(folder, settings, resume=resume, overwrite=overwrite, **options)
    if overwrite and not resume and folder.exists():
        _clear(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_whole(folder / SETTINGS, json.dumps({"settings": settings, "versions": _versions()}, indent=2) + "\n")
    return folder


def write_whole(path: Path, text: str) -> None:
    """Replaces a file by renaming a complete one, so that a killed process leaves the old file or the new one."""
    part = path.with_name(_unfinished(path.name))
    part.write_text(text, encoding="utf-8")
    part.replace(path)


def _clear(folder: Path) -> None:
    """Removes a run except training.json: if the process is killed meanwhile, the rest can still be overwritten."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != SETTINGS:
            path.unlink()


def _unfinished(name: str) -> str:
    return f".{name}.part"


def _do(settings: Settings) -> str:
    """Returns `train`, `evaluate` or `predict`; settings of pretraining have no `do`, and train."""
    return next((group["do"] for group in settings.values() if "do" in group), "train")


def _differences(before: Settings, now: Settings, defaults: Settings) -> Iterator[tuple[str, Any, Any]]:
    """Yields (name, value before, value now) of each setting that differs.

    A setting is found by its name, which is unique: older versions kept some of them in another group.
    """
    old_values = {
        name: value for groups in (defaults, before) for group in groups.values() for name, value in group.items()
    }
    for values in now.values():
        for name, value in values.items():
            old = old_values.get(name)
            if old != value:
                yield name, old, value


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), **{name: version(name) for name in RECORDED}}
