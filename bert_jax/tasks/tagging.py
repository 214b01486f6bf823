"""Words with a tag each: named entities and the like.

References: Devlin et al., BERT, 2018, section 5.3; Tjong Kim Sang, De Meulder, CoNLL-2003 (entities by exact span).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from bert_jax.data.finetuning.batches import Features
from bert_jax.data.finetuning.tags import IGNORED, TaggedSequences, encode_tagged
from bert_jax.data.readers.examples import TaggedExample
from bert_jax.metrics.classification import collapsed, confusion, softmax
from bert_jax.metrics.entities import OUTSIDE, count_entities, total
from bert_jax.models import Bert, BertForTokenClassification
from bert_jax.tasks.base import Answers, Part
from bert_jax.tasks.reports import draw_confusion, list_mistakes
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import objectives


class Tags(NamedTuple):
    """What is predicted for each word of each sentence: the tag's name, and its probability, float64 [words]."""

    names: list[list[str]]
    scores: list[np.ndarray]


@dataclass(frozen=True, eq=False)
class Tagging:
    """Sentences of words with tags.

    Attributes:
        names: of the tags, in the order of their ids.
        smoothing: of labels, see `losses.cross_entropy`.
        mistakes: how many are listed.
    """

    names: tuple[str, ...]
    smoothing: float = 0.0
    mistakes: int = 20

    model: ClassVar[type[Bert]] = BertForTokenClassification
    per_token: ClassVar[bool] = True

    @property
    def metric(self) -> str:
        return "f1"

    @property
    def changes(self) -> dict[str, Any]:
        return {"label_names": self.names}

    @property
    def missing(self) -> int:
        """The tag of a word that has no piece to speak for it."""
        return self.names.index(OUTSIDE) if OUTSIDE in self.names else 0

    def encode(
        self,
        name: str,
        examples: Sequence[TaggedExample],
        tokenizer: Tokenizer,
        *,
        max_length: int,
        overlap: int,
        labelled: bool = True,
    ) -> tuple[Part, int]:
        """Encodes a part of the data; also returns how many words have no piece and are not learned of.

        Args:
            labelled: whether tags must be known; else they are not looked at.

        Raises:
            ValueError: a sentence without tags, or with one that is none of the names, with its place.
        """
        untagged = next((example for example in examples if example.tags is None), None)
        if labelled and untagged is not None:
            raise ValueError(f"{untagged.where}: no tags")
        asked = examples if labelled else [replace(example, tags=None) for example in examples]
        sequences = encode_tagged(asked, tokenizer, names=self.names, max_length=max_length, overlap=overlap)
        known = sequences.labels != IGNORED
        targets = {"labels": np.where(known, sequences.labels, 0), "weights": known.astype(np.float32)}
        return Part(name, examples, Features(sequences, of_tokens=targets), labelled), sequences.unspoken

    def objective(self, model: Bert, *, learning: bool = True) -> objectives.Objective:
        return objectives.tagging(model, smoothing=self.smoothing if learning else 0.0)

    def decode(self, part: Part, answers: Answers) -> Tags:
        sequences = part.features.sequences
        assert isinstance(sequences, TaggedSequences)
        numbers = sequences.by_sentence(answers["logits"].argmax(axis=-1), self.missing)
        names = [[self.names[number] for number in sentence.tolist()] for sentence in numbers]
        return Tags(names, sequences.by_sentence(softmax(answers["logits"]).max(axis=-1), 0))

    def score(self, part: Part, found: Tags) -> dict[str, float]:
        gold = [example.tags for example in part.examples]
        counts = total(count_entities(found.names, gold))
        guesses, truths = (self.numbers(some) for some in (found.names, gold))
        return {
            "f1": counts.f1,
            "precision": counts.precision,
            "recall": counts.recall,
            "accuracy": float((guesses == truths).mean()) if len(truths) else 0.0,
            "collapsed": float(collapsed(guesses, truths)),
        }

    def numbers(self, tags: Sequence[Sequence[str]]) -> np.ndarray:
        """Returns the ids of the tags of all sentences, int [words]."""
        ids = {name: number for number, name in enumerate(self.names)}
        return np.array([ids[tag] for sentence in tags for tag in sentence], np.int64)

    def predictions(self, part: Part, found: Tags) -> Iterator[dict[str, Any]]:
        for example, tags, sure in zip(part.examples, found.names, found.scores, strict=True):
            told = {"words": list(example.words), "tags": tags, "scores": sure.tolist()}
            yield told if example.tags is None else told | {"gold": list(example.tags)}

    def report(self, folder: Path, part: Part, found: Tags) -> list[str]:
        if not part.labelled:
            return []
        gold = [example.tags for example in part.examples]
        counts = count_entities(found.names, gold)
        taken = confusion(self.numbers(found.names), self.numbers(gold), len(self.names))
        draw_confusion(folder / f"{part.file_prefix}confusion.png", taken, self.names)
        lines = [f"{'entities':>20}  precision  recall      f1  there are"]
        for kind, count in counts.items():
            lines.append(f"{kind:>20}  {count.precision:9.3f}  {count.recall:6.3f}  {count.f1:6.3f}  {count.gold:9,}")
        path = folder / f"{part.file_prefix}mistakes.md"
        columns = ("probability", "predicted", "tag", "word", "sentence", "where")
        wrong, of = int(taken.sum() - taken.trace()), int(taken.sum())
        return [*lines, *list_mistakes(path, columns, self.worst(part, found), wrong=wrong, of=of)]

    def worst(self, part: Part, found: Tags) -> list[tuple[str, ...]]:
        """Returns the most confident mistakes, a row each."""
        wrong = []
        for example, tags, scores in zip(part.examples, found.names, found.scores, strict=True):
            words = zip(example.words, tags, scores.tolist(), example.tags, strict=True)
            wrong += [(score, tag, gold, word, example) for word, tag, score, gold in words if tag != gold]
        wrong.sort(key=lambda row: -row[0])
        return [
            (f"{score:.3f}", tag, gold, word, " ".join(example.words), example.where)
            for score, tag, gold, word, example in wrong[: self.mistakes]
        ]
