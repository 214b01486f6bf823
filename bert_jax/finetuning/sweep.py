"""Comparison of several trainings: the seeds of one, and the combinations of a sweep.

References: Devlin et al., BERT, 2018, appendix A.3 (the grid); Mosbach et al., On the Stability of Fine-tuning BERT,
2021 (seeds that collapse).
"""

import itertools
import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax.files import write_file
from bert_jax.finetuning.model import BestModel
from bert_jax.finetuning.settings import Settings
from bert_jax.training.metric_logger import NotFinite
from bert_jax.training.runs.checkpoints import SAVED
from bert_jax.training.runs.contents import TRACKER
from bert_jax.training.runs.manifests import CHECKPOINTS
from bert_jax.training.runs.metrics import as_line, read_evaluations

REPORTS = ("metrics.jsonl", "curves.png", "tensorboard", "wandb", TRACKER)  # kept of a combination that is not the best
NO_SCORE = -math.inf  # the score of a seed without a finite metric


def compare_seeds(metric: str, run: Path, best: BestModel) -> None:
    """Prints each seed's best score, their mean and standard deviation, and which of them collapsed to one class."""
    scores = best.selection.best
    collapsed = _collapsed_seeds(run, best)
    print(f"\n{metric.replace('_', ' ')}, best evaluation of each seed:")
    for index, seed in enumerate(best.seeds):
        if scores[index] == NO_SCORE:
            print(f"  seed {seed:>3}  no finite score")
            continue
        note = "  collapsed: it predicts the same for all examples" if collapsed[index] else ""
        kept = "  kept" if index == int(scores.argmax()) else ""
        print(f"  seed {seed:>3}  {scores[index]:.4f}  step {best.selection.step[index]:,}{kept}{note}")
    if len(scores) > 1:
        deviation = _standard_deviation(scores)
        print(f"  mean {scores.mean():.4f}, standard deviation {deviation:.4f}, best {scores.max():.4f}")


def _collapsed_seeds(run: Path, best: BestModel) -> np.ndarray:
    """Returns, bool [K], which seeds predicted the same for all examples at their best evaluation."""
    by_step = {row["step"]: row for row in read_evaluations(run / "metrics.jsonl", best.seeds)}
    found = [by_step.get(step, {}).get("eval_collapsed") for step in best.selection.step.tolist()]
    return np.array([values is not None and values[index] > 0 for index, values in enumerate(found)])


def _standard_deviation(scores: np.ndarray) -> float:
    """Returns the standard deviation of the seeds' scores; NaN for a single seed, or if one has no score."""
    return float(scores.std(ddof=1)) if len(scores) > 1 and np.isfinite(scores).all() else math.nan


def combinations(settings: Settings) -> list[Settings]:
    """Returns the settings of each training of a sweep; without a sweep, the settings alone.

    Example: the learning rates (2e-5, 3e-5), the batch sizes (16,) and the epochs (2, 3) are four trainings.
    """
    run = settings.run
    if not run.sweep:
        return [settings]
    grid = itertools.product(run.sweep_learning_rates, run.sweep_batch_sizes, run.sweep_epochs)
    return [settings.replace(learning_rate=rate, batch_size=size, epochs=epochs) for rate, size, epochs in grid]


def sweep(candidates: Sequence[Settings], train: Callable[[Settings, Path], BestModel], run: Path, metric: str) -> None:
    """Runs the trainings of a sweep, ranks them, and keeps the model of the best one.

    Args:
        candidates: see `combinations`.
        train: called with each of them, one after another, and the folder to train in.

    Raises:
        NotFinite: no training has a score.
    """
    table: list[dict[str, Any]] = []
    for number, candidate in enumerate(candidates, 1):
        rate = candidate.optimizer.learning_rate
        size = candidate.training.batch_size
        epochs = candidate.training.epochs
        folder = run / "sweep" / f"{rate:g}-{size}-{epochs}"
        folder.mkdir(parents=True, exist_ok=True)
        print(f"\n{number} of {len(candidates)}: learning rate {rate:g}, batch size {size}, epochs {epochs}")
        row: dict[str, Any] = {"mean": NO_SCORE, "deviation": math.nan, "best": NO_SCORE, "collapsed": 0}
        row |= {"learning_rate": rate, "batch_size": size, "epochs": epochs}
        try:
            best = train(candidate, folder)
            scores = best.selection.best
            row["mean"] = float(scores.mean())
            row["deviation"] = _standard_deviation(scores)
            row["best"] = float(scores.max())
            row["collapsed"] = int(_collapsed_seeds(folder, best).sum())
        except NotFinite as error:
            print(f"{error}: ranked last")
        shutil.rmtree(folder / CHECKPOINTS)  # a sweep cannot be resumed
        (folder / SAVED).unlink(missing_ok=True)
        table.append(row | {"folder": str(folder.relative_to(run))})
        table.sort(key=lambda row: -row["mean"])
        for loser in table[1:]:  # at most one model is on the disk at any time
            _keep_reports(run / loser["folder"])
    _print_ranking(table, metric, candidates[0].run.seeds)
    if table[0]["mean"] == NO_SCORE:
        raise NotFinite("no combination of the sweep has a finite score: try lower learning rates")
    write_file(run / "sweep.jsonl", "".join(map(as_line, table)))
    shutil.copytree(run / table[0]["folder"], run, dirs_exist_ok=True)


def _print_ranking(table: Sequence[dict[str, Any]], metric: str, seeds: int) -> None:
    """Prints the combinations of a sweep, the best first."""
    print(f"\n{metric.replace('_', ' ')}, best evaluation of each seed")
    print("    mean  deviation    best  learning rate  batch size  epochs")
    for row in table:
        combination = f"{row['learning_rate']:13g}  {row['batch_size']:10}  {row['epochs']:6}"
        note = f"  {row['collapsed']} of {seeds} seeds collapsed" if row["collapsed"] else ""
        deviation = f"{row['deviation']:9.4f}" if np.isfinite(row["deviation"]) else f"{'-':>9}"
        print(f"{row['mean']:8.4f}  {deviation}{row['best']:8.4f}  {combination}{note}")


def _keep_reports(folder: Path) -> None:
    """Deletes everything of a training except its reports."""
    for path in folder.iterdir():
        if path.name not in REPORTS:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
