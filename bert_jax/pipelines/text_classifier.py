"""Classifies texts and pairs of texts.

References: Devlin et al., BERT, 2018, section 4.1. Sun et al., How to Fine-Tune BERT for Text Classification, 2019,
section 5.3.1 (texts longer than the window).
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.metrics.label_scores import label_scores
from bert_jax.models import Outputs
from bert_jax.pipelines.documents import Document, Pair
from bert_jax.pipelines.pipeline import Pipeline


class TextClassifier(Pipeline):
    """Predicts the label of a text.

    `classifier(text)` returns `{"label": ..., "score": ...}`, or, for a model of `multi_label_classification`, a list
    of all labels with their scores, best first. `top=n` returns the n best in a list, `top=None` all, `top=1` the best.

    A score is a softmax over the labels; a sigmoid for `multi_label_classification` or a single label; the value itself
    for regression. A cross-encoder has its own function for its label (`activation_fn` in its config). The scores of a
    long text are the mean over its windows, weighted by their tokens.
    """

    models = ("BertForSequenceClassification",)
    task = "classification"

    def default_options(self) -> dict[str, Any]:
        return {"top": None if self.bert.config.problem_type == "multi_label_classification" else 1}

    def pair(self, given: Any) -> Pair:
        columns = dict(self.bert.config.data_columns or ())
        if "pair" in columns and not isinstance(given, Mapping):
            names = f"{columns.get('text')!r} and {columns['pair']!r}"
            raise ValueError(f"this model was fine-tuned on pairs ({names}): give {{'text': ..., 'text_pair': ...}}")
        return super().pair(given)

    def static(self, options: Mapping[str, Any]) -> dict[str, Any]:
        if options["top"] is not None and options["top"] < 1:
            raise ValueError(f"`top` must be at least 1, got {options['top']}")
        return {}

    def select(self, outputs: Outputs, batch: Mapping[str, jax.Array], options: Mapping[str, Any]) -> jax.Array:
        return outputs.logits.astype(jnp.float32)

    def answer(self, document: Document, results: list[Any], options: Mapping[str, Any]) -> Any:
        top = options["top"]
        tokens = [window.stop - window.start + 1 for window in document.windows]
        scores = np.average(label_scores(np.concatenate(results), self.bert.config), axis=0, weights=tokens)
        best = np.argsort(-scores, kind="stable")[:top]
        names = self.bert.config.label_names or [f"LABEL_{label}" for label in range(len(scores))]
        answers = [{"label": names[label], "score": float(scores[label])} for label in best]
        return answers[0] if top == 1 else answers
