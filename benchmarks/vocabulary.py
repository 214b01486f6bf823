"""Time the training of a WordPiece vocabulary on film reviews, and its memory, beside `tokenizers` alone.

`Tokenizer.train` counts the words of the texts and trains on the counts; the vocabulary is the same in every process.
`tokenizers` alone reads the texts, and breaks ties at random. They are measured in new processes, in turns (A B A B).

    python benchmarks/vocabulary.py
"""

import statistics
import time
from collections.abc import Callable
from itertools import pairwise
from math import log

from common.inputs import CACHE, VOCAB_SIZE
from common.processes import MEBI, ResidentPeak, parse_options, run_in_new_process
from common.results import make_parser, record
from tokenizers import trainers

from bert_jax.data.readers.movie_reviews import movie_reviews
from bert_jax.data.readers.sources import Texts
from bert_jax.text import vocabulary_training  # noqa: F401  imported before the clock starts
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.vocabulary import SPECIAL_TOKENS, wordpiece
from bert_jax.text.word_counts import count_words

EVERY = (16, 4, 1)  # parts of the corpus whose different words are counted


def train_library(texts: Texts) -> None:
    trainer = trainers.WordPieceTrainer(vocab_size=VOCAB_SIZE, special_tokens=[*SPECIAL_TOKENS], show_progress=False)
    wordpiece([], lowercase=True, strip_accents=None).train_from_iterator(texts, trainer)


RUNS: dict[str, Callable[[Texts], object]] = {
    "`count_words`": count_words,
    "`Tokenizer.train`": lambda texts: Tokenizer.train(texts, VOCAB_SIZE),
    "`tokenizers` alone": train_library,
}


def measure(name: str) -> dict[str, float]:
    """Returns the seconds and the memory of one run."""
    texts = Texts(movie_reviews(CACHE))
    with ResidentPeak() as peak:
        start = time.perf_counter()
        start_cpu = time.process_time()
        RUNS[name](texts)
        seconds = time.perf_counter() - start
        cpu = time.process_time() - start_cpu
    return {"seconds": seconds, "cpu": cpu, "peak": peak.bytes / MEBI}


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each (default: %(default)s)")
    rounds = parse_options(parser, measure).rounds
    texts = list(movie_reviews(CACHE)["text"])
    size = sum(len(text.encode()) for text in texts)
    measured = {name: [] for name in RUNS}
    for _ in range(rounds):
        for name in RUNS:
            measured[name].append(run_in_new_process(__file__, name=name))
    lines = [
        f"{len(texts):,} film reviews, {size / 1e6:.1f} MB; vocabulary of {VOCAB_SIZE:,}",
        "",
        "| | s | CPU s | MB of text per CPU s | peak memory, MiB |",
        "|---|---|---|---|---|",
    ]
    for name, runs in measured.items():
        seconds, cpu, peak = (statistics.median(run[key] for run in runs) for key in ("seconds", "cpu", "peak"))
        lines.append(f"| {name} | {seconds:.1f} | {cpu:.1f} | {size / 1e6 / cpu:.1f} | {peak:.0f} |")
    rows = [count_words(texts[::every]) for every in EVERY]
    exponents = [
        log(larger.num_rows / smaller.num_rows) / log(a / b)
        for (smaller, larger), (a, b) in zip(pairwise(rows), pairwise(EVERY), strict=True)
    ]
    lines += [
        "",
        f"The corpus has {rows[-1].num_rows:,} different words between spaces, in {rows[-1].nbytes / MEBI:.1f} MiB of "
        f"counts. Their number grows with the power {exponents[-1]:.2f} of the text, so ten times the text has "
        f"{10 ** exponents[-1]:.1f} times as many.",
    ]
    record("Vocabulary", "\n".join(lines))


if __name__ == "__main__":
    main()
