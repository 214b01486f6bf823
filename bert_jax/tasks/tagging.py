"""Tagging: a tag for every word of a sentence, such as named entities or parts of speech.

References: Devlin et al., BERT, 2018, section 5.3; Tjong Kim Sang, De Meulder, CoNLL-2003 (entities by exact span).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from bert_jax.data.finetuning.batches import Features
from bert_jax.data.finetuning.tags import IGNORED, TaggedSequences, encode_tagged
from bert_jax.data.readers.conll import TagColumns
from bert_jax.data.readers.examples import IGNORED_TAG, TaggedExample
from bert_jax.data.readers.labels import label_names
from bert_jax.data.readers.report import ReadReport
from bert_jax.data.readers.tagged import read_tagged, require_named_tags, without_ignored
from bert_jax.metrics.classification import collapsed, confusion, softmax
from bert_jax.metrics.entities import count_entities, total
from bert_jax.metrics.tag_schemes import OUTSIDE, TagScheme, read_tag_scheme
from bert_jax.models import Bert, BertForTokenClassification
from bert_jax.tasks.base import TRAIN, Do, Logits, PreparedData, Split, Task, TaskData, parse_names
from bert_jax.tasks.reports import draw_confusion, list_mistakes
from bert_jax.tasks.source import ModelSource
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import objectives
from bert_jax.training.settings import require_at_least, require_fraction

WITHOUT_TOKEN = "words_without_token"  # a key of `Split.lost`
LONG_SENTENCE = 200  # words: a file with one sentence longer than this is probably not in the CoNLL format


@dataclass(frozen=True)
class TaggingData(TaskData):
    """Data: CoNLL, jsonl, parquet or a hub dataset"""

    word_column: str | None = None
    """Column of the words: a name, or in CoNLL files a number from 1; default: tokens or words, in CoNLL the first."""
    tag_column: str | None = None
    """Column of the tags; default: a usual name such as ner_tags, in CoNLL files the last."""
    label_names: str | None = None
    """Names of tags that are numbers, in the order of the numbers, separated by commas: O,B-per,I-per."""
    overlap: int = 32
    """Tokens that neighbouring windows of a long sentence share, at most half of a window."""
    label_smoothing: float = 0.0
    """Fraction of each tag's probability that is spread over all tags."""

    summary: ClassVar[str] = "Tag every word: named entities, parts of speech"
    model: ClassVar[type[Bert]] = BertForTokenClassification
    training_defaults: ClassVar[Mapping[str, Any]] = {"learning_rate": 5e-5}

    def check(self, do: Do) -> None:
        super().check(do)
        require_at_least(0, self, "overlap")
        require_fraction(self, "label_smoothing")
        parse_names(self.label_names)

    def read_and_encode(self, source: ModelSource, do: Do) -> PreparedData:
        examples: dict[str, list[TaggedExample]] = {}
        reports = []
        declared: tuple[str, ...] | None = parse_names(self.label_names) or None
        trained_on: Mapping[str, str] = {} if do == "train" else source.columns
        kept: dict[str, str] = {}
        for name, path, split in self.sources(do):
            report = ReadReport(path)
            examples[name], columns = self.read(path, split, report, trained_on)
            declared = declared or columns.classes
            kept = kept or self._columns_to_keep(columns)
            reports.append(report)
        names = self._names(examples, source, do, declared)
        task = Tagging(names, self.label_smoothing, tuple(kept.items()) or None)
        try:
            print(task.scheme)
        except ValueError as error:
            raise ValueError(f"{self.train if do == 'train' else source.folder}: {error}") from None
        splits = []
        for name, sentences in examples.items():
            split = task.encode(
                name,
                sentences,
                source.tokenizer,
                max_length=self.max_length,
                overlap=self.overlap,
                labelled=do != "predict",
            )
            if split.lost[WITHOUT_TOKEN]:
                print(f"{split.lost[WITHOUT_TOKEN]:,} words of {split.title} have no token and are not trained on")
            splits.append(split)
        return PreparedData(task, splits, reports)

    def _names(
        self,
        examples: Mapping[str, Sequence[TaggedExample]],
        source: ModelSource,
        do: Do,
        declared: tuple[str, ...] | None,
    ) -> tuple[str, ...]:
        """Returns the names of the tags: of the model, of the data, or those that occur.

        Args:
            declared: the names in `label_names` or in the dataset's features.
        """
        if do != "train":
            names = source.label_names
            if source.config.label_names is None:  # the model was trained on the numbers
                names = parse_names(self.label_names) or names
            if do == "evaluate":
                require_named_tags(examples[""], names)
            return names
        for sentences in examples.values():
            require_named_tags(sentences)
        known = [without_ignored(example) for example in examples[TRAIN]]
        used: set[str | None] = set()
        for example in known:
            used |= {None} if example.tags is None else set(example.tags)
        return label_names(known, source.reusable_labels(self.model, used) or declared)

    def _columns_to_keep(self, found: TagColumns) -> dict[str, str]:
        """Returns the columns to keep with a model: not the usual ones of a CoNLL file, which depend on the file."""
        kept = {}
        if self.word_column or not found.words.isdecimal():
            kept["words"] = found.words
        if found.tags and (self.tag_column or not found.tags.isdecimal()):
            kept["tags"] = found.tags
        return kept

    def read(
        self, path: str, split: str, report: ReadReport, trained_on: Mapping[str, str]
    ) -> tuple[list[TaggedExample], TagColumns]:
        """Reads the sentences of a file or of a split of a hub dataset; prints what was found and skipped."""

        def print_columns(found: TagColumns) -> None:
            print(f"{path}: words in {found.words!r}, " + (f"tags in {found.tags!r}" if found.tags else "no tags"))
            if trained_on.get("words", found.words) != found.words:
                print(f"{path}: the model was trained on words in {trained_on['words']!r}")

        examples, columns = read_tagged(
            path,
            word_column=self.word_column,
            tag_column=self.tag_column,
            label_names=parse_names(self.label_names) or None,
            split=split,
            encoding=self.encoding,
            trained_on=trained_on,
            on_columns=print_columns,
            report=report,
        )
        for line in report.lines():
            print(line)
        if len(examples) == 1 and len(examples[0].words) > LONG_SENTENCE:
            print(f"{path}: one sentence of {len(examples[0].words):,} words; an empty line ends a sentence")
        return examples, columns


class Tags(NamedTuple):
    """The predicted tag of each word of each sentence, and its probability, float64 [words]."""

    names: list[list[str]]
    scores: list[np.ndarray]


@dataclass(frozen=True, eq=False)
class Tagging(Task):
    """Sentences of words with tags.

    Attributes:
        names: of the tags, in the order of their ids.
        smoothing: of labels, see `bert_jax.functional.losses.cross_entropy`.
        columns: to keep with the model, pairs of a role and a name; None if there are none.
    """

    names: tuple[str, ...]
    smoothing: float = 0.0
    columns: tuple[tuple[str, str], ...] | None = None

    model: ClassVar[type[Bert]] = BertForTokenClassification
    per_token: ClassVar[bool] = True

    @property
    def metric(self) -> str:
        return "f1"

    @property
    def config_changes(self) -> dict[str, Any]:
        return {"label_names": self.names, "data_columns": self.columns}

    @cached_property
    def scheme(self) -> TagScheme:
        """The meaning of the tags; raises ValueError for a tag that fits no scheme."""
        return read_tag_scheme(self.names)

    @property
    def default_tag(self) -> int:
        """The id of the tag for words without a token, such as those of control characters."""
        outside = sorted(self.scheme.outside, key=lambda name: name.upper() != OUTSIDE)  # O before <pad> and the like
        return self.names.index(outside[0]) if outside else 0

    def encode(
        self,
        name: str,
        examples: Sequence[TaggedExample],
        tokenizer: Tokenizer,
        *,
        max_length: int,
        overlap: int,
        labelled: bool = True,
    ) -> Split:
        """Encodes a split; words without a token are not trained on.

        Args:
            labelled: whether tags must be known; otherwise they are ignored.

        Raises:
            ValueError: a sentence without tags or with an unknown tag, with its place.
        """
        untagged = next((example for example in examples if example.tags is None), None)
        if labelled and untagged is not None:
            raise ValueError(f"{untagged.where}: no tags")
        to_encode = examples if labelled else [replace(example, tags=None) for example in examples]
        sequences = encode_tagged(to_encode, tokenizer, names=self.names, max_length=max_length, overlap=overlap)
        # Only the first token of a word has a label; the others are ignored: "playing" -> play ##ing -> [3, IGNORED].
        known = sequences.labels != IGNORED
        targets = {"labels": np.where(known, sequences.labels, 0), "weights": known.astype(np.float32)}
        lost = {WITHOUT_TOKEN: sequences.words_without_token}
        return Split(name, examples, Features(sequences, of_tokens=targets), labelled, lost)

    def objective(self, model: Bert, *, training: bool = True) -> objectives.Objective:
        return objectives.tagging(model, smoothing=self.smoothing if training else 0.0)

    def decode(self, split: Split, logits: Logits) -> Tags:
        sequences = split.features.sequences
        assert isinstance(sequences, TaggedSequences)
        # [tokens of all windows] -> one array [words] per sentence
        ids = sequences.by_sentence(logits["logits"].argmax(axis=-1), self.default_tag)
        names = [[self.names[tag] for tag in sentence.tolist()] for sentence in ids]
        return Tags(names, sequences.by_sentence(softmax(logits["logits"]).max(axis=-1), 0))

    def compute_metrics(self, split: Split, decoded: Tags) -> dict[str, float]:
        guesses, gold = self._counted(split, decoded)
        counts = total(count_entities(guesses, gold, self.scheme))
        predicted = self._ids(guesses)
        labels = self._ids(gold)
        return {
            "f1": counts.f1,
            "precision": counts.precision,
            "recall": counts.recall,
            "accuracy": float((predicted == labels).mean()) if len(labels) else 0.0,
            "collapsed": float(collapsed(predicted, labels)),
        }

    def _counted(self, split: Split, decoded: Tags) -> tuple[list[list[str]], list[list[str]]]:
        """Returns the predicted and the gold tags of each sentence, without the words that are ignored."""
        pairs = [
            [(guess, tag) for guess, tag in zip(guesses, example.tags, strict=True) if tag != IGNORED_TAG]
            for example, guesses in zip(split.examples, decoded.names, strict=True)
        ]
        return [[guess for guess, _ in some] for some in pairs], [[tag for _, tag in some] for some in pairs]

    def _ids(self, tags: Sequence[Sequence[str]]) -> np.ndarray:
        """Returns the ids of the tags of all sentences, int64 [words]."""
        ids = {name: index for index, name in enumerate(self.names)}
        return np.array([ids[tag] for sentence in tags for tag in sentence], np.int64)

    def predictions(self, split: Split, decoded: Tags) -> Iterator[dict[str, Any]]:
        for example, tags, scores in zip(split.examples, decoded.names, decoded.scores, strict=True):
            row = {"words": list(example.words), "tags": tags, "scores": scores.tolist()}
            yield row if example.tags is None else row | {"gold": list(example.tags)}

    def report(self, folder: Path, split: Split, decoded: Tags, *, mistakes: int) -> list[str]:
        if not split.labelled:
            return []
        guesses, gold = self._counted(split, decoded)
        # Confusion is counted per word, F1 per entity: both tags of a wrong two-word entity are mistakes here.
        matrix = confusion(self._ids(guesses), self._ids(gold), len(self.names))
        lines = draw_confusion(folder / f"{split.file_prefix}confusion.png", matrix, self.names)
        lines += [f"{'entities':>20}  precision  recall      f1      gold"]
        for kind, count in count_entities(guesses, gold, self.scheme).items():
            lines.append(f"{kind:>20}  {count.precision:9.3f}  {count.recall:6.3f}  {count.f1:6.3f}  {count.gold:8,}")
        return lines + list_mistakes(
            folder / f"{split.file_prefix}mistakes.md",
            ("probability", "predicted", "tag", "word", "sentence", "where"),
            self._worst(split, decoded)[:mistakes],
            wrong=int(matrix.sum() - matrix.trace()),
            total=int(matrix.sum()),
        )

    def _worst(self, split: Split, decoded: Tags) -> list[tuple[str, ...]]:
        """Returns all mistakes, one row per word, the most confident first."""
        wrong = []
        for example, tags, scores in zip(split.examples, decoded.names, decoded.scores, strict=True):
            words = zip(example.words, tags, scores.tolist(), example.tags, strict=True)
            wrong += [
                (score, tag, gold, word, example) for word, tag, score, gold in words if gold not in (tag, IGNORED_TAG)
            ]
        wrong.sort(key=lambda row: -row[0])
        return [
            (f"{score:.3f}", tag, gold, word, " ".join(example.words), example.where)
            for score, tag, gold, word, example in wrong
        ]
