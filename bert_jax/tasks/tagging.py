"""Words with a tag each: named entities and the like.

References: Devlin et al., BERT, 2018, section 5.3; Tjong Kim Sang, De Meulder, CoNLL-2003 (entities by exact span).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bert_jax.data.encoding_tags import IGNORED, TaggedSequences, encode_tagged
from bert_jax.data.examples import TaggedExample
from bert_jax.data.finetuning import Features
from bert_jax.models import Bert, BertForTokenClassification
from bert_jax.scoring.classification import confusion
from bert_jax.scoring.entities import OUTSIDE, count_entities, total
from bert_jax.tasks.showing import draw_confusion, list_mistakes
from bert_jax.tasks.task import Answers, Part, softmax
from bert_jax.tokenization import Tokenizer
from bert_jax.training import objectives


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
        if not labelled:
            examples = [replace(example, tags=None) for example in examples]
        elif untagged := next((example for example in examples if example.tags is None), None):
            raise ValueError(f"{untagged.where}: no tags")
        sequences = encode_tagged(examples, tokenizer, names=self.names, max_length=max_length, overlap=overlap)
        asked = sequences.labels != IGNORED
        targets = {"labels": np.where(asked, sequences.labels, 0), "weights": asked.astype(np.float32)}
        return Part(name, examples, Features(sequences, of_tokens=targets)), sequences.unspoken

    def objective(self, model: Bert) -> objectives.Objective:
        return objectives.tagging(model, smoothing=self.smoothing)

    def tags(self, part: Part, answers: Answers) -> list[list[str]]:
        """Returns the predicted tags of each sentence."""
        found = sequences_of(part).by_sentence(answers["logits"].argmax(axis=-1), self.missing)
        return [[self.names[number] for number in sentence.tolist()] for sentence in found]

    def score(self, part: Part, answers: Answers) -> dict[str, float]:
        predicted, gold = self.tags(part, answers), [example.tags for example in part.examples]
        counts = total(count_entities(predicted, gold))
        right = [
            guess == truth for some in zip(predicted, gold, strict=True) for guess, truth in zip(*some, strict=True)
        ]
        return {
            "f1": counts.f1,
            "precision": counts.precision,
            "recall": counts.recall,
            "accuracy": float(np.mean(right)) if right else 0.0,
        }

    def predictions(self, part: Part, answers: Answers) -> Iterator[dict[str, Any]]:
        shares = softmax(answers["logits"]).max(axis=-1)
        scores = sequences_of(part).by_sentence(shares, 0)
        for example, tags, sure in zip(part.examples, self.tags(part, answers), scores, strict=True):
            found = {"words": list(example.words), "tags": tags, "scores": sure.tolist()}
            yield found if example.tags is None else found | {"gold": list(example.tags)}

    def report(self, folder: Path, part: Part, answers: Answers) -> list[str]:
        predicted = self.tags(part, answers)
        counts = count_entities(predicted, [example.tags for example in part.examples])
        ids = {name: number for number, name in enumerate(self.names)}
        pairs = np.array(
            [
                (ids[truth], ids[guess])
                for example, guesses in zip(part.examples, predicted, strict=True)
                for truth, guess in zip(example.tags, guesses, strict=True)
            ]
        ).reshape(-1, 2)
        taken = confusion(pairs[:, 1], pairs[:, 0], len(self.names))
        draw_confusion(folder / f"{part.file_prefix}confusion.png", taken, self.names)
        lines = [f"{'entities':>20}  precision  recall      f1  there are"]
        for kind, count in counts.items():
            lines.append(f"{kind:>20}  {count.precision:9.3f}  {count.recall:6.3f}  {count.f1:6.3f}  {count.gold:9,}")
        path = folder / f"{part.file_prefix}mistakes.md"
        columns = ("probability", "predicted", "tag", "word", "sentence", "where")
        wrong, of = int(taken.sum() - taken.trace()), int(taken.sum())
        return [*lines, *list_mistakes(path, columns, self.worst(part, answers), wrong=wrong, of=of)]

    def worst(self, part: Part, answers: Answers) -> list[tuple[str, ...]]:
        """Returns the most confident mistakes, a row each."""
        found = []
        for prediction, example in zip(self.predictions(part, answers), part.examples, strict=True):
            words = zip(example.words, prediction["tags"], prediction["scores"], example.tags, strict=True)
            found += [(score, tag, gold, word, example) for word, tag, score, gold in words if tag != gold]
        found.sort(key=lambda row: -row[0])
        return [
            (f"{score:.3f}", tag, gold, word, " ".join(example.words), example.where)
            for score, tag, gold, word, example in found[: self.mistakes]
        ]


def sequences_of(part: Part) -> TaggedSequences:
    """Returns the windows of a part."""
    sequences = part.features.sequences
    assert isinstance(sequences, TaggedSequences)
    return sequences
