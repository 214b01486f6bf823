"""Pretraining on real documents, here with packed rows and in PyTorch with padded ones, side by side on this machine.

Film reviews, whose sentence pairs fill less than half of a 512-token row. The contestants read pairs of the same plan:
packed; padded to the full length; padded to the longest pair of each batch ("dynamic"). The few pairs that PyTorch has
time for are quantiles of all lengths, in a random order. They take turns (A B A B ...), float32, AdamW. What counts is
real tokens a second, padding left out: those of an average batch by the median of its seconds. GFLOP/s count matrix
products on real tokens alone (attention within a pair, the head on masked tokens), so beside the machine's own rate
they say what is left to gain.

    python benchmarks/pretrain_real_text.py --preset base --rows 4 --rounds 5
"""

import argparse
import statistics
from collections.abc import Callable
from itertools import chain
from pathlib import Path

import numpy as np
from common.pretraining_step import Batch, Ours, real_flop, theirs
from common.timing import interleaved, matmul_rate, record, spread

from bert_jax.config import PRESETS, BertConfig
from bert_jax.data.pretraining.loader import BatchSettings, PretrainingRows
from bert_jax.data.pretraining.masking import Vocabulary
from bert_jax.data.pretraining.token_store import TokenStore, tokenize_corpus
from bert_jax.data.readers.movie_reviews import movie_reviews
from bert_jax.data.readers.sources import Texts
from bert_jax.text.tokenizer import Tokenizer

CACHE = Path("~/.cache/bert_jax").expanduser()
SAMPLED = 2_000  # pairs that stand for all


def read_reviews(vocab_size: int) -> tuple[TokenStore, Tokenizer]:
    """Returns the tokens of the film reviews, and the tokenizer that learned its vocabulary from them."""
    reviews = movie_reviews(CACHE)
    tokenizer = Tokenizer.train(Texts(reviews), vocab_size)
    return tokenize_corpus(reviews, tokenizer, cache_dir=CACHE), tokenizer


def packed_batches(rows: PretrainingRows, size: int, count: int) -> list[Batch]:
    """Returns the first batches of training."""
    return [rows(np.arange(n * size, (n + 1) * size)) for n in range(count)]


def padded_batches(rows: PretrainingRows, size: int, count: int) -> list[Batch]:
    """Returns batches whose rows are quantiles, by length, of many."""
    many = rows(np.arange(SAMPLED))
    by_length = np.argsort(tokens_of(many), kind="stable")
    places = (np.arange(size * count) + 0.5) / (size * count) * SAMPLED
    chosen = np.random.default_rng(1).permutation(by_length[places.astype(int)])
    return [{name: array[some] for name, array in many.items()} for some in np.split(chosen, count)]


def cut_to_longest(batch: Batch) -> Batch:
    """Returns the batch without the columns that are padding in every row."""
    longest = tokens_of(batch).max()
    by_token = ("input_ids", "token_type_ids", "attention_mask", "position_ids")
    return {name: array[:, :longest] if name in by_token else array for name, array in batch.items()}


def tokens_of(batch: Batch) -> np.ndarray:
    """Returns the real tokens of each row, int [B]."""
    return (batch["attention_mask"] != 0).sum(axis=1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="base")
    parser.add_argument("--rows", type=int, default=4)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--record", action="store_true", help="keep the results in RESULTS.md")
    options = parser.parse_args()

    config = BertConfig.preset(
        options.preset, hidden_dropout_prob=options.dropout, attention_probs_dropout_prob=options.dropout
    )
    store, tokenizer = read_reviews(config.vocab_size)
    maker = {packing: PretrainingRows(store, Vocabulary.of(tokenizer), BatchSettings(options.length, packing=packing))
             for packing in (True, False)}  # fmt: skip
    packed = packed_batches(maker[True], options.rows, options.rounds)
    padded = padded_batches(maker[False], options.rows, options.rounds)
    ours = Ours(config, packed[0])
    contestants = {
        "bert_jax, packed": (ours, packed),
        "PyTorch, padded": (theirs(config), padded),
        "PyTorch, dynamic padding": (theirs(config), [cut_to_longest(batch) for batch in padded]),
    }
    seconds = interleaved({name: turns(*contestant) for name, contestant in contestants.items()}, options.rounds)

    machine_rate = matmul_rate()
    lines = [
        f"{options.preset}, {options.rows} rows of {options.length} tokens, dropout {options.dropout:g}; compiled in "
        f"{ours.seconds:.0f} s; matrix products alone: {machine_rate:.0f} GFLOP/s",
        "",
        "| | s a batch, median (min to max) | real tokens of a batch | real tokens/s | real GFLOP/s | of the machine's "
        "| bert_jax is faster by |",
        "|---|---|---|---|---|---|---|",
    ]
    rates = {}
    for name, (_, batches) in contestants.items():
        median = statistics.median(seconds[name])
        tokens = statistics.mean(int(tokens_of(batch).sum()) for batch in batches)
        filled = tokens / statistics.mean(batch["input_ids"].size for batch in batches)
        gflops = statistics.mean(real_flop(config, batch) for batch in batches) / median / 1e9
        rates[name] = tokens / median
        faster = rates["bert_jax, packed"] / rates[name]
        lines.append(
            f"| {name} | {spread(seconds[name])} | {tokens:.0f}, {filled:.1%} | {rates[name]:.0f} | {gflops:.0f} | "
            f"{gflops / machine_rate:.0%} | {'' if len(rates) == 1 else f'{faster:.2f}x'} |"
        )
    record(f"Pretraining on film reviews: {options.preset}, {options.length}-token rows", "\n".join(lines))


def turns(step: Callable[[Batch], float], batches: list[Batch]) -> Callable[[], float]:
    """Returns a function that takes the next batch each time, the first one for a warm-up too."""
    order = chain(batches[:1], batches)
    return lambda: step(next(order))


if __name__ == "__main__":
    main()
