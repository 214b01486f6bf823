"""Reports for people: pictures of confusions and scores, tables of mistakes, and notes about the data that was read."""

import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax.files import replaced, write_file
from bert_jax.messages import counted
from bert_jax.text.inputs import valid_text

TABLE_WIDTH = 200  # characters of a cell in a Markdown table
SCREEN_WIDTH = 60  # the same on the screen
SCREEN_ROWS = 3  # mistakes on the screen
MOST_CLASSES = 30  # in a picture of the confusion matrix: more names and counts than this cannot be read
OWN_FONT = "DejaVu Sans"  # comes with matplotlib
NAME_WIDTH = 24  # characters of a class name in a picture
ESCAPED_BAR = "\\|"  # `|` inside a cell of a Markdown table


# Pictures


def draw_confusion(path: Path, counts: np.ndarray, names: Sequence[str]) -> list[str]:
    """Draws a confusion matrix with class names and counts; returns lines for the screen.

    Of more than `MOST_CLASSES` classes it shows those with the most mistakes, counted as label and as prediction. A
    class whose name no installed font has is shown by its number, and a line tells the name.

    Args:
        counts: int [C, C]; rows are labels, columns are predictions.
        names: of the C classes.
    """
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)  # of each label's examples
    shown = most_confused(counts, MOST_CLASSES)
    size = 3 + 0.45 * len(shown)  # inches
    figure, axes = _new_figure(size)
    axes.imshow(fractions[np.ix_(shown, shown)], cmap="Blues", vmin=0, vmax=1)
    for row, label in enumerate(shown):
        for column, prediction in enumerate(shown):
            count = counts[label, prediction]
            if count:
                color = "white" if fractions[label, prediction] > 0.5 else "black"
                text = f"{count:,}" if count < 10_000 else f"{count / 1000:,.0f}k"
                axes.text(column, row, text, ha="center", va="center", color=color, fontsize=8)
    labels = {int(label): _shorten(names[int(label)], NAME_WIDTH) for label in shown}
    fonts, missing = _fonts_for(labels.values())
    by_number = {label: name for label, name in labels.items() if missing & set(name)}
    ticks = [f"#{label}" if label in by_number else name for label, name in labels.items()]
    axes.set_xticks(range(len(ticks)), ticks, rotation=90, parse_math=False, fontfamily=fonts)
    axes.set_yticks(range(len(ticks)), ticks, parse_math=False, fontfamily=fonts)
    axes.set(xlabel="predicted", ylabel="label")
    if len(shown) < len(names):
        axes.set_title(f"the {len(shown)} of {len(names):,} classes with the most mistakes")
    _save(figure, path)
    if not by_number:
        return []
    listed = ", ".join(f"#{label} = {name}" for label, name in by_number.items())
    return [f"{path} shows classes whose names no installed font has by their numbers: {listed}"]


def _fonts_for(texts: Iterable[str]) -> tuple[list[str], set[str]]:
    """Returns installed fonts that have the characters of texts, matplotlib's own first, and characters that none has.

    The other fonts are only looked at if matplotlib's own lacks a character, as it does for Chinese.
    """
    from matplotlib import font_manager

    fonts = [OWN_FONT]
    missing = set().union(*texts) - _characters(font_manager.findfont(OWN_FONT))
    for font in font_manager.fontManager.ttflist if missing else ():
        regular = font.style == "normal" and font.weight in (400, "normal", "regular")
        if regular and "last resort" not in font.name.lower().replace("lastresort", "last resort"):
            found = missing & _characters(font.fname)
            if found:
                fonts.append(font.name)
                missing -= found
    return fonts, missing


def _characters(font: str) -> set[str]:
    """Returns the characters that a font file has."""
    from matplotlib.font_manager import get_font

    return set(map(chr, get_font(font).get_charmap()))


def most_confused(counts: np.ndarray, limit: int) -> np.ndarray:
    """Returns the ids of the `limit` classes with the most mistakes, ascending; all classes if there are no more.

    Example: with counts [[5, 2, 0], [0, 9, 0], [0, 1, 8]] the mistakes per class, as label or as prediction, are
    [2, 3, 1]; a limit of 2 keeps the classes 0 and 1.
    """
    mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * np.diag(counts)
    return np.sort(np.argsort(-mistakes, kind="stable")[:limit])


def draw_scores(path: Path, labels: np.ndarray, predicted: np.ndarray) -> None:
    """Draws predicted scores over labels, float [n] each."""
    figure, axes = _new_figure(5)
    axes.scatter(labels, predicted, s=6, alpha=0.5)
    ends = [min(labels.min(), predicted.min()), max(labels.max(), predicted.max())]
    axes.plot(ends, ends, color="grey", linewidth=1)
    axes.set(xlabel="label", ylabel="predicted")
    axes.grid(alpha=0.3)
    _save(figure, path)


def _save(figure: Any, path: Path) -> None:
    with replaced(path) as part:
        figure.savefig(part, dpi=110, format="png")


def _new_figure(size: float) -> tuple[Any, Any]:
    """Returns a square matplotlib figure of `size` inches and its axes, without touching pyplot's global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size, size), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.add_subplot()


# Tables


def list_mistakes(
    path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]], *, wrong: int, total: int
) -> list[str]:
    """Writes the most confident mistakes as a Markdown table; returns lines for the screen.

    Args:
        rows: one per mistake, the most confident first.
        wrong: the number of all mistakes.
        total: the number of all predictions.
    """
    return write_table(
        path, columns, rows, summary=f"{wrong:,} of {total:,} are wrong; the most confident mistakes are"
    )


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[str]], *, summary: str) -> list[str]:
    """Writes rows as a Markdown table; returns lines for the screen: the summary, and the first rows with a header."""
    rule = f"|{'---|' * len(columns)}\n"
    table = _table_line(columns) + rule + "".join(map(_table_line, rows))
    write_file(path, table)
    shown = [[_shorten(cell, SCREEN_WIDTH) for cell in row] for row in (columns, *rows[:SCREEN_ROWS])]
    widths = [max(map(len, column)) for column in zip(*shown, strict=True)]
    lines = [f"  {'  '.join(map(str.ljust, row, widths)).rstrip()}" for row in shown]
    return [f"{summary} in {path}", *(lines if rows else ())]


def _table_line(cells: Sequence[str]) -> str:
    """Returns one line of a Markdown table; long cells are shortened."""
    return f"| {' | '.join(_shorten(cell, TABLE_WIDTH).replace('|', ESCAPED_BAR) for cell in cells)} |\n"


def _shorten(text: str, length: int) -> str:
    """Returns a text as one line of up to `length` characters, with an ellipsis if it was cut."""
    text = " ".join(valid_text(text).split())
    return text if len(text) <= length else f"{text[:length]} ..."


# Notes about the data


def note_truncated(cut: int, count: int, description: str, max_length: int) -> None:
    """Prints how many examples were truncated, if any."""
    if cut:
        print(f"longer than {max_length} tokens, and cut: {cut:,} of {count:,} {description}")


def note_labels(names: Sequence[str], count: int) -> None:
    """Warns about classes that look like scores (fractions) or like texts (too many for `count` examples)."""
    if all(map(_is_number, names)) and not all(float(name).is_integer() for name in names):
        print("the labels are fractional numbers, used as class names; for scores, the problem type must be regression")
    elif len(names) > max(10, count / 2):
        print(f"{counted(len(names), 'label')} for {counted(count, 'example')}: is this the right label column?")


def _is_number(text: str) -> bool:
    """Returns whether a text is a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False
