"""What several trainings come to side by side: the seeds of one, and the combinations of a sweep.

References: Devlin et al., BERT, 2018, appendix A.3 (the grid); Mosbach et al., On the Stability of Fine-tuning BERT,
2021 (seeds that collapse).
"""

import itertools
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax.finetuning.model import Best, evaluations
from bert_jax.finetuning.settings import Settings
from bert_jax.training.loop import NotFinite
from bert_jax.training.runs.checkpoints import CHECKPOINTS
from bert_jax.training.runs.metrics import as_line

REPORTS = ("metrics.jsonl", "curves.png", "tensorboard")  # what stays of a combination that is not the best
NEVER = -math.inf  # the score of what never had one


def compare_seeds(metric: str, run: Path, best: Best) -> None:
    """Prints each seed's best score, their mean and deviation, and which of them collapsed to one class."""
    scores, steps, collapsed = best.selection.best, best.selection.step, collapsed_seeds(run, best)
    print(f"\n{metric.replace('_', ' ')}, best evaluation of each seed:")
    for place, seed in enumerate(best.seeds):
        if scores[place] == NEVER:
            print(f"  seed {seed:>3}  its score was never a number")
            continue
        note = "  collapsed: it gives one answer to everything" if collapsed[place] else ""
        kept = "  kept" if place == int(scores.argmax()) else ""
        print(f"  seed {seed:>3}  {scores[place]:.4f}  step {steps[place]:,}{kept}{note}")
    if len(scores) > 1:
        deviation = spread(scores)
        print(f"  mean {scores.mean():.4f}, standard deviation {deviation:.4f}, best {scores.max():.4f}")


def collapsed_seeds(run: Path, best: Best) -> np.ndarray:
    """Returns, bool [K], which seeds gave one answer to everything where they were best."""
    rows = {row["step"]: row for row in evaluations(run, best.seeds)}
    found = [rows.get(step, {}).get("eval_collapsed") for step in best.selection.step.tolist()]
    return np.array([values is not None and values[place] > 0 for place, values in enumerate(found)])


def spread(scores: np.ndarray) -> float:
    """Returns the standard deviation of seeds' scores; NaN for a single one, or where one has none."""
    return float(scores.std(ddof=1)) if len(scores) > 1 and np.isfinite(scores).all() else math.nan


def sweep(settings: Settings, run: Path, metric: str, fit: Callable[[Settings, Path], Best]) -> None:
    """Trains every combination of learning rate, batch size and epochs; ranks them and keeps the best one's model.

    Args:
        fit: trains as settings say, into a folder.

    Raises:
        NotFinite: no combination came to a score.
    """
    grid, table = settings.run, []
    combinations = list(itertools.product(grid.sweep_learning_rates, grid.sweep_batch_sizes, grid.sweep_epochs))
    for number, (rate, size, epochs) in enumerate(combinations, 1):
        asked = {"learning_rate": rate, "batch_size": size, "epochs": epochs}
        folder = run / "sweep" / f"{rate:g}-{size}-{epochs}"
        folder.mkdir(parents=True)
        print(f"\n{number} of {len(combinations)}: learning rate {rate:g}, batch size {size}, epochs {epochs}")
        row: dict[str, Any] = {"mean": NEVER, "deviation": math.nan, "best": NEVER, "collapsed": 0, **asked}
        try:
            found = fit(replace(settings, training=replace(settings.training, **asked)), folder)
            scores = found.selection.best
            row |= {"mean": float(scores.mean()), "deviation": spread(scores), "best": float(scores.max())}
            row["collapsed"] = int(collapsed_seeds(folder, found).sum())
        except NotFinite as error:
            print(f"{error}: it is ranked last")
        shutil.rmtree(folder / CHECKPOINTS)  # nothing of a sweep goes on
        table.append(row | {"folder": str(folder.relative_to(run))})
        table.sort(key=lambda row: -row["mean"])
        for loser in table[1:]:
            leave_reports(run / loser["folder"])
    show(table, metric, grid.seeds)
    if table[0]["mean"] == NEVER:
        raise NotFinite("every combination of the sweep ended in numbers that are not finite: try lower learning rates")
    (run / "sweep.jsonl").write_text("".join(map(as_line, table)), encoding="utf-8")
    shutil.copytree(run / table[0]["folder"], run, dirs_exist_ok=True)


def show(table: list[dict[str, Any]], metric: str, seeds: int) -> None:
    """Prints the combinations of a sweep, the best first."""
    print(f"\n{metric.replace('_', ' ')}, best evaluation of each seed")
    print("    mean  deviation    best  learning rate  batch size  epochs")
    for row in table:
        asked = f"{row['learning_rate']:13g}  {row['batch_size']:10}  {row['epochs']:6}"
        note = f"  {row['collapsed']} of {seeds} seeds collapsed" if row["collapsed"] else ""
        deviation = f"{row['deviation']:9.4f}" if np.isfinite(row["deviation"]) else f"{'-':>9}"
        print(f"{row['mean']:8.4f}  {deviation}{row['best']:8.4f}  {asked}{note}")


def leave_reports(folder: Path) -> None:
    """Deletes all but the reports of a training."""
    for path in folder.iterdir():
        if path.name not in REPORTS:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
