"""Measure how time and memory grow: a train step with longer rows, more rows, layers and vocabulary; a larger corpus.

Along each axis the sizes alternate (A B C A B C ...). Memory of a step is that of its compiled program, computed by
XLA, as in `train.py --plan`. A corpus is read, tokenized and loaded for one epoch in a separate process, whose
memory is counted without mapped files.

The result is the cost of doubling the size, at the upper end, where fixed costs weigh least. Linear growth costs at
most 2x. Only the length may cost up to 4x, because attention multiplies T by T. Anything above that by more than noise
is marked SUPER-LINEAR.

    python benchmarks/growth.py --preset small --picture docs/growth.png
"""

import statistics
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
from common.inputs import LOW_MEMORY, pass_over_corpus, train_tokenizer, write_corpus
from common.pretraining_step import JaxStep, full_batch, step_flop
from common.processes import MEBI, PrivatePeak, parse_options, run_in_new_process
from common.results import make_parser, record
from common.timing import interleaved, matmul_rate

from bert_jax.config import BertConfig
from bert_jax.text.tokenizer import Tokenizer

ROWS = 8
LENGTH = 128
AXES = {
    "length": (64, 128, 256, 512),
    "rows": (2, 4, 8, 16, 32),
    "layers": (2, 4, 8, 16),
    "vocabulary": (8_192, 16_384, 32_768, 65_536),
}
CONFIG_FIELDS = {"layers": "num_hidden_layers", "vocabulary": "vocab_size"}
CORPUS = "MiB of text"
CORPUS_SIZES = (4, 8, 16, 32)
LIMITS = {"length": 4.0}  # cost of doubling that is allowed; 2 for all other axes
NOISE = 0.1  # fraction of a cost


@dataclass(frozen=True)
class Point:
    """The cost at one size; `flop` counts the matrix multiplications of a train step, 0 for a corpus."""

    size: int
    seconds: float
    tokens: int
    bytes: int
    flop: float = 0.0


def measure_steps(axis: str, sizes: Sequence[int], preset: str, rounds: int) -> list[Point]:
    """Returns the cost of a train step at each size along the axis."""
    prepared = {str(size): prepare_step(axis, size, preset) for size in sizes}
    seconds = interleaved({name: run for name, (run, _) in prepared.items()}, rounds)
    return [replace(point, seconds=statistics.median(seconds[name])) for name, (_, point) in prepared.items()]


def prepare_step(axis: str, size: int, preset: str) -> tuple[Callable[[], float], Point]:
    """Returns a compiled train step, and its cost except for the seconds."""
    rows = size if axis == "rows" else ROWS
    length = size if axis == "length" else LENGTH
    config = BertConfig.preset(preset, **{CONFIG_FIELDS[axis]: size} if axis in CONFIG_FIELDS else {})
    batch = full_batch(config, rows, length)
    step = JaxStep(config, batch)
    flop = step_flop(config, rows, length, batch["masked_positions"].shape[1])
    return partial(step, batch), Point(size, 0.0, rows * length, step.memory.total, flop)


def measure_corpora(sizes: Sequence[int]) -> list[Point]:
    """Returns the cost of turning each number of MiB of text into batches."""
    points = []
    tokenizer = train_tokenizer()
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            tokenizer.save(folder)
            write_corpus(Path(folder), size * MEBI)
            environment = {**LOW_MEMORY, "TOKENIZERS_PARALLELISM": "false"}  # time of one core
            points.append(Point(size, **run_in_new_process(__file__, environment, folder=folder)))
    return points


def measure(folder: str) -> dict[str, float]:
    """Returns the cost of the corpus in `folder`, in this process."""
    tokenizer = Tokenizer.load(folder)
    with PrivatePeak() as peak:
        done = pass_over_corpus(Path(folder), tokenizer)
    seconds = done.reading + done.tokenizing + done.loading
    return {"seconds": seconds, "tokens": done.tokens, "bytes": peak.bytes}


def cost_of_doubling(sizes: Sequence[float], costs: Sequence[float]) -> float:
    """Returns by what factor the cost grows when the size doubles: the mean over the last factor of four.

    Costs 3, 4, 8, 20 at sizes 64, 128, 256, 512 give (20 / 4) ** (1 / 2) = 2.24.
    """
    before = int(np.argmin(np.abs(np.array(sizes) - sizes[-1] / 4)))
    doublings = np.log2(sizes[-1] / sizes[before])
    return float((costs[-1] / costs[before]) ** (1 / doublings))


def classify(axis: str, points: Sequence[Point]) -> str:
    """Returns how time and memory grow, in words."""
    sizes = [point.size for point in points]
    largest = max(cost_of_doubling(sizes, costs) for costs in seconds_and_bytes(points))
    if largest > (1 + NOISE) * LIMITS.get(axis, 2.0):
        return "SUPER-LINEAR"
    return "attention's T²" if largest > (1 + NOISE) * 2.0 else "at most linear"


def format_tables(axes: Mapping[str, Sequence[Point]], machine_rate: float) -> list[str]:
    """Returns two tables: the cost of doubling along each axis, and the cost at each size.

    Args:
        machine_rate: GFLOP/s of matrix multiplications alone.
    """
    lines = [
        "| axis | from | to | cost of doubling: time | FLOP | memory | growth |",
        "|---|---|---|---|---|---|---|",
    ]
    for axis, points in axes.items():
        sizes = [point.size for point in points]
        time, memory = (f"{cost_of_doubling(sizes, costs):.2f}x" for costs in seconds_and_bytes(points))
        flop = f"{cost_of_doubling(sizes, [point.flop for point in points]):.2f}x" if points[0].flop else ""
        growth = classify(axis, points)
        lines.append(f"| {axis} | {sizes[0]:,} | {sizes[-1]:,} | {time} | {flop} | {memory} | {growth} |")
    lines += ["", "| axis | size | s | tokens/s | of the matmul rate | MiB |", "|---|---|---|---|---|---|"]
    for axis, points in axes.items():
        for point in points:
            reached = f"{point.flop / point.seconds / 1e9 / machine_rate:.0%}" if point.flop else ""
            lines.append(
                f"| {axis} | {point.size:,} | {point.seconds:.3f} | {point.tokens / point.seconds:,.0f} | {reached} "
                f"| {point.bytes / MEBI:,.0f} |"
            )
    return lines


def seconds_and_bytes(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [point.seconds for point in points], [float(point.bytes) for point in points]


def draw(axes: Mapping[str, Sequence[Point]], path: str) -> None:
    """Draws time and memory along each axis, relative to its smallest size; linear growth is dotted."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.6 * len(axes), 2.8), layout="constrained")
    FigureCanvasAgg(figure)
    for column, (axis, points) in enumerate(axes.items()):
        panel = figure.add_subplot(1, len(axes), column + 1)
        sizes = np.array([point.size for point in points])
        seconds, memory = seconds_and_bytes(points)
        panel.plot(sizes, np.array(seconds) / seconds[0], "C0o-", label="time", markersize=4)
        panel.plot(sizes, np.array(memory) / memory[0], "C1s-", label="memory", markersize=4)
        panel.plot(sizes, sizes / sizes[0], "k:", label="linear", linewidth=1)
        panel.set(title=axis, xscale="log", yscale="log")
        panel.set_xticks(sizes, [f"{size // 1024}k" if size >= 4096 else str(size) for size in sizes.tolist()])
        panel.set_yticks([1, 2, 4, 8, 16], ["1", "2", "4", "8", "16"])
        panel.minorticks_off()
        panel.grid(alpha=0.3)
        if column == 0:
            panel.set_ylabel("relative to the smallest")
            panel.legend(fontsize="small")
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=80)


def main() -> None:
    parser = make_parser(__doc__, preset="small")
    parser.add_argument("--rounds", type=int, default=3, help="timed steps at each size (default: 3)")
    parser.add_argument("--axes", nargs="+", choices=[*AXES, "corpus"], default=[*AXES, "corpus"])
    parser.add_argument("--picture", metavar="PNG", help="draw the results to this file")
    options = parse_options(parser, measure)
    measured = {
        axis: measure_steps(axis, sizes, options.preset, options.rounds)
        for axis, sizes in AXES.items()
        if axis in options.axes
    }
    if "corpus" in options.axes:
        measured[CORPUS] = measure_corpora(CORPUS_SIZES)
    machine_rate = matmul_rate()
    settings = (
        f"{options.preset}, {ROWS} rows of {LENGTH} tokens unless stated otherwise, dropout 0.1; "
        f"matrix multiplications alone: {machine_rate:.0f} GFLOP/s"
    )
    record(f"Growth: {options.preset}", "\n".join([settings, "", *format_tables(measured, machine_rate)]))
    if options.picture:
        draw(measured, options.picture)


if __name__ == "__main__":
    main()
