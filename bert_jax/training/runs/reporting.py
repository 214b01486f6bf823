"""Progress and reports of a run: messages, a progress bar, TensorBoard, and curves.png at the end.

Metrics are numbers, or arrays [K] if K seeds are trained together; the files then get one row per seed.
"""

import math
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from tqdm import tqdm

from bert_jax.files import replaced
from bert_jax.training.devices.processes import is_first
from bert_jax.training.runs.events import EventFile
from bert_jax.training.runs.metrics import MetricsFile, read_evaluations, read_metrics
from bert_jax.training.runs.tracking import Tracker

Panels = Sequence[tuple[str, str]]  # (title, key of metrics.jsonl), for curves.png
Headline = Sequence[tuple[str, str, str]]  # (label, key, format), for the line that an evaluation prints

_PROGRESS = "step {n_fmt} of {total_fmt}, {remaining} left, {rate_fmt}{postfix}"


class Reporter:
    """Writes metrics to metrics.jsonl, TensorBoard and the progress bar; a context manager.

    Of several processes only the first writes; in the others the same calls do nothing.

    Args:
        run: the run's folder.
        first_step: the restored step, or 0. Rows of later steps are dropped from the files.
        last_step: the end of the progress bar.
        panels: what curves.png shows, for training (key) and evaluations ("eval_" + key).
        headline: the metrics that are printed after an evaluation.
        seeds: those trained together, in the order of the axis K; None = metrics have no such axis.
        quiet: no progress bar.
        tracker: gets the same rows, and the curves.

    Attributes:
        phase: number of the phase of the run that the metrics belong to; None = the run has no phases.
    """

    def __init__(
        self,
        run: str | Path,
        *,
        first_step: int,
        last_step: int,
        panels: Panels,
        headline: Headline,
        seeds: Sequence[int] | None = None,
        quiet: bool = False,
        tracker: Tracker | None = None,
    ) -> None:
        self.run = Path(run)
        self.panels = panels
        self.headline = headline
        self.seeds = seeds
        self.phase: int | None = None
        self.tracker = tracker
        self.files: list[MetricsFile | EventFile | Tracker] = []
        if is_first():
            self.files.append(MetricsFile(self.run / "metrics.jsonl", after_step=first_step))
            self.files.append(EventFile(self.run / "tensorboard", after_step=first_step))
        if tracker is not None:
            self.files.append(tracker)
            tracker.log = self.log
        self.timed = False  # whether the progress bar measures the speed
        terminal = sys.stderr.isatty()
        self.bar = (tqdm if terminal else LogProgress)(
            total=last_step,
            initial=first_step,
            unit="step",
            disable=quiet or not is_first(),
            dynamic_ncols=True,
            mininterval=0.2 if terminal else 10.0,
            bar_format="{percentage:3.0f}%|{bar}| " + _PROGRESS if terminal else _PROGRESS,
        )

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()
        for file in self.files:
            file.close()

    def begin_phase(self, number: int | None) -> None:
        """Makes later metrics those of a phase, whose first step is compiled; None = the run has no phases."""
        self.phase = number
        self.timed = False

    def advance(self) -> None:
        """Moves the progress bar by one step; the time left is estimated without the first one, which was compiled."""
        if self.timed or self.bar.disable:
            self.bar.update()
            return
        self.timed = True
        self._restart_clock()
        self.bar.update()
        self.bar.refresh()

    def _restart_clock(self) -> None:
        """Makes the progress bar measure the speed from the end of this step."""
        self.bar.start_t = time.time()
        self.bar.last_print_t = self.bar.start_t
        self.bar.initial = self.bar.n + 1
        self.bar.last_print_n = self.bar.initial

    def rewind(self, step: int) -> None:
        """Drops the rows of later steps."""
        for file in self.files:
            file.cut(step)
        self.bar.n = step
        self.bar.initial = step
        self.timed = False

    def write(self, row: Mapping[str, Any]) -> None:
        """Writes the metrics of a training step, or those of an evaluation, whose keys start with `eval_`."""
        phase = {} if self.phase is None else {"phase": self.phase}
        row = {"step": row["step"], **phase, **row}
        rows = [row] if self.seeds is None else _split(row, self.seeds)
        try:
            for file in self.files:
                file.write(*rows)
        except OSError as error:
            error.filename = error.filename or str(self.run)  # that of a failed write is None
            raise
        if any(name.startswith("eval_") for name in row):
            self.log(evaluation_line(row, self.headline))
        else:
            shown = {"loss": f"{np.mean(row['loss']):.3f}", "tokens_per_s": f"{np.mean(row['tokens_per_second']):,.0f}"}
            self.bar.set_postfix({**shown, **phase}, refresh=False)

    def evaluation(self, step: int) -> dict[str, Any] | None:
        """Returns the metrics of the evaluation that metrics.jsonl holds for a step, or None."""
        for row in read_evaluations(self.run / "metrics.jsonl", self.seeds or (0,)):
            if row.pop("step") == step:
                return row if self.seeds else {name: float(values[0]) for name, values in row.items()}
        return None

    def sync(self) -> None:
        """Returns once the rows would survive a loss of power."""
        for file in self.files:
            file.sync()

    def log(self, line: str) -> None:
        """Prints a line; on a terminal, above the progress bar."""
        if is_first():
            self.bar.write(line)
            sys.stdout.flush()

    def draw(self) -> None:
        """Draws curves.png."""
        if self.files:
            _draw_curves(self.run, self.panels)
        if self.tracker is not None:
            self.tracker.pictures([self.run / "curves.png"])


class LogProgress(tqdm):
    """Progress in a log file: whole lines, where tqdm overwrites one line with carriage returns."""

    def __init__(self, *, initial: int, **options: Any) -> None:
        self.printed = initial  # the last step with a line; a thread of tqdm refreshes too, without a new step
        super().__init__(initial=initial, **options)

    def refresh(self, *_: Any, **__: Any) -> None:
        if self.n != self.printed:
            self.printed = self.n
            print(self, file=self.fp, flush=True)

    def close(self) -> None:
        if not self.disable:
            self.refresh()
        self.disable = True

    @classmethod
    def write(cls, s: str, *_: Any, **__: Any) -> None:
        print(s)  # tqdm's would refresh the progress after each message


def _split(row: Mapping[str, Any], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Returns a row per seed, with the key `seed` if there are several; a metric that is no array is in all of them.

    >>> _split({"step": 3, "loss": np.array([2.0, 4.0]), "lr": 0.5}, (7, 11))
    [{'step': 3, 'seed': 7, 'loss': 2.0, 'lr': 0.5}, {'step': 3, 'seed': 11, 'loss': 4.0, 'lr': 0.5}]
    """
    rows = []
    for index, seed in enumerate(seeds):
        of_seed = {"step": row["step"]} | ({"seed": seed} if len(seeds) > 1 else {})
        for name, value in row.items():
            of_seed.setdefault(name, value if np.ndim(value) == 0 else float(value[index]))
        rows.append(of_seed)
    return rows


def evaluation_line(row: Mapping[str, Any], headline: Headline) -> str:
    """Returns an evaluation as one line; for several seeds, mean and standard deviation."""
    parts = [f"step {row['step']:>6}"]
    for label, key, form in headline:
        if key in row:
            deviation = f" ± {np.std(row[key], ddof=1):{form}}" if np.size(row[key]) > 1 else ""
            parts.append(f"{label} {np.mean(row[key]):{form}}{deviation}")
    return "  ".join(parts)


def _draw_curves(run: str | Path, panels: Panels) -> Path:
    """Draws metrics.jsonl as curves.png: training as a line, evaluations as dots, for each seed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_metrics(Path(run) / "metrics.jsonl")
    seeds = list(dict.fromkeys(row.get("seed") for row in rows))
    borders = [(one["step"], row["phase"]) for one, row in pairwise(rows) if one.get("phase") != row.get("phase")]
    height = math.ceil(len(panels) / 2)
    figure = Figure(figsize=(10, 3 * height), layout="constrained")
    FigureCanvasAgg(figure)
    for index, (title, key) in enumerate(panels):
        axes = figure.add_subplot(height, 2, index + 1)
        for name, style, label in ((key, "C0-", "training"), (f"eval_{key}", "C1o-", "held-out")):
            for seed in seeds:
                of_seed = [row for row in rows if row.get(name) is not None and row.get("seed") == seed]
                if of_seed:
                    x = [row["step"] for row in of_seed]
                    y = [row[name] for row in of_seed]
                    # One entry in the legend for all seeds.
                    axes.plot(x, y, style, label=label if seed == seeds[0] else None, linewidth=1, markersize=3)
        for step, phase in borders:
            axes.axvline(step, color="gray", linestyle=":", linewidth=1)
            at_the_foot = axes.get_xaxis_transform()  # x in steps, y from 0 to 1
            axes.text(step, 0.02, f" phase {phase}", transform=at_the_foot, color="gray", fontsize="small")
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        if not index and axes.lines:
            axes.legend()
    path = Path(run) / "curves.png"
    with replaced(path) as part:
        figure.savefig(part, dpi=110, format="png")
    return path
