"""The text of a pretraining run as batches: documents, token ids, rows of masked sequences."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

from datasets import Dataset

from bert_jax.data.prefetch import Batches
from bert_jax.data.preparation.report import SourceReport
from bert_jax.data.preparation.store import PreparedCorpus
from bert_jax.data.pretraining.corpus_report import CorpusReport, describe_corpus
from bert_jax.data.pretraining.loader import PretrainingBatches, evaluation_batches, training_batches
from bert_jax.data.pretraining.long_sentences import split_long_sentences
from bert_jax.data.pretraining.sequences import special_tokens
from bert_jax.data.pretraining.token_store import TokenStore, tokenize_corpus
from bert_jax.data.readers.corpus import read_corpus, split_documents
from bert_jax.data.readers.movie_reviews import movie_reviews
from bert_jax.data.readers.report import ReadReport
from bert_jax.messages import counted
from bert_jax.pretraining.settings import Settings
from bert_jax.text.cleaning import cleaning
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training.devices import processes

FEWEST_PER_SIDE = {"mlm-nsp": 2, "mlm": 1}  # documents; a random next sentence comes from another document


class Documents(NamedTuple):
    """The documents to train on and those held out."""

    train: Dataset
    held_out: Dataset
    report: ReadReport
    """What was found, skipped and dropped."""

    @classmethod
    def read(cls, settings: Settings) -> "Documents":
        """Reads and splits the text; the first process does it, the others find its files."""
        # Reading takes hours for a large text, and progress bars are only shown on a terminal.
        print(f"reading {', '.join(settings.text.corpus) or 'the film reviews'}")
        with processes.first_process_first("the text is read"):
            report = ReadReport("corpus", unit="documents")
            return cls(*_read_documents(settings, report), report)


@dataclass(frozen=True)
class Corpus:
    """Tokenized documents to train on and held-out ones, and the tokenizer.

    Attributes:
        sources: what was found, skipped and dropped.
        language: whose rules split the text.
        unsplit: both before long sentences are split.
        train, held_out: with sentences that fit the rows of the settings.
    """

    settings: Settings
    tokenizer: Tokenizer
    sources: Sequence[ReadReport | SourceReport]
    language: str
    unsplit: Sequence[TokenStore]
    train: TokenStore
    held_out: TokenStore

    @classmethod
    def of(cls, settings: Settings, documents: Documents, tokenizer: Tokenizer) -> "Corpus":
        """Tokenizes the documents; the first process does it, the others find its files.

        Raises:
            ValueError: a tokenizer without a mask token.
        """
        _ = tokenizer.mask_token
        print(f"tokenizing {counted(len(documents.train) + len(documents.held_out), 'document')}")
        tokenize = partial(tokenize_corpus, cache_dir=settings.text.cache_dir, language=settings.text.language)
        with processes.first_process_first("the text is tokenized"):
            unsplit = [tokenize(side, tokenizer) for side in (documents.train, documents.held_out)]
        return cls._split(settings, tokenizer, [documents.report], settings.text.language, unsplit)

    @classmethod
    def prepared(cls, settings: Settings, store: PreparedCorpus) -> "Corpus":
        """Takes the tokens of a store.

        Raises:
            ValueError: too few documents on one side.
        """
        unsplit = (store.train, store.held_out)
        fewest = FEWEST_PER_SIDE[settings.batches.objective]
        if min(side.num_documents for side in unsplit) < fewest:
            count = sum(side.num_documents for side in unsplit)
            raise ValueError(f"{store.folder}: {_too_few_documents(settings, count)}")
        language = store.content["settings"]["language"]
        return cls._split(settings, store.tokenizer, store.reports(), language, unsplit)

    def with_settings(self, settings: Settings) -> "Corpus":
        """Returns the same text in other rows, those of a phase of the run."""
        return Corpus._split(settings, self.tokenizer, self.sources, self.language, self.unsplit)

    @classmethod
    def _split(
        cls,
        settings: Settings,
        tokenizer: Tokenizer,
        sources: Sequence[ReadReport | SourceReport],
        language: str,
        unsplit: Sequence[TokenStore],
    ) -> "Corpus":
        if not settings.batches.next_sentence:
            # Runs of sentences are cut where a row is full.
            return cls(settings, tokenizer, sources, language, unsplit, *unsplit)
        split = partial(
            split_long_sentences,
            max_length=settings.batches.max_length,
            cache_dir=settings.text.cache_dir,
            special=special_tokens(tokenizer.layout),
        )
        with processes.first_process_first("long sentences are split"):
            return cls(settings, tokenizer, sources, language, unsplit, *map(split, unsplit))

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
        """Returns lines about the vocabulary, what was skipped, and the corpus, warnings last.

        Raises:
            ValueError: nothing can be learned from this corpus.
        """
        found = [line for source in self.sources for line in source.lines()]
        return [self._describe_vocabulary(), *found, *describe_corpus(*self.reports.values())]

    def report(self) -> dict[str, Any]:
        """Returns the same as JSON."""
        sides = {side: report.as_dict() for side, report in self.reports.items()}
        vocabulary = {"size": self.tokenizer.vocab_size, **cleaning(self.tokenizer.backend)}
        return {"sources": [source.as_dict() for source in self.sources], **sides, "vocabulary": vocabulary}

    @cached_property
    def reports(self) -> dict[str, CorpusReport]:
        """The numbers of the documents to train on and of the held-out ones."""
        batches = self.settings.batches
        report = partial(CorpusReport.of, settings=batches, special=special_tokens(self.tokenizer.layout))
        return {"train": report(self.train), "held_out": report(self.held_out)}

    def _describe_vocabulary(self) -> str:
        letters = cleaning(self.tokenizer.backend)
        line = f"vocabulary: {self.tokenizer.vocab_size:,} tokens, language {self.language}"
        if not letters:
            return line
        case = "lower-cased" if letters["lowercase"] else "in its own case"
        accents = "stripped" if letters["strip_accents"] else "kept"
        return f"{line}; text is {case}, accents and other marks are {accents}"


def _read_documents(settings: Settings, report: ReadReport) -> tuple[Dataset, Dataset]:
    """Returns the documents to train on and those held out; `report` counts what was read."""
    text = settings.text
    if text.corpus:
        documents = read_corpus(
            text.corpus,
            text_column=text.text_column,
            encoding=text.encoding,
            document=text.document,
            drop_duplicates=text.drop_duplicates,
            report=report,
            cache_dir=text.cache_dir,
        )
    else:
        documents = movie_reviews(text.cache_dir, drop_duplicates=text.drop_duplicates, report=report)
    count = len(documents)
    fewest = FEWEST_PER_SIDE[settings.batches.objective]
    if count < 2 * fewest:
        raise ValueError(f"{', '.join(text.corpus)}: {_too_few_documents(settings, count)}")
    held_out = max(fewest, round(text.held_out * count))
    return split_documents(documents, held_out, settings.batches.seed, fewest=fewest)


def _too_few_documents(settings: Settings, count: int) -> str:
    """Returns what a run needs, what was found, and what to do."""
    remedies = [] if settings.text.document == "line" else ["blank lines separate documents, or set `document=line`"]
    if settings.batches.next_sentence:
        wanted = "next-sentence prediction needs two documents to train on and two held out"
        remedies.append("`objective=mlm` needs one of each")
    else:
        wanted = "masked words need a document to train on and one held out"
    return "; ".join([f"{wanted}, found {count}", *remedies])
