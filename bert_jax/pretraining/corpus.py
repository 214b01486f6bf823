"""The text of a pretraining run as batches: documents, a vocabulary, token ids, rows of masked sentence pairs."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import tokenizers
from datasets import Dataset
from tokenizers.normalizers import BertNormalizer

from bert_jax.data.prefetch import Batches
from bert_jax.data.pretraining.corpus_report import CorpusReport, describe_corpus
from bert_jax.data.pretraining.loader import PretrainingBatches, evaluation_batches, training_batches
from bert_jax.data.pretraining.long_sentences import split_long_sentences
from bert_jax.data.pretraining.token_store import TokenStore, tokenize_corpus
from bert_jax.data.readers.cache import new_folder
from bert_jax.data.readers.corpus import read_corpus, split_documents
from bert_jax.data.readers.movie_reviews import movie_reviews
from bert_jax.data.readers.sources import Texts
from bert_jax.pretraining.settings import Settings
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.vocabulary import default_strip_accents
from bert_jax.training.devices import processes
from bert_jax.training.runs.manifests import CHECKPOINTS
from bert_jax.training.runs.saved_steps import newest_step

VOCABULARY_FORMAT = 1  # increase it when the same documents and settings give another vocabulary
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
            stores = [
                split_long_sentences(
                    tokenize(documents, tokenizer),
                    max_length=settings.batches.max_length,
                    cache_dir=settings.text.cache_dir,
                )
                for documents in (train, held_out)
            ]
        return cls(settings, tokenizer, *stores)

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

    def lines(self) -> list[str]:
        """Returns lines about the corpus and the vocabulary, warnings last.

        Raises:
            ValueError: nothing can be learned from this corpus.
        """
        return [self._describe_vocabulary(), *describe_corpus(*self.reports.values())]

    def report(self) -> dict[str, Any]:
        """Returns the same as JSON."""
        sides = {side: report.as_dict() for side, report in self.reports.items()}
        return sides | {"vocabulary": {"size": self.tokenizer.vocab_size, **self._cleaning()}}

    @cached_property
    def reports(self) -> dict[str, CorpusReport]:
        """The numbers of the documents to train on and of the held-out ones."""
        batches = self.settings.batches
        return {"train": CorpusReport.of(self.train, batches), "held_out": CorpusReport.of(self.held_out, batches)}

    def _describe_vocabulary(self) -> str:
        cleaning = self._cleaning()
        line = f"vocabulary: {self.tokenizer.vocab_size:,} tokens, language {self.settings.text.language}"
        if not cleaning:
            return line
        case = "lower-cased" if cleaning["lowercase"] else "in its own case"
        accents = "stripped" if cleaning["strip_accents"] else "kept"
        return f"{line}; text is {case}, accents and other marks are {accents}"

    def _cleaning(self) -> dict[str, bool]:
        """Returns what the tokenizer does to the letters of a text; empty if it is not BERT's."""
        normalizer = self.tokenizer.backend.normalizer
        if not isinstance(normalizer, BertNormalizer):
            return {}
        strip = normalizer.strip_accents
        return {
            "lowercase": normalizer.lowercase,
            "strip_accents": normalizer.lowercase if strip is None else strip,
        }


def _read_documents(settings: Settings) -> tuple[Dataset, Dataset]:
    """Returns the documents to train on and those held out."""
    text = settings.text
    if text.corpus:
        documents = read_corpus(
            text.corpus,
            text_column=text.text_column,
            encoding=text.encoding,
            document=text.document,
            cache_dir=text.cache_dir,
        )
    else:
        documents = movie_reviews(text.cache_dir)
    count = len(documents)
    if count < FEWEST_DOCUMENTS:
        wanted = "next-sentence prediction needs two documents to train on and two held out"
        remedy = "" if text.document == "line" else "; blank lines separate documents, or set `document=line`"
        raise ValueError(f"{', '.join(text.corpus)}: {wanted}, found {count}{remedy}")
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
    return Tokenizer.of(
        processes.broadcast_from_first("the vocabulary is trained", partial(_train_vocabulary, settings, documents))
    )


def _train_vocabulary(settings: Settings, documents: Dataset) -> bytes:
    """Returns the tokenizer.json of a vocabulary trained on the documents; it is kept in the cache."""
    text = settings.text
    options = {
        "vocab_size": settings.model.vocab_size,
        "lowercase": text.lowercase,
        "strip_accents": default_strip_accents(text.language) if text.strip_accents is None else text.strip_accents,
        "min_frequency": text.min_frequency,
    }
    made_from = [VOCABULARY_FORMAT, tokenizers.__version__, documents._fingerprint, options]
    digest = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()
    folder = Path(text.cache_dir) / f"vocabulary-{digest}"
    if not folder.is_dir():
        print(f"training a vocabulary of {settings.model.vocab_size:,} tokens")
        tokenizer = Tokenizer.train(Texts(documents), **options)
        with new_folder(folder) as unfinished:
            (unfinished / "tokenizer.json").write_text(tokenizer.backend.to_str(), encoding="utf-8")
    try:
        tokenizer = Tokenizer.load(folder)
    except (ValueError, OSError) as error:
        raise ValueError(f"{folder}: not a cached vocabulary ({error!r:.200}); delete it") from None
    return tokenizer.backend.to_str().encode()
