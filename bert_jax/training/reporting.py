"""What a person sees of a run: a progress bar, TensorBoard, and curves.png at the end."""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from bert_jax.training.metrics import MetricsFile, read_metrics

PANELS = (
    ("masked LM loss (nats)", "masked_lm_loss"),
    ("next-sentence accuracy", "next_sentence_accuracy"),
    ("learning rate", "learning_rate"),
    ("tokens / s", "tokens_per_second"),
)


class Reporter:
    """Takes rows of figures to metrics.jsonl, TensorBoard and the progress bar; a context manager.

    Args:
        run: the run's folder.
        first_step, last_step: where the bar starts and ends; rows of a later step than `first_step` are dropped from
        the file.
        quiet: no bar.
    """

    def __init__(self, run: str | Path, *, first_step: int, last_step: int, quiet: bool = False) -> None:
        from tensorboardX import SummaryWriter
        from tqdm import tqdm

        self.run = Path(run)
        self.file = MetricsFile(self.run / "metrics.jsonl", after_step=first_step)
        self.events = SummaryWriter(str(self.run / "tensorboard"), purge_step=first_step + 1)
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

    def write(self, row: Mapping[str, Any]) -> None:
        """Records a row of training or, where its keys begin with `eval_`, of evaluation."""
        self.file.write(row)
        for name, value in row.items():
            if name != "step":
                self.events.add_scalar(name.replace("eval_", "eval/"), value, row["step"])
        if "eval_loss" in row:
            self.say(evaluation_line(row))
        else:
            self.bar.set_postfix(
                loss=f"{row['loss']:.3f}", tokens_per_s=f"{row['tokens_per_second']:,.0f}", refresh=False
            )

    def say(self, line: str) -> None:
        """Prints a line above the bar."""
        self.bar.write(line)

    def draw(self) -> None:
        """Writes curves.png."""
        draw_curves(self.run)


def evaluation_line(row: Mapping[str, Any]) -> str:
    """Says an evaluation in one line."""
    return (
        f"step {row['step']:>6}  held-out masked LM loss {row['eval_masked_lm_loss']:.3f}"
        f"  perplexity {row['eval_perplexity']:.1f}  accuracy {row['eval_masked_lm_accuracy']:.3f}"
        f"  next sentence {row['eval_next_sentence_accuracy']:.3f}"
    )


def draw_curves(run: str | Path) -> Path:
    """Draws the run's metrics.jsonl into curves.png: training as a line, held-out figures as dots."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_metrics(Path(run) / "metrics.jsonl")
    figure = Figure(figsize=(10, 6), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, (title, key) in zip(figure.subplots(2, 2).flat, PANELS, strict=True):
        for name, style, label in ((key, "-", "training"), (f"eval_{key}", "o-", "held-out")):
            points = [(row["step"], row[name]) for row in rows if name in row]
            if points:
                axes.plot(*zip(*points, strict=True), style, label=label, linewidth=1, markersize=3)
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
    figure.axes[0].legend()
    path = Path(run) / "curves.png"
    figure.savefig(path, dpi=110)
    return path
