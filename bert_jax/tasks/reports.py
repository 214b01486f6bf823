"""What a person looks at after training: confusions and scores as pictures, mistakes as a table."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bert_jax.text.tokenizer import valid_text

SHOWN, SAID = 200, 60  # characters of a text in a table, and on the screen
FEW = 3  # mistakes on the screen
LEGIBLE = 60  # classes of a picture that has names and numbers; one for each of a thousand would fill the memory
BAR = "\\|"  # what a cell of a table has for a bar


def draw_confusion(path: Path, counts: np.ndarray, names: Sequence[str]) -> None:
    """Draws how often each class (a row) was taken for which (a column), with names and numbers where they are few.

    Args:
        counts: int [C, C], labels by predictions.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = 3 + 0.5 * min(len(names), LEGIBLE)
    figure = Figure(figsize=(size, size), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if len(names) <= LEGIBLE:
        for row, column in np.argwhere(counts):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{counts[row, column]:,}", ha="center", va="center", color=color, fontsize=8)
        axes.set_xticks(range(len(names)), names, rotation=90, parse_math=False)
        axes.set_yticks(range(len(names)), names, parse_math=False)
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


def list_mistakes(
    path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]], *, wrong: int, of: int
) -> list[str]:
    """Writes the most confident mistakes as a table in Markdown, and returns what to say of them, the first few too.

    Args:
        rows: one for each of them, the surest first.
        wrong, of: how many mistakes there are in all, among how many.
    """
    return list_worst(path, columns, rows, said=f"{wrong:,} of {of:,} are wrong; the most confident mistakes are")


def list_worst(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]], *, said: str) -> list[str]:
    """Writes rows as a table in Markdown, and returns what is `said` of them, the first few of them too."""
    path.write_text(table(columns, rows), encoding="utf-8")
    return [f"{said} in {path}", *(f"  {'  '.join(shortened(cell, SAID) for cell in row)}" for row in rows[:FEW])]


def table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a table in Markdown; long texts are shortened."""

    def line(cells: Sequence[str]) -> str:
        return f"| {' | '.join(shortened(cell, SHOWN).replace('|', BAR) for cell in cells)} |\n"

    rule = f"|{'---|' * len(columns)}\n"
    return line(columns) + rule + "".join(map(line, rows))


def shortened(text: str, length: int) -> str:
    """Returns a text in one line of up to `length` characters."""
    text = " ".join(valid_text(text).split())
    return text if len(text) <= length else f"{text[:length]} ..."
