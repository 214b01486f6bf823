"""Time pretraining on real documents: packed rows in bert_jax, padded rows in PyTorch, on this machine.

The documents are film reviews, whose sentence pairs fill less than half of a 512-token row. All candidates read pairs
of the same plan: packed; padded to the full length; padded to the longest pair of each batch ("dynamic"). PyTorch has
time for few pairs, so these are quantiles by length, in random order. Candidates alternate (A B A B ...), float32,
AdamW. The metric is real tokens/s, padding excluded: real tokens of an average batch over the median seconds of a
batch. GFLOP/s count the matrix multiplications of real tokens only (attention within a pair, the head on masked
tokens), so their ratio to the machine's rate shows what is left to gain.

    python benchmarks/pretrain_real_text.py --preset base --rows 4 --rounds 5
"""

import statistics
from collections.abc import Callable
from itertools import chain

import numpy as np
from common.inputs import CACHE
from common.pretraining_step import Batch, JaxStep, real_token_flop, torch_step
from common.results import make_parser, record
from common.timing import interleaved, matmul_rate, spread

from bert_jax.config import BertConfig
from bert_jax.data.pretraining.loader import BatchSettings, PretrainingRows
from bert_jax.data.pretraining.masking import Vocabulary
from bert_jax.data.pretraining.token_store import TokenStore, tokenize_corpus
from bert_jax.data.readers.movie_reviews import movie_reviews
from bert_jax.data.readers.sources import Texts
from bert_jax.text.tokenizer import Tokenizer

SAMPLED_PAIRS = 2_000  # their lengths represent those of all pairs
BY_TOKEN = ("input_ids", "token_type_ids", "attention_mask", "position_ids")  # arrays [B, T]
PACKED = "bert_jax, packed"


def tokenize_reviews(vocab_size: int) -> tuple[TokenStore, Tokenizer]:
    """Returns the tokens of the film reviews and the tokenizer trained on them."""
    reviews = movie_reviews(CACHE)
    tokenizer = Tokenizer.train(Texts(reviews), vocab_size)
    return tokenize_corpus(reviews, tokenizer, cache_dir=CACHE), tokenizer


def packed_batches(rows: PretrainingRows, size: int, count: int) -> list[Batch]:
    """Returns the first batches of training."""
    return [rows(np.arange(n * size, (n + 1) * size)) for n in range(count)]


def padded_batches(rows: PretrainingRows, size: int, count: int) -> list[Batch]:
    """Returns batches with one pair per row; the pairs are quantiles by length of SAMPLED_PAIRS."""
    sample = rows(np.arange(SAMPLED_PAIRS))
    by_length = np.argsort(real_tokens(sample), kind="stable")
    quantiles = (np.arange(size * count) + 0.5) / (size * count) * SAMPLED_PAIRS
    chosen = np.random.default_rng(1).permutation(by_length[quantiles.astype(int)])
    return [{name: array[indices] for name, array in sample.items()} for indices in np.split(chosen, count)]


def trim_padding(batch: Batch) -> Batch:
    """Returns the batch without the columns that are padding in every row."""
    longest = real_tokens(batch).max()
    return {name: array[:, :longest] if name in BY_TOKEN else array for name, array in batch.items()}


def real_tokens(batch: Batch) -> np.ndarray:
    """Returns the number of real tokens of each row, int [B]."""
    return (batch["attention_mask"] != 0).sum(axis=1)


def step_on_next(step: Callable[[Batch], float], batches: list[Batch]) -> Callable[[], float]:
    """Returns a function that runs a step on the next batch at each call; the first batch also warms up."""
    order = chain(batches[:1], batches)
    return lambda: step(next(order))


def format_table(
    config: BertConfig, batches: dict[str, list[Batch]], seconds: dict[str, list[float]], machine_rate: float
) -> list[str]:
    """Returns the lines of a Markdown table, one row per candidate.

    Args:
        machine_rate: GFLOP/s of matrix multiplications alone.
    """
    lines = [
        "| | s per batch, median (min to max) | real tokens per batch | real tokens/s | real GFLOP/s "
        "| of the matmul rate | speedup of bert_jax |",
        "|---|---|---|---|---|---|---|",
    ]
    rates = {}
    for name, chosen in batches.items():
        median = statistics.median(seconds[name])
        tokens = statistics.mean(int(real_tokens(batch).sum()) for batch in chosen)
        filled = tokens / statistics.mean(batch["input_ids"].size for batch in chosen)
        gflops = statistics.mean(real_token_flop(config, batch) for batch in chosen) / median / 1e9
        rates[name] = tokens / median
        speedup = "" if name == PACKED else f"{rates[PACKED] / rates[name]:.2f}x"
        lines.append(
            f"| {name} | {spread(seconds[name])} | {tokens:.0f}, {filled:.1%} | {rates[name]:.0f} | {gflops:.0f} | "
            f"{gflops / machine_rate:.0%} | {speedup} |"
        )
    return lines


def main() -> None:
    parser = make_parser(__doc__, preset="base", rows=4, length=512)
    parser.add_argument("--rounds", type=int, default=5, help="timed batches of each candidate (default: 5)")
    parser.add_argument("--dropout", type=float, default=0.1)
    options = parser.parse_args()

    config = BertConfig.preset(
        options.preset, hidden_dropout_prob=options.dropout, attention_probs_dropout_prob=options.dropout
    )
    store, tokenizer = tokenize_reviews(config.vocab_size)
    vocabulary = Vocabulary.of(tokenizer)
    packed_rows = PretrainingRows(store, vocabulary, BatchSettings(options.length, packing=True))
    padded_rows = PretrainingRows(store, vocabulary, BatchSettings(options.length, packing=False))
    packed = packed_batches(packed_rows, options.rows, options.rounds)
    padded = padded_batches(padded_rows, options.rows, options.rounds)
    batches = {
        PACKED: packed,
        "PyTorch, padded": padded,
        "PyTorch, dynamic padding": [trim_padding(batch) for batch in padded],
    }
    jax_step = JaxStep(config, packed[0])
    steps = {name: jax_step if name == PACKED else torch_step(config) for name in batches}
    runs = {name: step_on_next(step, batches[name]) for name, step in steps.items()}
    seconds = interleaved(runs, options.rounds)

    machine_rate = matmul_rate()
    settings = (
        f"{options.preset}, {options.rows} rows of {options.length} tokens, dropout {options.dropout:g}; compiled in "
        f"{jax_step.compile_seconds:.0f} s; matrix multiplications alone: {machine_rate:.0f} GFLOP/s"
    )
    table = format_table(config, batches, seconds, machine_rate)
    record(
        f"Pretraining on film reviews: {options.preset}, {options.length}-token rows", "\n".join([settings, "", *table])
    )


if __name__ == "__main__":
    main()
