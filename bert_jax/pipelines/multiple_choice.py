"""The right one of several ways in which a text may go on.

Each choice is a sequence of its own, `[CLS] text [SEP] choice [SEP]`, with a score of its own, and the softmax is over
the choices of a text: so the model answers as one that gives a single score to pairs, however many there are of a text.

References: Devlin et al., BERT, 2018, section 4.4; Zellers et al., SWAG, 2018.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import Any

import jax.numpy as jnp
import numpy as np

from bert_jax.interop.loading import LoadedBert
from bert_jax.metrics.classification import softmax
from bert_jax.models import BertForSequenceClassification
from bert_jax.pipelines.documents import Document
from bert_jax.pipelines.pipeline import Pipeline
from bert_jax.text.tokenizer import require_string


class MultipleChoice(Pipeline):
    """Chooses how a text goes on.

    `x({"text": ..., "choices": [...]})` returns `{"choice", "score", "probabilities"}`: the number of the choice, from
    0, its probability, and those of all choices. A text may have any number of them, from two on. The score of a pair
    that is too long for a window is the mean over its windows, each weighed by its tokens.
    """

    models = ("BertForMultipleChoice",)

    def __init__(self, bert: LoadedBert, **options: Any) -> None:
        super().__init__(bert, **options)
        self.bert = replace(bert, model=BertForSequenceClassification(bert.config))

    def stream(self, texts: Iterable[Any], *, total: int | None = None, **options: Any) -> Iterator[Any]:
        counts: deque[int] = deque()  # the choices of each text that was read and not yet answered

        def pairs() -> Iterator[dict[str, str]]:
            for given in texts:
                text, choices = require_choices(given)
                counts.append(len(choices))
                yield from ({"text": text, "text_pair": choice} for choice in choices)

        logits = super().stream(pairs(), **options)

        def answers() -> Iterator[dict[str, Any]]:
            for first in logits:
                yield chosen(np.array([first, *islice(logits, counts.popleft() - 1)]))

        return answers()

    def wanted(self, outputs, batch):
        return outputs.logits.astype(jnp.float32)

    def answer(self, document: Document, results: list[Any]) -> float:
        tokens = [window.stop - window.start + 1 for window in document.windows]
        return float(np.average(np.concatenate(results)[:, 0], weights=tokens))


def require_choices(given: Any) -> tuple[str, list[str]]:
    """Returns a text and its choices, once they are known to be strings and the choices two or more."""
    if not isinstance(given, Mapping) or given.keys() != {"text", "choices"}:
        raise ValueError(f"wanted a dict of text and choices, got {given!r:.60}")
    choices = given["choices"]
    if not isinstance(choices, list | tuple) or len(choices) < 2:
        raise ValueError(f"wanted a list of two choices or more, got {choices!r:.60}")
    return require_string(given["text"]), [require_string(choice, "a choice") for choice in choices]


def chosen(logits: np.ndarray) -> dict[str, Any]:
    """Returns the result for the logits of a text's choices."""
    probabilities = softmax(logits)
    best = int(logits.argmax())
    return {"choice": best, "score": float(probabilities[best]), "probabilities": probabilities.tolist()}
