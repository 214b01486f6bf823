"""What the folder of a run says of its model, for the model card: start, data, settings, metrics.

A card is public. Local paths are cut to their last part, and user names, passwords and queries are cut out of URLs.
"""

import os
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub.utils import HFValidationError, validate_repo_id

from bert_jax.data.practice.sources import PREFIX as PRACTICE
from bert_jax.data.readers.glue import HUB as GLUE
from bert_jax.data.readers.hub import may_be_dataset
from bert_jax.interop.formats.weights import read_json
from bert_jax.training.runs.contents import DATA, SETTINGS
from bert_jax.training.runs.folder import recorded_settings
from bert_jax.training.runs.metrics import METRICS, read_evaluations
from bert_jax.training.settings import map_texts, without_secrets

SCORES = "scores.json"
REVIEWS = "IMDB film reviews"  # without a corpus
MAX_PARENTS = 10  # runs that started from one another; two of them may name each other
# Key of an evaluation, the hub's name of the metric, the name for people, and the part of the model that it is about.
PRETRAINING_METRICS = (
    ("eval_perplexity", "perplexity", "perplexity of masked words", "masked_lm"),
    ("eval_masked_lm_accuracy", "accuracy", "accuracy of masked words", "masked_lm"),
    ("eval_next_sentence_accuracy", "accuracy", "accuracy of next sentences", "next_sentence"),
)
# The hub's names of the metrics that it calls otherwise.
HUB_METRICS: dict[str, str] = {
    "matthews": "matthews_correlation", "pearson": "pearsonr", "spearman": "spearmanr", "exact": "exact_match",
}  # fmt: skip
NO_METRICS = ("collapsed", "null_threshold")  # values in scores.json that say nothing of the quality
_WINDOWS_PATH = re.compile(r"[A-Za-z]:[\\/]|\\\\")


class Metric(NamedTuple):
    """A metric on held-out data: the hub's name of its kind, the name for people, and its value."""

    kind: str
    name: str
    value: float


@dataclass(frozen=True)
class Origin:
    """Where a model was loaded from.

    Attributes:
        folder: that was read, also for a model on the hub.
        hub_name: its name on the hub; None for a folder.
        step: of the checkpoint of a run; None if the folder holds one model.
        changed: whether parameters were changed after they were loaded, so that no metrics are known.
    """

    folder: Path
    hub_name: str | None = None
    step: int | None = None
    changed: bool = False


def changed(origin: Origin | None) -> Origin | None:
    """Returns the origin of a model whose parameters are no longer those that were loaded."""
    return None if origin is None else replace(origin, changed=True)


@dataclass(frozen=True)
class RunFacts:
    """What is known of the run that trained a model.

    Attributes:
        settings: as training.json holds them, without local paths and secrets.
        versions: of packages.
        task: the name of the fine-tuning task; None for pretraining.
        base_model: name on the hub of the model that the run, or the runs before it, started from.
        datasets: names on the hub.
        data: the names of what it was trained on, for people.
        held_out: the name of what the metrics were measured on.
        sizes: of the data: {"documents": 300, "tokens": 70000}, {"examples": 200}.
        metrics: on the held-out data.
    """

    settings: Mapping[str, Mapping[str, Any]]
    versions: Mapping[str, str]
    task: str | None
    base_model: str | None
    datasets: Sequence[str]
    data: str
    held_out: str
    sizes: Mapping[str, int] = field(default_factory=dict)
    metrics: Sequence[Metric] = ()

    def setting(self, name: str) -> Any:
        """Returns a setting by its name, or None; a run of an older version lacks some."""
        return next((group[name] for group in self.settings.values() if name in group), None)


def read_facts(origin: Origin, parts: Collection[str]) -> RunFacts | None:
    """Returns what is known of the run in a model's folder; None if the folder is not a run's.

    Args:
        parts: the parts of the model that are as the run trained them; metrics of others are left out.

    Raises:
        OSError, ValueError: files of the run that cannot be read.
    """
    recorded = recorded_settings(origin.folder)
    if recorded is None:
        return None
    task = recorded.get("task", {}).get("name")
    read = read_json(origin.folder / DATA) if (origin.folder / DATA).is_file() else {}
    sources = [source["source"] for source in read.get("sources", [])]
    if task is None:
        sources = recorded.get("text", {}).get("corpus") or [REVIEWS]
    metrics = _pretraining_metrics(origin, parts) if task is None else _scores(origin, parts)
    return RunFacts(
        settings=public(recorded),
        versions=read_json(origin.folder / SETTINGS).get("versions", {}),
        task=task,
        base_model=_base_model(recorded),
        datasets=_datasets(recorded),
        data=", ".join(dict.fromkeys(map(public, sources))),
        held_out=public(sources[-1]) if sources else "",
        sizes=_sizes(read),
        metrics=[] if origin.changed else metrics,
    )


def is_hub_name(name: str) -> bool:
    """Returns whether a source of a model is the name of one on the hub, and not a folder."""
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return not Path(name).exists()


def _base_model(recorded: Mapping[str, Any], depth: int = 0) -> str | None:
    """Returns the hub's name of the model that a run started from, directly or through other runs."""
    source = recorded.get("run", {}).get("model")
    if source is None or depth == MAX_PARENTS:
        return None
    folder = Path(source).expanduser()
    if folder.exists():
        parent = recorded_settings(folder)
        return None if parent is None else _base_model(parent, depth + 1)
    return source if is_hub_name(source) else None


def _datasets(recorded: Mapping[str, Any]) -> list[str]:
    """Returns the names of the hub's datasets among the sources of a run."""
    data = recorded.get("data", {})
    sources = [*recorded.get("text", {}).get("corpus", ()), data.get("train")]
    names = [GLUE] if data.get("glue") else []
    for source in filter(None, sources):
        if source.startswith("hf://datasets/"):
            names.append("/".join(source.split("/")[3:5]).partition("@")[0])
        elif may_be_dataset(source) and not source.startswith(PRACTICE) and not Path(source).exists():
            names.append(source.partition(":")[0])
    return list(dict.fromkeys(names))


def _sizes(read: Mapping[str, Any]) -> dict[str, int]:
    """Returns the size of the training data in data.json."""
    train = read.get("train") or read.get("splits", {}).get("train") or {}
    return {name: train[name] for name in ("documents", "examples", "tokens") if name in train}


def _pretraining_metrics(origin: Origin, parts: Collection[str]) -> list[Metric]:
    """Returns the metrics of the evaluation at the checkpoint's own step; none if it was not evaluated."""
    for row in read_evaluations(origin.folder / METRICS, (0,)):
        if row["step"] == origin.step:
            return [
                Metric(kind, name, float(row[key][0]))
                for key, kind, name, part in PRETRAINING_METRICS
                if key in row and part in parts
            ]
    return []


def _scores(origin: Origin, parts: Collection[str]) -> list[Metric]:
    """Returns the metrics of the best model of a fine-tuning run, which has a head of its own."""
    path = origin.folder / SCORES
    if not path.is_file() or not {"classifier", "span"} & set(parts):
        return []
    found = []
    for name, value in read_json(path).items():
        if isinstance(value, float | int) and not name.endswith(NO_METRICS):
            kind: str = name.removeprefix("mismatched_")  # MNLI has a second held-out split
            found.append(Metric(HUB_METRICS.get(kind, kind), name.replace("_", " "), float(value)))
    return found


def public(value: Any) -> Any:
    """Returns a value of JSON without local paths and without secrets in URLs.

    >>> public(["/home/anna/texts/a.txt", "texts/*.txt", "https://anna:pass@host/a.txt?signature=5"])
    ['a.txt', 'texts/*.txt', 'https://host/a.txt']
    """
    return map_texts(_public_text, value)


def _public_text(text: str) -> str:
    if "://" in text and not text.startswith("file://"):
        return without_secrets(text)
    is_path = os.path.isabs(text) or text.startswith(("~", "..", "file://")) or _WINDOWS_PATH.match(text)
    return re.split(r"[\\/]", text.rstrip("\\/"))[-1] if is_path else text
