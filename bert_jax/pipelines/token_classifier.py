"""Finds entities in texts, with their characters.

References: Devlin et al., BERT, 2018, section 5.3 (the first piece of a word is classified). Ramshaw, Marcus, Text
Chunking using Transformation-Based Learning, 1995 (B-, I- and O).
"""

from collections.abc import Mapping
from itertools import pairwise
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.interop.loading import LoadedBert
from bert_jax.metrics.entities import find_entities
from bert_jax.metrics.tag_schemes import read_tag_scheme
from bert_jax.models import Outputs
from bert_jax.pipelines.documents import Document
from bert_jax.pipelines.pipeline import Pipeline
from bert_jax.text.word_marks import is_wordpiece

Aggregation = Literal["first", "average", "max", "simple"]


class LabelledWord(NamedTuple):
    """A word or a piece with its label."""

    label: str
    score: float
    word: str
    start: int
    end: int


class TokenClassifier(Pipeline):
    """Finds entities.

    `tagger(text)` returns a list of `{"entity_group", "score", "word", "start", "end"}` in the order of the text, where
    `text[start:end]` is the entity, `word` its spelling in a WordPiece vocabulary (the same, for other vocabularies),
    and `score` the mean over its words. The labels may be of any tag scheme (`metrics/tag_schemes.py`): `L-per` of
    BILOU ends an entity whose `entity_group` is `per`. Tokens with the label `O` are skipped. In a long text each token
    is labelled in the window where it has the most context, and entities are assembled afterwards, so no entity is
    split at the end of a window.

    Args:
        aggregation: the score of a word: that of its `first` piece, the `average` of its pieces, or the piece with the
            highest score (`max`); `simple` labels each piece separately.
        **options: see `Pipeline`.
    """

    models = ("BertForTokenClassification",)
    task = "tokens"
    everywhere = True
    offsets = True

    def __init__(self, bert: LoadedBert, *, aggregation: Aggregation = "first", **options: Any) -> None:
        if aggregation not in get_args(Aggregation):
            raise ValueError(f"`aggregation` must be one of {', '.join(get_args(Aggregation))}; got {aggregation!r}")
        self.aggregation = aggregation
        super().__init__(bert, **options)
        self.names = bert.config.label_names or tuple(f"LABEL_{label}" for label in range(bert.config.num_labels))
        try:
            self.scheme = read_tag_scheme(self.names)
        except ValueError as error:
            raise ValueError(f"the label names of the model (`id2label` in config.json): {error}") from None

    def select(self, outputs: Outputs, batch: Mapping[str, jax.Array], options: Mapping[str, Any]) -> jax.Array:
        return jax.nn.softmax(outputs.logits.astype(jnp.float32), axis=-1)

    def answer(self, document: Document, results: list[Any], options: Mapping[str, Any]) -> list[dict[str, Any]]:
        scores = self.token_scores(document, results)
        words = [self.labelled_word(document, scores, *word) for word in self.words(document)]
        entities = find_entities([one.label for one in words], self.scheme)
        return [self.entity(document, entity.kind, words[entity.start : entity.stop]) for entity in entities]

    def token_scores(self, document: Document, results: list[Any]) -> np.ndarray:
        """Returns the probabilities [n, C] of the document's tokens, each from the window where it has most context."""
        scores = np.zeros((len(document.ids), self.bert.config.num_labels), np.float32)
        for number, (window, result) in enumerate(zip(document.windows, results, strict=True)):
            (tokens,) = np.nonzero(document.owners == number)
            scores[tokens] = result[tokens - window.start + len(document.opening)]
        return scores

    def words(self, document: Document) -> list[tuple[int, int]]:
        """Returns the tokens start <= i < stop of each word, or of each piece."""
        begins = np.ones(len(document.ids), bool)
        if self.aggregation != "simple":
            begins = self.tokenizer.word_starts(document.text, document.ids, document.offsets)
        return list(pairwise([*np.nonzero(begins)[0].tolist(), len(document.ids)]))

    def labelled_word(self, document: Document, scores: np.ndarray, start: int, stop: int) -> LabelledWord:
        """Returns the label of the word made of tokens start <= i < stop."""
        pieces = scores[start:stop]
        if self.aggregation == "average":
            pieces = pieces.mean(axis=0, keepdims=True)
        best = pieces[pieces.max(axis=1).argmax()] if self.aggregation == "max" else pieces[0]
        begin = int(document.offsets[start, 0])
        end = max(begin, int(document.offsets[stop - 1, 1]))  # white space alone has no characters
        ids = document.ids[start:stop].tolist()
        as_in_text = self.tokenizer.unk_id in ids or not is_wordpiece(self.tokenizer.backend)
        word = document.text[begin:end] if as_in_text else self.spelled(ids)
        label = int(best.argmax())
        return LabelledWord(self.names[label], float(best[label]), word, begin, end)

    def spelled(self, ids: list[int]) -> str:
        """Returns the pieces joined; a first piece keeps its continuation prefix."""
        return self.tokenizer.decode(ids, skip_special_tokens=False)

    def entity(self, document: Document, kind: str, group: list[LabelledWord]) -> dict[str, Any]:
        """Returns the result for the words of an entity."""
        decoder = self.tokenizer.backend.decoder
        words = [one.word for one in group]
        word = decoder.decode(words) if decoder else " ".join(words)
        if not is_wordpiece(self.tokenizer.backend):
            word = document.text[group[0].start : group[-1].end]
        return {
            "entity_group": kind,
            "score": float(np.mean([one.score for one in group])),
            "word": word,
            "start": group[0].start,
            "end": group[-1].end,
        }
