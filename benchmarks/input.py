"""Time how text becomes batches, stage by stage, on one core; or check that it needs little memory.

Film reviews pass through every stage of this project's input, and through the same recipe in plain Python
(`common/plain_recipe.py`), in turns (A B A B ...). A corpus is split and tokenized once; pairing, packing, masking and
batching are repeated every epoch. The tokenizer caches the ids of words, so tokenization is timed twice: with an empty
cache, as in the first pass, and with the cache of the same corpus.

    python benchmarks/input.py --length 512
    python benchmarks/input.py --memory 10
    python benchmarks/input.py --shapes 2048

`--memory N` writes a corpus N times as large as the memory that a process may allocate beyond its start, and turns it
into batches in that process. RLIMIT_DATA enforces the limit: all memory but mapped files. `--shapes N` prepares a file
of N MiB that is one line, and 100,000 small files, and prints the memory and the time of each (`bert-jax prepare`).
"""

import os

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # rates are those of one core

import gc
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import plain_recipe
from common.inputs import BATCH_SIZE, CACHE, LOW_MEMORY, VOCAB_SIZE, pass_over_corpus, train_tokenizer, write_corpus
from common.preparing import SHAPES, prepare_shape, write_shape
from common.processes import MEBI, parse_options, process_memory, run_in_new_process
from common.results import make_parser, record
from common.timing import interleaved

from bert_jax.data.packing import pack
from bert_jax.data.pretraining.loader import BatchSettings, PretrainingRows
from bert_jax.data.pretraining.masking import Vocabulary, mask_tokens
from bert_jax.data.pretraining.sequence_inputs import build_inputs
from bert_jax.data.pretraining.sequence_planning import plan_sequences
from bert_jax.data.pretraining.sequences import sequence_lengths
from bert_jax.data.pretraining.token_store import TokenStore
from bert_jax.data.readers.movie_reviews import movie_reviews
from bert_jax.data.readers.sources import Texts
from bert_jax.text.sentences import split_sentences
from bert_jax.text.tokenizer import Tokenizer

PLAIN_EVERY = 50  # plain Python reads every 50th review
MOST_BATCHES = 40
H200_TOKENS = 250_000  # tokens/s that BERT-large trains on one, at best
H200_CORES = 16  # cores per GPU of a usual machine
MEMORY_LIMIT = 96 * MEBI  # beyond the start of the process

TOKENIZING = "tokenizing, empty word cache"
BATCHING = "batching (assembly, masking)"
PLAIN_TOKENIZING = "plain Python: tokenizing"
PLAIN_PAIRS = "plain Python: pairing and masking"


class PackageStages:
    """The stages of this project, each a method that works on the results of the previous one."""

    def __init__(self, texts: list[str], tokenizer: Tokenizer, length: int) -> None:
        self.texts = texts
        self.tokenizer = tokenizer
        self.vocabulary = Vocabulary.of(tokenizer)
        self.settings = BatchSettings(length)
        self.split()
        self.tokenize()
        self.pair()
        self.pack()
        self.rows = PretrainingRows(self.store, self.vocabulary, self.settings)
        self.batches = min(self.rows.per_pass // BATCH_SIZE, MOST_BATCHES)
        self.pairs_of_batches = [self.rows.sequences(self.row_numbers(number)) for number in range(self.batches)]
        self.assemble()
        self.num_pairs = sum(int(in_row.sum()) for _, in_row in self.pairs_of_batches)
        self.num_tokens = sum(int((batch["attention_mask"] != 0).sum()) for batch in self.inputs)

    def row_numbers(self, batch_number: int) -> np.ndarray:
        return np.arange(batch_number * BATCH_SIZE, (batch_number + 1) * BATCH_SIZE)

    def split(self) -> None:
        self.sentences = [split_sentences(text) for text in self.texts]

    def tokenize(self) -> None:
        ids, lengths = self.tokenizer.encode_flat(sentence for text in self.sentences for sentence in text)
        self.store = TokenStore(
            [ids], np.cumsum([0, *lengths]), np.cumsum([0, *map(len, self.sentences)]), fingerprint="reviews"
        )

    def tokenize_with_empty_cache(self) -> None:
        self.tokenizer = Tokenizer(self.tokenizer.backend)
        self.tokenize()

    def pair(self) -> None:
        plans = plan_sequences(
            self.store, objective="mlm-nsp", max_length=self.settings.max_length, seed=0, pass_number=0
        )
        self.plan = np.concatenate(list(plans))

    def pack(self) -> None:
        pack(sequence_lengths(self.plan), self.settings.max_length, slots=self.settings.slots)

    def assemble(self) -> None:
        sizes: dict[str, int] = {"max_length": self.settings.max_length, "slots": self.settings.slots}
        self.inputs = [
            build_inputs(self.store, *pairs, self.vocabulary, next_sentence=True, **sizes)
            for pairs in self.pairs_of_batches
        ]

    def mask(self) -> None:
        for number, batch in enumerate(self.inputs):
            mask_tokens(
                batch["input_ids"],
                batch["attention_mask"],
                self.vocabulary,
                predictions=self.settings.predictions,
                seed=0,
                rows=self.row_numbers(number),
            )

    def batch(self) -> None:
        """Makes whole batches, once the pairs of an epoch are planned."""
        for number in range(self.batches):
            self.rows(self.row_numbers(number))


class PlainStages:
    """The same stages in plain Python."""

    def __init__(self, sentences: list[list[str]], tokenizer: Tokenizer, length: int) -> None:
        self.sentences = sentences
        self.length = length
        self.vocabulary = {token: token_id for token_id, token in enumerate(tokenizer.tokens)}
        self.tokenize()
        features = list(self.features())
        self.num_pairs = len(features)
        self.num_tokens = sum(sum(feature["attention_mask"]) for feature in features)
        self.corpus_tokens = sum(len(sentence) for document in self.documents for sentence in document)

    def tokenize(self) -> None:
        tokenize = partial(plain_recipe.tokenize, vocabulary=self.vocabulary)
        self.documents = [[tokens for tokens in map(tokenize, text) if tokens] for text in self.sentences]

    def features(self) -> Iterator[dict[str, Any]]:
        predictions = BatchSettings(self.length, packing=False).predictions
        return plain_recipe.make_features(
            self.documents, self.vocabulary, max_length=self.length, predictions=predictions
        )

    def make_features(self) -> None:
        for _ in self.features():
            pass


@dataclass(frozen=True)
class Stage:
    """A function to time, and the tokens and pairs that it processes."""

    run: Callable[[], Any]
    tokens: int
    pairs: int = 0


def stages_of(package: PackageStages, plain: PlainStages) -> dict[str, Stage]:
    corpus_tokens = package.store.num_tokens
    planned_tokens = int(sequence_lengths(package.plan).sum())
    planned_pairs = len(package.plan)
    tokens = package.num_tokens
    pairs = package.num_pairs
    return {
        "sentence splitting": Stage(package.split, corpus_tokens),
        TOKENIZING: Stage(package.tokenize_with_empty_cache, corpus_tokens),
        "tokenizing, the same corpus again": Stage(package.tokenize, corpus_tokens),
        "pairing": Stage(package.pair, planned_tokens, planned_pairs),
        "packing": Stage(package.pack, planned_tokens, planned_pairs),
        "assembly": Stage(package.assemble, tokens, pairs),
        "masking": Stage(package.mask, tokens, pairs),
        BATCHING: Stage(package.batch, tokens, pairs),
        PLAIN_TOKENIZING: Stage(plain.tokenize, plain.corpus_tokens),
        PLAIN_PAIRS: Stage(plain.make_features, plain.num_tokens, plain.num_pairs),
    }


def compare(length: int, rounds: int) -> None:
    """Times every stage on one core and records the tables."""
    reviews = movie_reviews(CACHE)
    order = np.random.default_rng(0).permutation(len(reviews))
    texts: list[str] = reviews.select(order)["text"][:]
    tokenizer = Tokenizer.train(Texts(reviews), VOCAB_SIZE)
    package = PackageStages(texts, tokenizer, length)
    plain = PlainStages(package.sentences[::PLAIN_EVERY], tokenizer, length)
    stages = stages_of(package, plain)
    gc.freeze()  # the texts kept for this comparison would slow down each garbage collection
    seconds = interleaved({name: stage.run for name, stage in stages.items()}, rounds)
    per_token = {name: statistics.median(seconds[name]) / stage.tokens for name, stage in stages.items()}
    filled = package.num_tokens / (package.batches * BATCH_SIZE * length)
    lines = [
        f"{len(texts):,} film reviews, {package.store.num_tokens:,} tokens, vocabulary of {VOCAB_SIZE:,}, "
        f"{length}-token rows filled to {filled:.1%}; one core",
        "",
        *format_tables(stages, per_token),
    ]
    record(f"Input: {length}-token rows", "\n".join(lines))


def format_tables(stages: dict[str, Stage], per_token: dict[str, float]) -> list[str]:
    """Returns the table of stages, and the comparison with plain Python.

    Args:
        per_token: seconds per token of each stage.
    """
    lines = ["| stage | tokens/s | pairs/s |", "|---|---|---|"]
    for name, stage in stages.items():
        pairs_per_second = f"{stage.pairs / stage.tokens / per_token[name]:,.0f}" if stage.pairs else ""
        lines.append(f"| {name} | {1 / per_token[name]:,.0f} | {pairs_per_second} |")

    every_epoch = per_token["pairing"] + per_token["packing"] + per_token[BATCHING]
    comparisons = {
        "tokenizing, once": (per_token[TOKENIZING], per_token[PLAIN_TOKENIZING]),
        "sentence pairs, every epoch": (every_epoch, per_token[PLAIN_PAIRS]),
        "first epoch, from sentences": (
            per_token[TOKENIZING] + every_epoch,
            per_token[PLAIN_TOKENIZING] + per_token[PLAIN_PAIRS],
        ),
    }
    lines += ["", "| tokens/s | bert_jax | plain Python | speedup |", "|---|---|---|---|"]
    for name, (package, plain) in comparisons.items():
        lines.append(f"| {name} | {1 / package:,.0f} | {1 / plain:,.0f} | {plain / package:.1f}x |")
    lines += [
        "",
        f"An H200 that trains on {H200_TOKENS:,} tokens/s needs {H200_TOKENS * every_epoch:.2f} of such a core, so the "
        f"loader's one thread is enough; {H200_CORES} cores would make {H200_CORES / every_epoch:,.0f} tokens/s.",
    ]
    return lines


def check_memory(times: int) -> None:
    """Turns a corpus `times` as large as the memory limit into batches, in a process with that limit."""
    with tempfile.TemporaryDirectory() as folder:
        train_tokenizer().save(folder)
        write_corpus(Path(folder), times * MEMORY_LIMIT)
        sentence = run_in_new_process(__file__, LOW_MEMORY, folder=folder)["sentence"]
    record("Input: memory", sentence)


def check_shapes(mebi: int) -> None:
    """Prepares a file that is one line, and many small files, each in a process of its own; records their memory."""
    lines = ["| corpus | text | tokens | peak memory beyond the start | time |", "|---|---|---|---|---|"]
    with tempfile.TemporaryDirectory() as folder:
        train_tokenizer().save(Path(folder) / "tokenizer")
        for shape in SHAPES:
            write_shape(Path(folder), shape, mebi * MEBI)
            lines.append(run_in_new_process(__file__, LOW_MEMORY, folder=folder, shape=shape)["row"])
    record("Input: one huge line, many small files", "\n".join(lines))


def measure(folder: str, shape: str | None = None) -> dict[str, str]:
    """Reads, tokenizes, plans and loads the corpus in `folder` within MEMORY_LIMIT beyond the present memory.

    Args:
        shape: prepares the corpus of `write_shape` instead, without a limit.
    """
    import resource

    if shape is not None:
        return {"row": prepare_shape(Path(folder), shape)}
    tokenizer = Tokenizer.load(folder)
    start = process_memory("VmData")  # what RLIMIT_DATA counts
    resource.setrlimit(resource.RLIMIT_DATA, (start + MEMORY_LIMIT, start + MEMORY_LIMIT))
    done = pass_over_corpus(Path(folder), tokenizer)
    return {
        "sentence": f"{done.bytes / MEBI:,.0f} MiB of text, {done.tokens:,} tokens, in a process with "
        f"{MEMORY_LIMIT / MEBI:.0f} MiB beyond its start ({start / MEBI:.0f} MiB): read in {done.reading:.0f} s, "
        f"tokenized in {done.tokenizing:.0f} s, one epoch of {done.rows:,} packed rows loaded in {done.loading:.0f} s."
    }


def main() -> None:
    parser = make_parser(__doc__, length=512)
    parser.add_argument("--rounds", type=int, default=5, help="timed runs of each stage (default: 5)")
    parser.add_argument(
        "--memory", type=int, metavar="N", help="check memory with a corpus N times as large as the limit"
    )
    parser.add_argument("--shapes", type=int, metavar="N", help="prepare a line of N MiB, and 100,000 small files")
    options = parse_options(parser, measure)
    if options.shapes:
        check_shapes(options.shapes)
    elif options.memory:
        check_memory(options.memory)
    else:
        compare(options.length, options.rounds)


if __name__ == "__main__":
    main()
