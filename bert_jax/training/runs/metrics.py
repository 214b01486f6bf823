"""Figures of a run: added up over an evaluation, and kept in metrics.jsonl, one JSON object a line."""

import json
import math
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bert_jax.training.runs.folder import write_whole

Row = dict[str, float]


def evaluate(step: Callable, params, batches: Iterable[Any]) -> Row:
    """Returns the mean of every measure over all batches, `loss` and `perplexity` too, each key with `eval_` before it.

    Pairs (sum, weight) are added up and divided once, so every example counts once, however the last batch is filled.

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
    """Returns the entropy, in nats, of the tokens' own frequencies: the best that a model blind to context can do."""
    _, counts = np.unique(np.concatenate(list(labels)), return_counts=True)
    shares = counts / counts.sum()
    return float(-(shares * np.log(shares)).sum())


def ranking_accuracy(scores: np.ndarray, labels: np.ndarray) -> float:
    """Returns how often a row of label 1 scores above a row of label 0, a tie counting half.

    It is the area under the ROC curve: 0.5 is chance, however common each label is; NaN where one of them is missing.

    References: Hanley, McNeil, The Meaning and Use of the Area under a ROC Curve, 1982.
    """
    zeros, ones = np.sort(scores[labels == 0]), scores[labels == 1]
    if not len(zeros) or not len(ones):
        return math.nan
    below = np.searchsorted(zeros, ones, "left") + np.searchsorted(zeros, ones, "right")
    return float(below.mean() / 2 / len(zeros))


class MetricsFile:
    """metrics.jsonl: appended to, and cut back to a step when a run goes on from an earlier checkpoint."""

    def __init__(self, path: str | Path, *, after_step: int = 0) -> None:
        self.path = Path(path)
        self.cut(after_step)

    def cut(self, after_step: int) -> None:
        """Drops the rows of later steps, and a last line that a killed run did not finish."""
        kept = [row for row in read_metrics(self.path) if row["step"] <= after_step] if self.path.exists() else []
        write_whole(self.path, "".join(map(as_line, kept)))

    def cut_evaluation(self, step: int) -> None:
        """Drops the evaluation of a step."""
        kept = [row for row in read_metrics(self.path) if row["step"] != step or "loss" in row]
        write_whole(self.path, "".join(map(as_line, kept)))

    def write(self, *rows: Mapping[str, Any]) -> None:
        """Appends rows."""
        with self.path.open("a", encoding="utf-8") as file:
            file.write("".join(map(as_line, rows)))

    def sync(self) -> None:
        """Returns when what was written, and the file's name, would outlast a loss of power."""
        for path in (self.path, self.path.parent):
            opened = os.open(path, os.O_RDONLY)
            try:
                os.fsync(opened)
            finally:
                os.close(opened)


def as_line(row: Mapping[str, Any]) -> str:
    """Returns a row as a line of JSON, which has no NaN: what is not finite is null."""
    finite = {name: None if isinstance(x, float) and not math.isfinite(x) else x for name, x in row.items()}
    return json.dumps(finite) + "\n"


def read_metrics(path: str | Path) -> list[dict[str, Any]]:
    """Returns the rows of a metrics.jsonl; a last line that a killed run did not finish is passed over.

    Raises:
        ValueError: a line is no row; the message names it.
    """
    rows = []
    for number, line in enumerate(Path(path).read_bytes().split(b"\n")[:-1], 1):
        try:
            row = json.loads(line)
            rows.append({"step": row["step"], **row})
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ValueError(f"{path}:{number}: not a row of figures") from None
    return rows
