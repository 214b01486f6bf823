"""One pretraining step, here and in PyTorch, side by side on this machine.

The two take turns (A B A B ...) on the same batch shape, float32, AdamW, and each reports the median of its steps: a
machine that slows down slows both. `--compile` adds `torch.compile`. GFLOP/s are counted as 6 x parameters in matrix
products x tokens, plus attention and the masked share of the head.

    python benchmarks/train_step.py --preset base --rows 8 --length 128
"""

import argparse
import statistics
from functools import partial

import jax
import numpy as np
from common.pretraining_step import Ours, matrix_flop, theirs
from common.profiles import profile, table
from common.timing import interleaved, matmul_rate, record, spread

from bert_jax.config import PRESETS, BertConfig
from bert_jax.data.pretraining.masking import predictions_per_row

PROFILED = 3  # steps


def full_batch(config: BertConfig, rows: int, length: int, predictions: int) -> dict[str, np.ndarray]:
    """A batch without padding, random ids."""
    random = np.random.default_rng(0)
    return {
        "input_ids": random.integers(5, config.vocab_size, (rows, length)).astype(np.int32),
        "token_type_ids": np.repeat(np.arange(length)[None, :] >= length // 2, rows, axis=0).astype(np.int32),
        "attention_mask": np.ones((rows, length), np.int32),
        "position_ids": np.repeat(np.arange(length, dtype=np.int32)[None, :], rows, axis=0),
        "masked_positions": np.sort(random.permuted(np.tile(np.arange(1, length), (rows, 1)), axis=1)[:, :predictions]),
        "masked_labels": random.integers(5, config.vocab_size, (rows, predictions)),
        "masked_weights": np.ones((rows, predictions), np.float32),
        "cls_positions": np.zeros((rows, 1), np.int32),
        "next_sentence_labels": random.integers(0, 2, (rows, 1)),
        "next_sentence_weights": np.ones((rows, 1), np.float32),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="base")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--hidden-act", default="gelu")
    parser.add_argument("--compile", action="store_true", help="also torch.compile")
    parser.add_argument("--alone", action="store_true", help="without PyTorch")
    parser.add_argument(
        "--profile", metavar="DIR", help="also say where some of our steps spend their time, see profiles.py"
    )
    parser.add_argument("--record", action="store_true", help="keep the results in RESULTS.md")
    options = parser.parse_args()

    config = BertConfig.preset(
        options.preset,
        hidden_act=options.hidden_act,
        hidden_dropout_prob=options.dropout,
        attention_probs_dropout_prob=options.dropout,
    )
    predictions = predictions_per_row(options.length, 0.15)
    batch = full_batch(config, options.rows, options.length, predictions)
    ours = Ours(config, batch)
    contestants = {"bert_jax": ours}
    if not options.alone:
        contestants["PyTorch eager"] = theirs(config)
    if options.compile:
        contestants["torch.compile"] = theirs(config, compiled=True)
    turns = {name: partial(step, batch) for name, step in contestants.items()}
    seconds = interleaved(turns, options.rounds, warmup=2)

    flop = matrix_flop(config, options.rows, options.length, predictions)
    mine, rate = statistics.median(seconds["bert_jax"]), matmul_rate()
    lines = [
        f"{options.preset}, {options.rows} x {options.length}, dropout {options.dropout:g}, {options.hidden_act}, "
        f"{jax.devices()[0].device_kind}; bert_jax compiled in {ours.seconds:.1f} s; matrix products alone: "
        f"{rate:.0f} GFLOP/s",
        "",
        "| | s a step, median (min to max) | GFLOP/s | of the machine's | bert_jax is faster by |",
        "|---|---|---|---|---|",
    ]
    for name, times in seconds.items():
        median = statistics.median(times)
        ratio = "" if name == "bert_jax" else f"{median / mine:.2f}x"
        reached = flop / median / 1e9
        lines.append(f"| {name} | {spread(times)} | {reached:.0f} | {reached / rate:.0%} | {ratio} |")
    if options.profile:
        lines += ["", *table(profile(lambda: [ours(batch) for _ in range(PROFILED)], options.profile))]
    record(
        f"A train step: {options.preset}, {options.rows} x {options.length}, dropout {options.dropout:g}",
        "\n".join(lines),
    )


if __name__ == "__main__":
    main()
