"""What more of everything costs: a train step with longer rows, more rows, layers and words, and a larger corpus.

Along each axis the sizes take turns (A B C A B C ...). Memory is that of the compiled step by XLA's own account, which
is also what `train.py --plan` tells. A corpus is read, tokenized and passed through once, in a process of its own,
whose memory is counted without mapped files.

Told is what twice the size costs, at the upper end, where what does not grow weighs least: a line, whatever it starts
from, costs at most twice as much. Only the length may cost more, up to four times, because attention is a product of T
by T. What costs more than that, by more than noise, is flagged.

    python benchmarks/growth.py --preset small --picture docs/growth.png
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from common.corpus_pass import SPARING, pass_through, some_tokenizer, write_reviews
from common.pretraining_step import Ours, matrix_flop
from common.processes import MEBI, PrivatePeak, apart, options_of
from common.timing import interleaved, matmul_rate, record
from train_step import full_batch

from bert_jax.config import PRESETS, BertConfig
from bert_jax.data.pretraining.masking import predictions_per_row
from bert_jax.text.tokenizer import Tokenizer

USUAL = {"rows": 8, "length": 128}
FIELDS = {"layers": "num_hidden_layers", "vocabulary": "vocab_size"}
AXES = {
    "length": (64, 128, 256, 512),
    "rows": (2, 4, 8, 16, 32),
    "layers": (2, 4, 8, 16),
    "vocabulary": (8_192, 16_384, 32_768, 65_536),
}
CORPUS = "MiB of text"
CORPORA = (4, 8, 16, 32)
TWICE = {"length": 4.0}  # what twice the size may cost; of all else 2
NOISE = 0.1  # share of a cost


@dataclass(frozen=True)
class Point:
    """What one size costs; `flop` are those of its matrix products, 0 where there are none."""

    size: int
    seconds: float
    tokens: int
    bytes: int
    flop: float = 0.0


def steps_along(axis: str, sizes: Sequence[int], preset: str, rounds: int) -> list[Point]:
    """Returns what a train step costs at each size of the axis."""
    prepared = {str(size): step_at(axis, size, preset) for size in sizes}
    seconds = interleaved({name: run for name, (run, _) in prepared.items()}, rounds)
    return [replace(point, seconds=statistics.median(seconds[name])) for name, (_, point) in prepared.items()]


def step_at(axis: str, size: int, preset: str) -> tuple[Callable[[], float], Point]:
    """Returns a train step that can be run, and what is known of it before."""
    rows, length = (size if axis == name else usual for name, usual in USUAL.items())
    predictions = predictions_per_row(length, 0.15)
    config = BertConfig.preset(preset, **{FIELDS[axis]: size} if axis in FIELDS else {})
    batch = full_batch(config, rows, length, predictions)
    step = Ours(config, batch)
    flop = matrix_flop(config, rows, length, predictions)
    return partial(step, batch), Point(size, 0.0, rows * length, step.memory.total, flop)


def corpora(sizes: Sequence[int]) -> list[Point]:
    """Returns what it costs to take so many MiB of text to batches."""
    found, tokenizer = [], some_tokenizer()
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            tokenizer.save(folder)
            write_reviews(Path(folder), size * MEBI)
            environment = {**SPARING, "TOKENIZERS_PARALLELISM": "false"}  # one core's time
            found.append(Point(size, **apart(__file__, environment, folder=folder)))
    return found


def measure(folder: str) -> dict[str, float]:
    """Returns what the corpus in `folder` costs in this process."""
    tokenizer = Tokenizer.load(folder)
    with PrivatePeak() as peak:
        passage = pass_through(Path(folder), tokenizer)
    seconds = passage.reading + passage.tokenizing + passage.loading
    return {"seconds": seconds, "tokens": passage.tokens, "bytes": peak.bytes}


def doubling(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Returns how many times as much twice the size costs: the mean of the doublings in the last factor of four."""
    before = int(np.argmin(np.abs(np.array(sizes) - sizes[-1] / 4)))
    return float((costs[-1] / costs[before]) ** (1 / np.log2(sizes[-1] / sizes[before])))


def verdict(axis: str, points: Sequence[Point]) -> str:
    """Says in words how time and memory grow."""
    sizes = [point.size for point in points]
    dearest = max(doubling(sizes, costs) for costs in costs_of(points))
    if dearest > (1 + NOISE) * TWICE.get(axis, 2.0):
        return "SUPER-LINEAR"
    return "attention's T²" if dearest > (1 + NOISE) * 2.0 else "no faster than a line"


def lines_of(axes: Mapping[str, Sequence[Point]], rate: float) -> list[str]:
    """Returns two tables: what twice as much of each costs, and every size.

    Args:
        rate: GFLOP/s of the machine's matrix products.
    """
    lines = [
        "| what grows | from | to | twice as much costs, in time | in arithmetic | in memory | |",
        "|---|---|---|---|---|---|---|",
    ]
    for axis, points in axes.items():
        sizes = [point.size for point in points]
        time, memory = (f"{doubling(sizes, costs):.2f}x" for costs in costs_of(points))
        flop = f"{doubling(sizes, [point.flop for point in points]):.2f}x" if points[0].flop else ""
        lines.append(
            f"| {axis} | {sizes[0]:,} | {sizes[-1]:,} | {time} | {flop} | {memory} | {verdict(axis, points)} |"
        )
    lines += ["", "| | | s | tokens/s | of the machine's matrix products | MiB |", "|---|---|---|---|---|---|"]
    for axis, points in axes.items():
        for point in points:
            reached = f"{point.flop / point.seconds / 1e9 / rate:.0%}" if point.flop else ""
            lines.append(
                f"| {axis} | {point.size:,} | {point.seconds:.3f} | {point.tokens / point.seconds:,.0f} | {reached} "
                f"| {point.bytes / MEBI:,.0f} |"
            )
    return lines


def costs_of(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    """Returns seconds and bytes."""
    return [point.seconds for point in points], [float(point.bytes) for point in points]


def draw(axes: Mapping[str, Sequence[Point]], path: str) -> None:
    """Draws time and memory of each axis beside its smallest size; dotted is what is in proportion."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.6 * len(axes), 2.8), layout="constrained")
    FigureCanvasAgg(figure)
    for place, (axis, points) in enumerate(axes.items()):
        panel = figure.add_subplot(1, len(axes), place + 1)
        sizes = np.array([point.size for point in points])
        for costs, style, name in zip(costs_of(points), ("C0o-", "C1s-"), ("time", "memory"), strict=True):
            panel.plot(sizes, np.array(costs) / costs[0], style, label=name, markersize=4)
        panel.plot(sizes, sizes / sizes[0], "k:", label="in proportion", linewidth=1)
        panel.set(title=axis, xscale="log", yscale="log")
        panel.set_xticks(sizes, [f"{size // 1024}k" if size >= 4096 else str(size) for size in sizes.tolist()])
        panel.set_yticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        if not place:
            panel.set_ylabel("times the smallest")
            panel.legend(fontsize="small")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="small")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--axes", nargs="+", choices=[*AXES, "corpus"], default=[*AXES, "corpus"])
    parser.add_argument("--picture", metavar="PNG", help="draw what was found")
    parser.add_argument("--record", action="store_true", help="keep the results in RESULTS.md")
    options = options_of(parser, measure)
    found = {
        axis: steps_along(axis, sizes, options.preset, options.rounds)
        for axis, sizes in AXES.items()
        if axis in options.axes
    }
    if "corpus" in options.axes:
        found[CORPUS] = corpora(CORPORA)
    rate = matmul_rate()
    about = (
        f"{options.preset}, {USUAL['rows']} rows of {USUAL['length']} tokens where nothing else is said, dropout 0.1"
    )
    lines = [f"{about}; matrix products alone: {rate:.0f} GFLOP/s", "", *lines_of(found, rate)]
    record(f"Growth: {options.preset}", "\n".join(lines))
    if options.picture:
        draw(found, options.picture)


if __name__ == "__main__":
    main()
