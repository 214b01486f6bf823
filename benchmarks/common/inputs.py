"""A corpus of any size, film reviews over and over, and its way from text to one pass of packed batches."""

import itertools
import time
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from bert_jax.data.pretraining.loader import BatchSettings, training_batches
from bert_jax.data.pretraining.token_store import tokenize_corpus
from bert_jax.data.readers.corpus import read_corpus
from bert_jax.data.readers.movie_reviews import movie_reviews
from bert_jax.data.readers.sources import Texts
from bert_jax.text.tokenizer import Tokenizer

CACHE = Path("~/.cache/bert_jax").expanduser()
CORPUS = "corpus.txt"
VOCABULARY = 30_522
BATCH = 256  # rows, as many as BERT was trained with
LENGTH = 512
# The environment of a process that keeps no memory in reserve.
SPARING = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1"}


class Passage(NamedTuple):
    """What was done, and the seconds that each part of it took."""

    bytes: int
    tokens: int
    rows: int
    reading: float
    tokenizing: float
    loading: float


def some_tokenizer() -> Tokenizer:
    """Returns a tokenizer that learned its vocabulary from some of the reviews."""
    return Tokenizer.train(Texts(movie_reviews(CACHE).select(range(2_000))), VOCABULARY)


def write_reviews(folder: Path, size: int) -> None:
    """Leaves so many bytes of reviews in `folder`, the same ones again where there are fewer."""
    reviews = movie_reviews(CACHE)
    with (folder / CORPUS).open("w", encoding="utf-8") as file:
        for copy in itertools.count():
            for text in Texts(reviews):
                if file.tell() >= size:
                    return
                # A copy differs in its first word, and a blank line would end the document.
                file.write(f"copy{copy} " + text.replace("\n", " ") + "\n\n")


def pass_through(folder: Path, tokenizer: Tokenizer) -> Passage:
    """Takes the corpus in `folder` through; what is cached on the way stays there too."""
    corpus, began = folder / CORPUS, time.perf_counter()
    documents = read_corpus([str(corpus)], cache_dir=folder)
    read = time.perf_counter()
    store = tokenize_corpus(documents, tokenizer, cache_dir=folder, num_proc=1)
    tokenized, settings = time.perf_counter(), BatchSettings(LENGTH)
    with training_batches(store, tokenizer, settings, batch_size=BATCH, cache_dir=folder) as batches:
        count = batches.rows_per_pass // BATCH + 1
        for _ in islice(batches, count):
            pass
    return Passage(
        bytes=corpus.stat().st_size,
        tokens=store.num_tokens,
        rows=count * BATCH,
        reading=read - began,
        tokenizing=tokenized - read,
        loading=time.perf_counter() - tokenized,
    )
