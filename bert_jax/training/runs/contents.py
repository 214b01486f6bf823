"""What a run writes to its folder: all that `overwrite` removes. Files of others that lie there stay.

The table must name every file that a run writes. A test compares it with what runs of each kind leave.
"""

import glob
import os
import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from bert_jax.files import unfinished_name
from bert_jax.training.runs.checkpoints import SAVED
from bert_jax.training.runs.lock import is_lock
from bert_jax.training.runs.manifests import CHECKPOINTS
from bert_jax.training.runs.metrics import DAMAGED_ROWS, METRICS
from bert_jax.training.runs.saved_steps import DAMAGED

SETTINGS = "training.json"
TRACKER = "tracker.json"  # the run of an experiment tracker
DATA = "data.json"  # what was read: counts, labels, [UNK]
FILE = "a file"
FOLDER = "a folder that is removed as a whole"
LISTED = 5  # files of others that are named on the screen
# Pattern of a name -> what it is; a mapping is a folder, and what a run writes to it.
Contents = Mapping[str, Any]

_STEPS: Contents = {r"\d+(-\d+)?": FOLDER, r".*\.orbax-checkpoint-tmp.*": FOLDER}
_MODEL: Contents = dict.fromkeys(
    (r"config\.json", r"model\.safetensors(\.part)?", r"tokenizer\.json", r"tokenizer_config\.json", r"vocab\.txt"),
    FILE,
)
_REPORTS = (
    r"predictions\.jsonl?", r"nbest_predictions\.json", r"null_odds\.json", r"confusion\.png", r"scores\.png",
    r"mistakes\.md",
)  # fmt: skip
_FILES = (
    SETTINGS, DATA, METRICS, DAMAGED_ROWS, SAVED, "best.json", "curves.png", "scores.json", "sweep.jsonl", TRACKER,
)  # fmt: skip
_TRAINING: Contents = {
    **_MODEL,
    **dict.fromkeys(map(re.escape, _FILES), FILE),
    **{rf"(mismatched_)?{name}": FILE for name in _REPORTS},  # MNLI has a second held-out split
    "tensorboard": {r"events\.out\.tfevents\..*": FILE},
    CHECKPOINTS: {**_STEPS, DAMAGED: _STEPS},
    DAMAGED: _STEPS,
    "seeds": {r"\d+": _MODEL},
    "wandb": FOLDER,
}
RUN: Contents = {**_TRAINING, "sweep": {r"[^/]*-\d+-\d+": _TRAINING}}


def clear_run(folder: Path) -> None:
    """Removes a run, except training.json: if the process is killed meanwhile, the rest can still be overwritten.

    Prints which files stay because no run writes them.
    """
    kept = [str(path.relative_to(folder)) for path in _remove(folder, RUN) if not is_lock(path.name)]
    if kept:
        more = f" and {len(kept) - LISTED:,} more" if len(kept) > LISTED else ""
        print(f"{folder}: the old run is removed; not removed, as no run writes it: {', '.join(kept[:LISTED])}{more}")


def _remove(folder: Path, contents: Contents) -> list[Path]:
    """Removes what `contents` names in a folder, except training.json; returns the other paths."""
    kept = []
    for path in sorted(folder.iterdir()):
        kind = _kind(path.name, contents)
        is_folder = path.is_dir()
        if isinstance(kind, Mapping) and is_folder:
            kept += _remove(path, kind)
            if not path.is_symlink() and not any(path.iterdir()):
                path.rmdir()
        elif kind is FOLDER and is_folder and not path.is_symlink():
            shutil.rmtree(path)
        elif kind is not None and (path.is_symlink() or (kind is FILE and not is_folder)):
            if path.name != SETTINGS:
                path.unlink()
        else:
            kept.append(path)
    return kept


def _kind(name: str, contents: Contents) -> Any:
    """Returns what a name is among the `contents`, or None; a file that is being written is a file."""
    found = [kind for pattern, kind in contents.items() if re.fullmatch(pattern, name)]
    if not found and name == unfinished_name(name[1:-5]) and _kind(name[1:-5], contents) is FILE:
        return FILE
    return found[0] if found else None


def require_outside(output: str | Path, **inputs: Iterable[str | None]) -> None:
    """Raises ValueError if an input is the folder of the run or lies in it, also by a link or a relative path.

    Args:
        output: the folder of the run.
        **inputs: by the name of the setting: files, folders and patterns of files; None and names on the hub pass.
    """
    folders = {Path(os.path.abspath(output)), Path(os.path.realpath(output))}
    for name, paths in inputs.items():
        for path in paths:
            for found in _matching(path):
                places = {Path(os.path.abspath(found)), Path(os.path.realpath(found))}
                if any(folder in (place, *place.parents) for folder in folders for place in places):
                    raise ValueError(f"`{name}`: {found} is in `output`, the folder of the run: keep it elsewhere")


def _matching(path: str | None) -> list[str]:
    """Returns a path, or the files that match a pattern; also a folder that does not exist yet."""
    if path is None:
        return []
    path = os.path.expanduser(path)
    return [path, *glob.glob(path, recursive=True)] if glob.has_magic(path) else [path]
