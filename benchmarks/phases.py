"""Short rows first: is the loss on long rows lower than with long rows all the way, in the same time?

The demo's model is pretrained on film reviews twice, packed: with rows of `--length` tokens throughout, and with rows
of half of that in 90 % of the steps, as BERT was. All steps have as many tokens as the demo's, so short rows come in
larger batches. The speed of the two kinds of steps is measured first, in turns (A B A B ...), and gives the second run
as many steps as fit into the time of the first one. Time is that of training steps alone, at those medians; the
programs run one after the other. Both end with the same evaluation, on the same masked rows of `--length` tokens.

    python benchmarks/phases.py --steps 2000
"""

import argparse
import statistics
from pathlib import Path
from typing import Any

from common.inputs import CACHE
from common.pretraining_loop import TrainingLoop, with_training_loops
from common.results import make_parser, record
from common.timing import interleaved, spread

from bert_jax.pretraining import make_settings, pretrain
from bert_jax.pretraining.settings import Settings

ROOT = Path(__file__).parents[1]
SHORT_SHARE = 0.9  # of the steps, as in BERT
WARMUP = 0.1  # fraction of the steps


def settings_of(options: argparse.Namespace, output: Path, steps: int, seed: int = 0, **rows: Any) -> Settings:
    """Returns the settings of a run of so many steps.

    Args:
        **rows: `max_length` and `batch_size`, or `phases`.
    """
    return make_settings(
        "demo",
        corpus=options.corpus,
        cache_dir=str(CACHE),
        output=str(output),
        overwrite=True,
        quiet=True,
        seed=seed,
        packing=True,
        steps=steps,
        decay_steps=steps,
        warmup_steps=round(WARMUP * steps),
        eval_every=0,
        checkpoint_every=0,
        fill_mask=(),
        **rows,
    )


def measure_speed(options: argparse.Namespace) -> tuple[dict[int, list[float]], dict[int, float]]:
    """Returns by length of rows the seconds per step of each round, and the real tokens of an average step."""
    half = options.length // 2
    sizes = {half: 2 * options.rows, options.length: options.rows}
    runs = {
        str(length): settings_of(
            options, options.folder / "speed" / str(length), options.steps, max_length=length, batch_size=rows
        )
        for length, rows in sizes.items()
    }
    seconds: dict[int, list[float]] = {}
    tokens: dict[int, float] = {}

    def race(loops: dict[str, TrainingLoop]) -> None:
        for name, turns in interleaved(loops, options.rounds).items():
            seconds[int(name)] = [turn / options.turn for turn in turns]
            tokens[int(name)] = loops[name].tokens / loops[name].taken

    with_training_loops(runs, options.turn, race)
    return seconds, tokens


def phased_steps(steps: int, short: float, long: float) -> tuple[int, int]:
    """Returns the steps of the two phases, at least one, that take as long as `steps` steps on long rows.

    >>> phased_steps(1000, short=0.5, long=1.0)  # 0.9 * 1818 * 0.5 + 0.1 * 1818 * 1.0 = 1000
    (1636, 182)

    Args:
        short, long: seconds of a step on short and on long rows.
    """
    total = steps * long / (SHORT_SHARE * short + (1 - SHORT_SHARE) * long)
    first = round(SHORT_SHARE * total)
    return first, max(1, round(total) - first)


def held_out_losses(options: argparse.Namespace, first: int, last: int) -> dict[str, list[float]]:
    """Returns the held-out masked LM loss on long rows of both runs, for each seed."""
    half = options.length // 2
    phases = (f"{half}:{first}:{2 * options.rows}", f"{options.length}:{last}:{options.rows}")
    sides = {
        f"{options.length} throughout": (options.steps, {"max_length": options.length, "batch_size": options.rows}),
        f"{half}, then {options.length}": (first + last, {"phases": phases}),
    }
    losses: dict[str, list[float]] = {side: [] for side in sides}
    for seed in range(options.seeds):
        for side, (steps, rows) in sides.items():
            output = options.folder / side.replace(", ", "-").replace(" ", "-") / str(seed)
            run = pretrain(settings_of(options, output, steps, seed, **rows))
            losses[side].append(run.metrics["eval_masked_lm_loss"])
    return losses


def format_tables(
    seconds: dict[int, list[float]],
    tokens: dict[int, float],
    losses: dict[str, list[float]],
    steps: dict[str, list[tuple[int, int]]],
) -> list[str]:
    """Returns the lines of two Markdown tables: the steps of each length of rows, and the runs.

    Args:
        steps: by run, the (length of rows, steps) of its phases.
    """
    lines = ["| rows | ms per step, median (min to max) | real tokens/s |", "|---|---|---|"]
    medians = {length: statistics.median(values) for length, values in seconds.items()}
    for length, values in seconds.items():
        milliseconds = spread([1000 * value for value in values], 0)
        lines.append(f"| {length} tokens | {milliseconds} | {tokens[length] / medians[length]:,.0f} |")
    lines += [
        "",
        "| run | steps | training time | real tokens | held-out masked LM loss by seed |",
        "|---|---|---|---|---|",
    ]
    for run, values in losses.items():
        counts = " + ".join(f"{count:,} on {length}" for length, count in steps[run])
        time = sum(count * medians[length] for length, count in steps[run])
        read = sum(count * tokens[length] for length, count in steps[run])
        by_seed = ", ".join(f"{value:.3f}" for value in values)
        lines.append(f"| {run} | {counts} | {time:.0f} s | {read / 1e6:.2f} million | {by_seed} |")
    return lines


def parse_options() -> argparse.Namespace:
    parser = make_parser(__doc__, rows=8, length=256)
    parser.add_argument("--corpus", nargs="*", default=(), help="as of train.py (default: the film reviews)")
    parser.add_argument("--steps", type=int, default=2_000, help="of the run on long rows throughout (default: 2000)")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds (default: 1)")
    parser.add_argument("--turn", type=int, default=10, help="steps per turn, for speed (default: 10)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each length of rows, for speed (default: 7)")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "benchmark" / "phases", help="keeps the runs")
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    options.corpus = tuple(options.corpus)
    half = options.length // 2
    seconds, tokens = measure_speed(options)
    first, last = phased_steps(
        options.steps, *(statistics.median(seconds[length]) for length in (half, options.length))
    )
    losses = held_out_losses(options, first, last)
    counts = ([(options.length, options.steps)], [(half, first), (options.length, last)])
    steps = dict(zip(losses, counts, strict=True))
    settings = (
        f"demo, packed, {options.rows} rows of {options.length} tokens or {2 * options.rows} of {half} per step; "
        f"losses on rows of {options.length} tokens"
    )
    record(
        f"Phases: {half}, then {options.length}",
        "\n".join([settings, "", *format_tables(seconds, tokens, losses, steps)]),
    )


if __name__ == "__main__":
    main()
