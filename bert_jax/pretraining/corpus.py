"""The text of a pretraining run as batches: documents, a vocabulary, token ids, rows of masked sentence pairs."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from datasets import Dataset

from bert_jax.data.prefetch import Batches
from bert_jax.data.pretraining.loader import PretrainingBatches, evaluation_batches, training_batches
from bert_jax.data.pretraining.token_store import TokenStore, tokenize_corpus
from bert_jax.data.readers.corpus import read_corpus, split_documents
from bert_jax.data.readers.movie_reviews import movie_reviews
from bert_jax.data.readers.sources import Texts
from bert_jax.pretraining.settings import Settings
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training.devices import processes
from bert_jax.training.runs.checkpoints import newest_step
from bert_jax.training.runs.manifests import CHECKPOINTS

FEWEST_DOCUMENTS = 4  # two to train on and two held out: a random next sentence comes from another document


@dataclass(frozen=True)
class Corpus:
    """Tokenized documents to train on and held-out ones, and the tokenizer."""

    settings: Settings
    tokenizer: Tokenizer
    train: TokenStore
    held_out: TokenStore

    @classmethod
    def read(cls, settings: Settings) -> "Corpus":
        """Reads, splits and tokenizes the text; the first process does it, the others find its files."""
        # These take hours for a large text, and progress bars are only shown on a terminal.
        print(f"reading {', '.join(settings.text.corpus) or 'the film reviews'}")
        tokenize = partial(tokenize_corpus, cache_dir=settings.text.cache_dir, language=settings.text.language)
        with processes.first_process_first("the text is read"):
            train, held_out = _read_documents(settings)
        tokenizer = _make_tokenizer(settings, train)
        print(f"tokenizing {len(train) + len(held_out):,} documents")
        with processes.first_process_first("the text is tokenized"):
            train_store = tokenize(train, tokenizer)
            held_out_store = tokenize(held_out, tokenizer)
        return cls(settings, tokenizer, train_store, held_out_store)

    def training_batches(self, *, start_row: int, shard: tuple[int, int]) -> PretrainingBatches:
        """Returns the endless batches of training from a row on; of each batch the `shard` (index, count)."""
        return training_batches(
            self.train,
            self.tokenizer,
            self.settings.batches,
            batch_size=self.settings.training.batch_size,
            start_row=start_row,
            num_workers=self.settings.training.num_workers,
            process_index=shard[0],
            process_count=shard[1],
            cache_dir=self.settings.text.cache_dir,
        )

    def held_out_batches(self, shard: tuple[int, int] = (0, 1)) -> Batches:
        """Returns the held-out rows once, the same in every evaluation; of each batch the `shard` (index, count)."""
        return evaluation_batches(
            self.held_out,
            self.tokenizer,
            self.settings.batches,
            batch_size=self.settings.training.batch_size,
            limit_rows=self.settings.reports.eval_rows or None,
            process_index=shard[0],
            process_count=shard[1],
            cache_dir=self.settings.text.cache_dir,
        )

    def describe(self) -> str:
        """Returns a line about the size of the corpus."""
        return (
            f"corpus: {self.train.num_documents:,} documents, {self.train.num_sentences:,} sentences, "
            f"{self.train.num_tokens:,} tokens; held out: {self.held_out.num_documents:,} documents"
        )


def _read_documents(settings: Settings) -> tuple[Dataset, Dataset]:
    """Returns the documents to train on and those held out."""
    text = settings.text
    if text.corpus:
        documents = read_corpus(
            text.corpus, text_column=text.text_column, encoding=text.encoding, cache_dir=text.cache_dir
        )
    else:
        documents = movie_reviews(text.cache_dir)
    count = len(documents)
    if count < FEWEST_DOCUMENTS:
        wanted = "next-sentence prediction needs two documents to train on and two held out"
        raise ValueError(f"{', '.join(text.corpus)}: {wanted}, found {count}")
    return split_documents(documents, max(2, round(text.held_out * count)), settings.batches.seed)


def _make_tokenizer(settings: Settings, documents: Dataset) -> Tokenizer:
    """Returns the tokenizer: a resumed run's own, the one that the settings name, or one trained on the documents."""
    text = settings.text
    run = Path(settings.run.output)
    # The embeddings of a resumed run belong to the token ids of the vocabulary that it began with.
    if settings.run.resume and newest_step(run / CHECKPOINTS) is not None:
        return Tokenizer.load(run)
    if text.tokenizer:
        return Tokenizer.load(text.tokenizer)

    # Only the first process trains a vocabulary; the others, which may run on other machines, receive its bytes.
    def train() -> bytes:
        print(f"training a vocabulary of {settings.model.vocab_size:,} tokens")
        tokenizer = Tokenizer.train(
            Texts(documents),
            settings.model.vocab_size,
            lowercase=text.lowercase,
            strip_accents=text.strip_accents,
            min_frequency=text.min_frequency,
        )
        return tokenizer.backend.to_str().encode()

    return Tokenizer.of(processes.broadcast_from_first("the vocabulary is trained", train))
