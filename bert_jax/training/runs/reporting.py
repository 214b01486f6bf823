"""What a person sees of a run: a progress bar, TensorBoard, and curves.png at the end.

A row's figures are numbers, or arrays [K] where K seeds are trained together; then the file gets a row for each seed.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from bert_jax.training.runs.events import EventFile
from bert_jax.training.runs.metrics import MetricsFile, read_metrics

Panels = Sequence[tuple[str, str]]  # (title, key): what curves.png shows of metrics.jsonl
Headline = Sequence[tuple[str, str, str]]  # (label, key, format): what is said of an evaluation in one line


class Reporter:
    """Takes rows of figures to metrics.jsonl, TensorBoard and the progress bar; a context manager.

    Args:
        run: the run's folder.
        first_step, last_step: where the bar starts and ends; rows of a later step than `first_step` are dropped from
        the file.
        panels: pairs (title, key): what curves.png shows, training (key) and held out ("eval_" + key).
        headline: triples (label, key, format): what is said of an evaluation in one line.
        seeds: those trained together, in the order of the figures' axis [K].
        quiet: no bar.
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
    ) -> None:
        from tqdm import tqdm

        self.run, self.panels, self.headline, self.seeds = Path(run), panels, headline, seeds
        self.file = MetricsFile(self.run / "metrics.jsonl", after_step=first_step)
        self.events = EventFile(self.run / "tensorboard", after_step=first_step)
        # A log file gets a line every ten seconds, a terminal a bar that moves.
        pause = 0.2 if sys.stderr.isatty() else 10.0
        self.bar = tqdm(
            total=last_step, initial=first_step, unit="step", disable=quiet, dynamic_ncols=True, mininterval=pause
        )

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.close()
        self.events.close()

    def advance(self) -> None:
        """Moves the bar by one step."""
        self.bar.update()

    def rewind(self, step: int) -> None:
        """Takes back what was told of later steps."""
        self.file.cut(step)
        self.events.take_back(step)
        self.bar.n = step
        self.bar.refresh()

    def owe(self, step: int) -> None:
        """Takes back the evaluation of a step, which is done again; TensorBoard shows the same point twice."""
        self.file.cut_evaluation(step)

    def write(self, row: Mapping[str, Any]) -> None:
        """Records a row of training or, where its keys begin with `eval_`, of evaluation."""
        try:
            self.record([row] if self.seeds is None else split(row, self.seeds))
        except OSError as error:
            error.filename = error.filename or str(self.run)  # a write does not say where it failed
            raise
        if any(name.startswith("eval_") for name in row):
            self.say(evaluation_line(row, self.headline))
        else:
            self.bar.set_postfix(
                loss=f"{np.mean(row['loss']):.3f}",
                tokens_per_s=f"{np.mean(row['tokens_per_second']):,.0f}",
                refresh=False,
            )

    def record(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Appends rows, of one seed each, to the files."""
        self.file.write(*rows)
        for row in rows:
            seed = f"/seed_{row['seed']}" if "seed" in row else ""
            figures = {name: value for name, value in row.items() if name not in ("step", "seed")}
            self.events.add(row["step"], {name.replace("eval_", "eval/") + seed: x for name, x in figures.items()})

    def sync(self) -> None:
        """Sees to it that the rows outlast a loss of power."""
        self.file.sync()

    def say(self, line: str) -> None:
        """Prints a line above the bar."""
        self.bar.write(line)

    def draw(self) -> None:
        """Writes curves.png."""
        draw_curves(self.run, self.panels)


class NullReporter(Reporter):
    """What reports nothing: of several processes the first reports."""

    def __init__(self) -> None:
        pass

    def __exit__(self, *error: object) -> None:
        pass

    def advance(self) -> None:
        pass

    def rewind(self, step: int) -> None:
        pass

    def owe(self, step: int) -> None:
        pass

    def write(self, row: Mapping[str, Any]) -> None:
        pass

    def sync(self) -> None:
        pass

    def say(self, line: str) -> None:
        pass

    def draw(self) -> None:
        pass


def split(row: Mapping[str, Any], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Returns a row for each seed, named where there are several; a figure that is no array is the same in all."""

    def of(place: int, value: Any) -> Any:
        return value if np.ndim(value) == 0 else float(value[place])

    named = [{"seed": seed} for seed in seeds] if len(seeds) > 1 else [{}]
    return [
        {"step": row["step"], **seed} | {name: of(place, value) for name, value in row.items() if name != "step"}
        for place, seed in enumerate(named)
    ]


def evaluation_line(row: Mapping[str, Any], headline: Headline) -> str:
    """Says an evaluation in one line; of several seeds the mean and the standard deviation."""

    def said(value: Any, form: str) -> str:
        spread = f" ± {np.std(value, ddof=1):{form}}" if np.size(value) > 1 else ""
        return f"{np.mean(value):{form}}{spread}"

    parts = [f"{label} {said(row[key], form)}" for label, key, form in headline if key in row]
    return "  ".join([f"step {row['step']:>6}", *parts])


def draw_curves(run: str | Path, panels: Panels) -> Path:
    """Draws the run's metrics.jsonl into curves.png: training as a line, held-out figures as dots, for each seed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_metrics(Path(run) / "metrics.jsonl")
    seeds = list(dict.fromkeys(row.get("seed") for row in rows))
    height = math.ceil(len(panels) / 2)
    figure = Figure(figsize=(10, 3 * height), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (title, key) in enumerate(panels):
        axes = figure.add_subplot(height, 2, place + 1)
        for name, style, label in ((key, "C0-", "training"), (f"eval_{key}", "C1o-", "held-out")):
            for seed in seeds:
                points = [
                    (row["step"], row[name]) for row in rows if row.get(name) is not None and row.get("seed") == seed
                ]
                if points:
                    named = label if seed == seeds[0] else None  # one entry of the legend for all seeds
                    axes.plot(*zip(*points, strict=True), style, label=named, linewidth=1, markersize=3)
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        if not place and axes.lines:
            axes.legend()
    path = Path(run) / "curves.png"
    figure.savefig(path, dpi=110)
    return path
