"""How fast text becomes batches, stage by stage, on one core; and in how little memory.

Film reviews go through every stage of the input here, and through the same recipe written as plain Python
(`plain_recipe.py`), in turns (A B A B ...). A corpus is split and tokenized once; pairing, packing, masking and
batching are done again in every pass. The tokenizer keeps the ids of words, so tokenizing is timed twice: by one that
has met no word, which is what a first pass is judged by, and by one that has just read the same corpus.

    python benchmarks/input.py --length 512
    python benchmarks/input.py --memory 10

`--memory N` makes a corpus N times as large as the memory that a process is given beyond its start, and takes it from
text to batches in that process: the kernel refuses what goes beyond (RLIMIT_DATA: all memory but mapped files).
"""

import os

os.environ["TOKENIZERS_PARALLELISM"] = "false"  # rates are those of one core

import argparse
import gc
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import plain_recipe
from common.corpus_pass import BATCH, CACHE, SPARING, VOCABULARY, pass_through, some_tokenizer, write_reviews
from common.timing import interleaved, record

from bert_jax.data.packing import pack
from bert_jax.data.pretraining.loader import BatchSettings, PretrainingRows
from bert_jax.data.pretraining.masking import Vocabulary, mask_tokens
from bert_jax.data.pretraining.pair_inputs import build_inputs
from bert_jax.data.pretraining.pair_planning import pair_lengths, plan_pairs
from bert_jax.data.pretraining.token_store import TokenStore
from bert_jax.data.readers.movie_reviews import movie_reviews
from bert_jax.data.readers.sources import Texts
from bert_jax.text.sentences import split_sentences
from bert_jax.text.tokenizer import Tokenizer

PLAIN_SHARE = 50  # plain Python gets every so-manieth review
H200_TOKENS, H200_CORES = 250_000, 16  # what BERT-large takes a second on one, at best, and its share of a machine
TOKENIZING = "tokenizing, no word met before"
BATCHING = "batching, with those two"
MEMORY = 96 << 20  # bytes beyond the start of the process


class Ours:
    """The stages of this project, each as a function of what the one before has left."""

    def __init__(self, texts: list[str], tokenizer: Tokenizer, length: int) -> None:
        self.texts, self.tokenizer = texts, tokenizer
        self.vocabulary = Vocabulary.of(tokenizer)
        self.settings = BatchSettings(length)
        self.split()
        self.tokenize()
        self.pair()
        self.pack()
        self.rows = PretrainingRows(self.store, self.vocabulary, self.settings)
        self.batches = min(self.rows.per_pass // BATCH, 40)
        self.taken = [self.rows.pairs(np.arange(n * BATCH, (n + 1) * BATCH)) for n in range(self.batches)]
        self.lay_out()
        self.pairs = sum(int(in_row.sum()) for _, in_row in self.taken)
        self.tokens = sum(int((batch["attention_mask"] != 0).sum()) for batch in self.inputs)

    def split(self) -> None:
        self.sentences = [split_sentences(text) for text in self.texts]

    def tokenize(self) -> None:
        ids, lengths = self.tokenizer.encode_flat(sentence for text in self.sentences for sentence in text)
        self.store = TokenStore(
            [ids], np.cumsum([0, *lengths]), np.cumsum([0, *map(len, self.sentences)]), fingerprint="reviews"
        )

    def tokenize_anew(self) -> None:
        self.tokenizer = Tokenizer(self.tokenizer.backend)
        self.tokenize()

    def pair(self) -> None:
        planned = plan_pairs(self.store, max_length=self.settings.max_length, seed=0, pass_number=0)
        self.plan = np.concatenate(list(planned))

    def pack(self) -> None:
        pack(pair_lengths(self.plan), self.settings.max_length, slots=self.settings.slots)

    def lay_out(self) -> None:
        sizes: dict[str, int] = {"max_length": self.settings.max_length, "slots": self.settings.slots}
        self.inputs = [build_inputs(self.store, *taken, self.vocabulary, **sizes) for taken in self.taken]

    def mask(self) -> None:
        for number, batch in enumerate(self.inputs):
            mask_tokens(
                batch["input_ids"],
                batch["attention_mask"],
                self.vocabulary,
                predictions=self.settings.predictions,
                seed=0,
                rows=np.arange(number * BATCH, (number + 1) * BATCH),
            )

    def batch(self) -> None:
        """All that is done for a batch once its pass is planned."""
        for number in range(self.batches):
            self.rows(np.arange(number * BATCH, (number + 1) * BATCH))


class Plain:
    """The same in plain Python."""

    def __init__(self, sentences: list[list[str]], tokenizer: Tokenizer, length: int) -> None:
        self.sentences, self.length = sentences, length
        self.vocabulary = {token: number for number, token in enumerate(tokenizer.tokens)}
        self.tokenize()
        features = list(self.features())
        self.pairs = len(features)
        self.tokens = sum(sum(feature["attention_mask"]) for feature in features)

    def tokenize(self) -> None:
        tokenize = partial(plain_recipe.tokenize, vocabulary=self.vocabulary)
        self.documents = [[tokens for tokens in map(tokenize, text) if tokens] for text in self.sentences]

    def features(self):
        predictions = BatchSettings(self.length, packing=False).predictions
        return plain_recipe.make_features(
            self.documents, self.vocabulary, max_length=self.length, predictions=predictions
        )

    def make_features(self) -> None:
        for _ in self.features():
            pass


def compare(length: int, rounds: int) -> None:
    """Times every stage on one core, and writes the table."""
    reviews = movie_reviews(CACHE)
    order = np.random.default_rng(0).permutation(len(reviews))
    texts: list[str] = reviews.select(order)["text"][:]
    tokenizer = Tokenizer.train(Texts(reviews), VOCABULARY)
    ours = Ours(texts, tokenizer, length)
    plain = Plain(ours.sentences[::PLAIN_SHARE], tokenizer, length)
    corpus_tokens, plain_tokens = ours.store.num_tokens, sum(len(s) for d in plain.documents for s in d)
    planned = int(pair_lengths(ours.plan).sum())
    # For each stage: what does it, the tokens it is given, and the pairs.
    stages: dict[str, tuple[Callable[[], Any], int, int]] = {
        "sentence splitting": (ours.split, corpus_tokens, 0),
        TOKENIZING: (ours.tokenize_anew, corpus_tokens, 0),
        "tokenizing, the same corpus again": (ours.tokenize, corpus_tokens, 0),
        "pairing": (ours.pair, planned, len(ours.plan)),
        "packing": (ours.pack, planned, len(ours.plan)),
        "laying out": (ours.lay_out, ours.tokens, ours.pairs),
        "masking": (ours.mask, ours.tokens, ours.pairs),
        BATCHING: (ours.batch, ours.tokens, ours.pairs),
        "plain Python: tokenizing": (plain.tokenize, plain_tokens, 0),
        "plain Python: pairing and masking": (plain.make_features, plain.tokens, plain.pairs),
    }
    gc.freeze()  # the texts that lie about for this comparison are no burden in use
    seconds = interleaved({name: stage[0] for name, stage in stages.items()}, rounds)
    a_token = {name: statistics.median(seconds[name]) / tokens for name, (_, tokens, _) in stages.items()}
    once = a_token[TOKENIZING], a_token["plain Python: tokenizing"]
    again = (
        a_token["pairing"] + a_token["packing"] + a_token[BATCHING],
        a_token["plain Python: pairing and masking"],
    )
    comparisons = {
        "tokenizing, once": once,
        "sentence pairs, again in each pass": again,
        "a first pass, from sentences": (once[0] + again[0], once[1] + again[1]),
    }
    lines = [
        f"{len(texts):,} film reviews, {corpus_tokens:,} tokens, {VOCABULARY:,} pieces, {length}-token rows filled to "
        f"{ours.tokens / (ours.batches * BATCH * length):.1%}; one core",
        "",
        "| | tokens/s | pairs/s |",
        "|---|---|---|",
        *(
            f"| {name} | {1 / a_token[name]:,.0f} | {f'{pairs / tokens / a_token[name]:,.0f}' if pairs else ''} |"
            for name, (_, tokens, pairs) in stages.items()
        ),
        "",
        "| tokens/s | bert_jax | plain Python | faster by |",
        "|---|---|---|---|",
        *(
            f"| {name} | {1 / mine:,.0f} | {1 / theirs:,.0f} | {theirs / mine:.1f}x |"
            for name, (mine, theirs) in comparisons.items()
        ),
        "",
        f"An H200 that takes {H200_TOKENS:,} tokens a second is fed by {H200_TOKENS * again[0]:.2f} of such a core: "
        f"the loader's one thread is enough; {H200_CORES} cores would make {H200_CORES / again[0]:,.0f} a second.",
    ]
    record(f"Input: {length}-token rows", "\n".join(lines))


def prove_memory(times: int) -> None:
    """Takes a corpus `times` as large as the memory of a process through it."""
    with tempfile.TemporaryDirectory() as folder:
        some_tokenizer().save(folder)
        write_reviews(Path(folder), times * MEMORY)
        command = [sys.executable, __file__, "--limited", folder]
        environment = {**os.environ, **SPARING}
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    record("Input: memory", answer)


def run_limited(folder: str) -> None:
    """Reads, tokenizes, plans and loads the corpus in `folder` with no more than MEMORY beyond what there is now."""
    import resource

    tokenizer, start = Tokenizer.load(folder), data_bytes()
    resource.setrlimit(resource.RLIMIT_DATA, (start + MEMORY, start + MEMORY))
    passage = pass_through(Path(folder), tokenizer)
    print(
        f"{passage.bytes / 2**20:,.0f} MiB of text, {passage.tokens:,} tokens, in a process with {MEMORY / 2**20:.0f} "
        f"MiB beyond its start ({start / 2**20:.0f} MiB): read in {passage.reading:.0f} s, tokenized in "
        f"{passage.tokenizing:.0f} s, a pass of {passage.rows:,} packed rows loaded in {passage.loading:.0f} s."
    )


def data_bytes() -> int:
    """Returns what RLIMIT_DATA counts of this process."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmData"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", type=int, help="prove memory with a corpus so many times as large")
    parser.add_argument("--limited", help=argparse.SUPPRESS)
    parser.add_argument("--record", action="store_true", help="keep the results in RESULTS.md")
    options = parser.parse_args()
    if options.limited:
        run_limited(options.limited)
    elif options.memory:
        prove_memory(options.memory)
    else:
        compare(options.length, options.rounds)


if __name__ == "__main__":
    main()
