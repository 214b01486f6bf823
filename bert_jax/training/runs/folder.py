"""The folder of a run: who may write to it, and the settings that it keeps.

A run is never overwritten unless `overwrite` is set. A run is resumed only with the settings that it started with,
except those that say how long it runs and how often it reports. Of files, the contents have to be the same, not the
names.
"""

import json
import os
import platform
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

from bert_jax.files import unfinished_name, write_file
from bert_jax.training.runs.checkpoints import SAVED
from bert_jax.training.runs.contents import SETTINGS, clear_run
from bert_jax.training.runs.lock import is_lock, require_free
from bert_jax.training.runs.manifests import CHECKPOINTS
from bert_jax.training.runs.metrics import METRICS, last_step
from bert_jax.training.runs.saved_steps import DAMAGED, newest_step
from bert_jax.training.settings import GroupedSettings, from_record

G = TypeVar("G", bound=GroupedSettings)
Settings = Mapping[str, Mapping[str, Any]]  # {group: {name: value}}, as JSON holds them
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
        raise ValueError(
            f"{path}: not the settings of a run (expected JSON with groups under 'settings'). If it is damaged, "
            "restore it from a copy, or choose another `output`"
        ) from None


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
    contents: Mapping[str, str],
    defaults: Settings,
) -> None:
    """Checks that a run with these settings may start or resume in `folder`; changes nothing.

    Args:
        resume: continue the run in the folder.
        begin: with `resume`, begin a run if there is none.
        overwrite: replace the run in the folder. A training run is not replaced by one that only evaluates or predicts
            (setting `do`), because that would delete a model.
        may_change: names of settings that may differ when a run is resumed.
        contents: name of a setting that names files -> name of the hash of their contents in a record. If the record of
            the run has the hash, the hash is compared, once the files have been read, and not the setting.
        defaults: default values; a run that started before a setting existed is compared with its default.

    Raises:
        FileNotFoundError: `resume` without `begin`, and there is no run.
        FileExistsError: the folder holds a run and neither `resume` nor `overwrite` is set, a training run that would
            be lost, or something that is not a run; or the checkpoints of the run to resume are missing.
        RunInUse: the same, and another process writes to the run.
        PermissionError: the folder cannot be written.
        ValueError: the run has a checkpoint and started with another value of a setting.
    """
    folder = Path(folder)
    before = recorded_settings(folder)
    existing = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not os.access(existing, os.W_OK):
        raise PermissionError(f"{existing} cannot be written: choose another `output`")
    if before is None:
        if folder.exists() and (not folder.is_dir() or any(map(_is_foreign, os.listdir(folder)))):
            raise FileExistsError(f"{folder} exists and holds no run (no {SETTINGS}): choose another `output`")
        # A run that was killed while its training.json was written is a run that is being begun.
        if resume and not begin and not (folder / unfinished_name(SETTINGS)).exists():
            raise FileNotFoundError(f"no run in {folder} to resume: check `output`, or add `begin` to begin one there")
        return
    if _do(before) == "train" and _do(settings) != "train":
        raise FileExistsError(
            f"{folder} holds a training run, which `do={_do(settings)}` would replace: choose another `output`"
        )
    if resume and newest_step(folder / CHECKPOINTS) is not None:
        for name, old, new in _differences(before, settings, contents, defaults):
            if name not in may_change:
                raise ValueError(
                    f"cannot resume the run in {folder}: it began with {name} {old!r}, now {name} is {new!r}"
                )
    elif resume:
        _require_no_checkpoint(folder)
    elif not overwrite:
        require_free(folder)  # such a run is to be waited for, neither resumed nor replaced
        ways = "continue it (`resume=True`), replace it (`overwrite=True`) or choose another `output`"
        raise FileExistsError(f"{folder} holds a run already: {ways}")


def begin_run(folder: str | Path, settings: Settings, *, resume: bool, overwrite: bool, **options: Any) -> Path:
    """Makes the folder, empty unless a run is resumed, and writes settings and versions to training.json.

    Arguments and errors are those of `check_run`, which is called again: hours may have passed since, reading text.
    """
    folder = Path(folder)
    check_run(folder, settings, resume=resume, overwrite=overwrite, **options)
    if overwrite and not resume and folder.exists():
        clear_run(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_file(folder / SETTINGS, json.dumps({"settings": settings, "versions": package_versions()}, indent=2) + "\n")
    return folder


def _is_foreign(name: str) -> bool:
    """Returns whether a file in a folder without a run is of someone else, and not of a run that is being begun."""
    return name != unfinished_name(SETTINGS) and not is_lock(name)


def _require_no_checkpoint(folder: Path) -> None:
    """Raises FileNotFoundError if a run without checkpoints had some; otherwise it may start again at step 0."""
    checkpoints = folder / CHECKPOINTS
    step = last_step(folder / METRICS)
    if (folder / SAVED).exists() or (step and not checkpoints.is_dir()):
        why = "the damaged ones are moved away" if (folder / DAMAGED).is_dir() else "is its disk mounted?"
        raise FileNotFoundError(
            f"{checkpoints} has no checkpoint, but the run is at step {step:,} ({why}): restore it, or replace the run "
            "(`overwrite=True`)"
        )


def _do(settings: Settings) -> str:
    """Returns `train`, `evaluate` or `predict`; settings of pretraining have no `do`, and train."""
    return next((group["do"] for group in settings.values() if "do" in group), "train")


def _differences(
    before: Settings, now: Settings, contents: Mapping[str, str], defaults: Settings
) -> Iterator[tuple[str, Any, Any]]:
    """Yields (name, value before, value now) of each setting that differs.

    A setting is found by its name, which is unique: older versions kept some of them in another group. A setting
    without a default that the record does not have, such as a hash that an older version did not compute, is the same.
    """
    recorded = {name: value for group in before.values() for name, value in group.items()}
    old_values = {name: value for group in defaults.values() for name, value in group.items()} | recorded
    for values in now.values():
        for name, value in values.items():
            if contents.get(name) in recorded:
                continue
            if name in old_values and old_values[name] != value:
                yield name, old_values[name], value


def package_versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that decide what a run computes."""
    return {"python": platform.python_version(), **{name: version(name) for name in RECORDED}}
