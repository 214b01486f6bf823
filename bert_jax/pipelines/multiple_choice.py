"""Chooses the right one of several continuations of a text.

Each choice is a separate sequence, `[CLS] text [SEP] choice [SEP]`, with one score, and the softmax is over the choices
of a text. So the model reads single choices, and a text has any number of them.

References: Devlin et al., BERT, 2018, section 4.4; Zellers et al., SWAG, 2018.
"""

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.metrics.classification import softmax
from bert_jax.models import Outputs
from bert_jax.pipelines.documents import Document
from bert_jax.pipelines.pipeline import Pipeline
from bert_jax.text.inputs import require_string


class MultipleChoice(Pipeline):
    """Chooses the continuation of a text.

    `chooser({"text": ..., "choices": [...]})` returns `{"choice", "score", "probabilities"}`: the index of the choice,
    its probability, and the probabilities of all choices. A text has two or more choices. The score of a pair that is
    too long for a window is the mean over its windows, weighted by their tokens.
    """

    models = ("BertForMultipleChoice",)
    task = "multiple-choice"

    def stream(self, texts: Iterable[Any], *, total: int | None = None, **options: Any) -> Iterator[Any]:
        counts: deque[int] = deque()  # number of choices of each text that is read and not yet answered

        def pairs() -> Iterator[dict[str, str]]:
            for given in texts:
                text, choices = require_choices(given)
                counts.append(len(choices))
                yield from ({"text": text, "text_pair": choice} for choice in choices)

        logits = super().stream(pairs(), **options)

        def answers() -> Iterator[dict[str, Any]]:
            for first in logits:
                yield best_choice(np.array([first, *islice(logits, counts.popleft() - 1)]))

        return answers()

    def select(self, outputs: Outputs, batch: Mapping[str, jax.Array], options: Mapping[str, Any]) -> jax.Array:
        return outputs.logits.astype(jnp.float32)

    def answer(self, document: Document, results: list[Any], options: Mapping[str, Any]) -> float:
        tokens = [window.stop - window.start + 1 for window in document.windows]
        return float(np.average(np.concatenate(results)[:, 0], weights=tokens))


def require_choices(given: Any) -> tuple[str, list[str]]:
    """Checks and returns a text and its choices: strings, and two or more choices."""
    if not isinstance(given, Mapping) or given.keys() != {"text", "choices"}:
        raise ValueError(f"a text must be a dict with text and choices, got {given!r:.60}")
    choices = given["choices"]
    if not isinstance(choices, list | tuple) or len(choices) < 2:
        raise ValueError(f"choices must be a list of two or more, got {choices!r:.60}")
    return require_string(given["text"]), [require_string(choice, "a choice") for choice in choices]


def best_choice(logits: np.ndarray) -> dict[str, Any]:
    """Returns the answer for the logits of a text's choices, [C]."""
    probabilities = softmax(logits)
    best = int(logits.argmax())
    return {"choice": best, "score": float(probabilities[best]), "probabilities": probabilities.tolist()}
