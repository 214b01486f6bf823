"""What a person looks at after training: confusions and scores as pictures, mistakes as a table."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

SHOWN = 200  # characters of a text in a table


def draw_confusion(path: Path, counts: np.ndarray, names: Sequence[str]) -> None:
    """Draws how often each class (a row) was taken for which (a column).

    Args:
        counts: int [C, C], labels by predictions.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = 3 + 0.5 * len(names)
    figure = Figure(figsize=(size, size), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    for row, column in np.ndindex(counts.shape):
        if counts[row, column]:
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", color=color, fontsize=8)
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="label")
    figure.savefig(path, dpi=110)


def draw_scores(path: Path, labels: np.ndarray, predicted: np.ndarray) -> None:
    """Draws predicted scores over the labels, [n] each."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.scatter(labels, predicted, s=6, alpha=0.5)
    ends = [min(labels.min(), predicted.min()), max(labels.max(), predicted.max())]
    axes.plot(ends, ends, color="grey", linewidth=1)
    axes.set(xlabel="label", ylabel="predicted")
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=110)


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Writes a table in Markdown; long texts are shortened."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(plain(cell) for cell in cells)} |\n"

    rule = f"|{'---|' * len(columns)}\n"
    path.write_text(line(columns) + rule + "".join(map(line, rows)), encoding="utf-8")


def plain(text: str) -> str:
    """Returns a text in one line, without what Markdown would take for the end of a cell."""
    text = " ".join(text.split()).replace("|", "\\|")
    return text if len(text) <= SHOWN else f"{text[:SHOWN]} ..."
