"""Time one pretraining step in bert_jax and in PyTorch on this machine.

Both take turns (A B A B ...) on the same batch: float32, AdamW, full rows of random token ids. Each reports the median
of its steps. `--compile` adds `torch.compile`. GFLOP/s count the matrix multiplications only.

    python benchmarks/train_step.py --preset base --rows 8 --length 128
"""

import argparse
import statistics
from functools import partial

import jax
from common.pretraining_step import JaxStep, full_batch, step_flop, torch_step
from common.profiles import profile, tables
from common.results import make_parser, record
from common.timing import interleaved, matmul_rate, spread

from bert_jax.config import BertConfig

PROFILED_STEPS = 3


def parse_options() -> argparse.Namespace:
    parser = make_parser(__doc__, preset="base", rows=8, length=128)
    parser.add_argument("--rounds", type=int, default=7, help="timed steps of each side (default: 7)")
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--hidden-act", default="gelu")
    parser.add_argument("--compile", action="store_true", help="add torch.compile")
    parser.add_argument("--alone", action="store_true", help="leave PyTorch out")
    parser.add_argument(
        "--profile", metavar="DIR", help="write a profile of bert_jax's step to DIR and print time by scope"
    )
    return parser.parse_args()


def main() -> None:
    options = parse_options()
    config = BertConfig.preset(
        options.preset,
        hidden_act=options.hidden_act,
        hidden_dropout_prob=options.dropout,
        attention_probs_dropout_prob=options.dropout,
    )
    batch = full_batch(config, options.rows, options.length)
    jax_step = JaxStep(config, batch)
    candidates = {"bert_jax": jax_step}
    if not options.alone:
        candidates["PyTorch eager"] = torch_step(config)
    if options.compile:
        candidates["torch.compile"] = torch_step(config, compiled=True)
    runs = {name: partial(step, batch) for name, step in candidates.items()}
    seconds = interleaved(runs, options.rounds, warmup=2)

    flop = step_flop(config, options.rows, options.length, batch["masked_positions"].shape[1])
    own_median = statistics.median(seconds["bert_jax"])
    machine_rate = matmul_rate()
    lines = [
        f"{options.preset}, {options.rows} x {options.length}, dropout {options.dropout:g}, {options.hidden_act}, "
        f"{jax.devices()[0].device_kind}; bert_jax compiled in {jax_step.compile_seconds:.1f} s; "
        f"matrix multiplications alone: {machine_rate:.0f} GFLOP/s",
        "",
        "| | s per step, median (min to max) | GFLOP/s | of the matmul rate | speedup of bert_jax |",
        "|---|---|---|---|---|",
    ]
    for name, times in seconds.items():
        median = statistics.median(times)
        gflops = flop / median / 1e9
        speedup = "" if name == "bert_jax" else f"{median / own_median:.2f}x"
        lines.append(f"| {name} | {spread(times)} | {gflops:.0f} | {gflops / machine_rate:.0%} | {speedup} |")
    if options.profile:
        lines += ["", *tables(profile(lambda: [jax_step(batch) for _ in range(PROFILED_STEPS)], options.profile))]
    record(
        f"Train step: {options.preset}, {options.rows} x {options.length}, dropout {options.dropout:g}",
        "\n".join(lines),
    )


if __name__ == "__main__":
    main()
