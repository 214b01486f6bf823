"""Metrics of a run: summed over an evaluation, and kept in metrics.jsonl, one JSON object per line."""

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bert_jax.files import sync, write_file
from bert_jax.messages import counted

METRICS = "metrics.jsonl"
DAMAGED_ROWS = "metrics.damaged.jsonl"  # lines of metrics.jsonl that are no rows, such as NULs after a loss of power
Row = dict[str, float]


def evaluate(step: Callable, params, batches: Iterable[Any]) -> Row:
    """Returns the mean of each metric over all batches, and `loss` and `perplexity`; keys start with `eval_`.

    Pairs (sum, weight) are added and divided once, so each example counts once, also in a last batch with padding rows.

    Args:
        step: (params, batch) -> {name: (sum, weight)}.
    """
    totals: dict[str, np.ndarray] = {}
    for batch in batches:
        for name, pair in jax.device_get(step(params, batch)).items():
            totals[name] = totals.get(name, np.zeros(2)) + np.array(pair, np.float64)
    row = {name: float(total / weight) if weight else 0.0 for name, (total, weight) in totals.items()}
    row["loss"] = sum(value for name, value in row.items() if name.endswith("_loss"))
    if "masked_lm_loss" in row:
        row["perplexity"] = math.exp(min(row["masked_lm_loss"], 700.0))
    return {f"eval_{name}": value for name, value in row.items()}


def unigram_entropy(labels: Iterable[np.ndarray]) -> float:
    """Returns the entropy of the token frequencies, in nats: the lowest loss of a model that ignores context."""
    _, counts = np.unique(np.concatenate(list(labels)), return_counts=True)
    frequencies = counts / counts.sum()
    return float(-(frequencies * np.log(frequencies)).sum())


def ranking_accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Returns how often a row of label 1 scores above a row of label 0; a tie counts half.

    This is the area under the ROC curve: chance is 0.5, whatever the label frequencies. NaN if a label is missing.

    References: Hanley, McNeil, The Meaning and Use of the Area under a ROC Curve, 1982.
    """
    zeros = np.sort(scores[labels == 0])
    ones = scores[labels == 1]
    if not len(zeros) or not len(ones):
        return math.nan
    below = np.searchsorted(zeros, ones, "left") + np.searchsorted(zeros, ones, "right")
    return float(below.mean() / 2 / len(zeros))


class MetricsFile:
    """metrics.jsonl: one row per line. A resumed run drops the rows of steps after its checkpoint."""

    def __init__(self, path: str | Path, *, after_step: int = 0) -> None:
        self.path = Path(path)
        self.cut(after_step)

    def cut(self, after_step: int) -> None:
        """Drops the rows of later steps, and a last line that a killed run did not finish; moves damaged lines away."""
        rows, damaged = _read_lines(self.path) if self.path.exists() else ([], {})
        if damaged:
            aside = self.path.with_name(DAMAGED_ROWS)
            with aside.open("ab") as file:
                file.writelines(line + b"\n" for line in damaged.values())
            sync(aside)
            first = f"{counted(len(damaged), 'line')} without metrics, the first is line {min(damaged)}"
            print(f"{self.path}: warning: {first}; moved to {aside}")
        write_file(self.path, "".join(as_line(row) for row in rows if row["step"] <= after_step))

    def write(self, *rows: Mapping[str, Any]) -> None:
        """Appends rows."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(map(as_line, rows)))

    def sync(self) -> None:
        """Returns once the rows, and the file's name in its folder, would survive a loss of power."""
        sync(self.path)
        sync(self.path.parent)

    def close(self) -> None:
        """Does nothing: the file is open only while a row is written."""


def as_line(row: Mapping[str, Any]) -> str:
    """Returns a row as a line of JSON. JSON has no NaN: a number that is not finite becomes null."""
    finite = {name: None if isinstance(x, float) and not math.isfinite(x) else x for name, x in row.items()}
    return json.dumps(finite) + "\n"


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Returns the rows of a metrics.jsonl, without a last line that a killed run did not finish.

    Raises:
        ValueError: a line is not a row; the message names it.
    """
    rows, damaged = _read_lines(Path(path))
    if damaged:
        raise ValueError(f"{path}:{min(damaged)}: not a row of metrics")
    return rows


def _read_lines(path: Path) -> tuple[list[dict[str, Any]], dict[int, bytes]]:
    """Returns the rows of a metrics.jsonl, and by line number the lines that are no rows; no unfinished last line."""
    rows = []
    damaged = {}
    for number, line in enumerate(path.read_bytes().split(b"\n")[:-1], 1):
        try:
            row = json.loads(line)
            if type(row["step"]) is not int:
                raise TypeError
            rows.append({"step": row["step"], **row})
        except (ValueError, KeyError, TypeError, RecursionError):
            damaged[number] = line
    return rows, damaged


def tags(row: Mapping[str, Any]) -> Row:
    """Returns the metrics of a row as charts name them: `loss`, `eval/loss`, or `loss/seed_3` for one of K seeds."""
    suffix = f"/seed_{row['seed']}" if "seed" in row else ""
    metrics = {name: value for name, value in row.items() if name not in ("step", "seed")}
    return {name.replace("eval_", "eval/") + suffix: value for name, value in metrics.items()}


def known_rows(path: Path) -> list[dict[str, Any]]:
    """Returns the rows of a metrics.jsonl that can be read; none if it does not exist."""
    return _read_lines(path)[0] if path.exists() else []


def last_step(path: Path) -> int:
    """Returns the last step in a metrics.jsonl; 0 if it has no row or does not exist."""
    return max((row["step"] for row in known_rows(path)), default=0)


def read_evaluations(path: str | Path, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Returns the evaluations in a metrics.jsonl by step: `step`, and each `eval_` metric as an array [K].

    Lines that are no rows are left out: `MetricsFile.cut` moves them away.

    Args:
        seeds: the K seeds of the run. A step that lacks one of them, because the run was killed meanwhile, is left out.
    """
    if not Path(path).exists():
        return []
    keys = tuple(seeds) if len(seeds) > 1 else (None,)  # rows of a single seed do not name it
    by_step: dict[int, dict[int | None, dict[str, Any]]] = {}
    for row in _read_lines(Path(path))[0]:
        metrics = {name: value for name, value in row.items() if name.startswith("eval_")}
        if metrics:
            by_step.setdefault(row["step"], {})[row.get("seed")] = metrics
    return [
        {"step": step} | {name: np.array([rows[key][name] for key in keys], float) for name in rows[keys[0]]}
        for step, rows in sorted(by_step.items())
        if set(keys) <= rows.keys()
    ]
