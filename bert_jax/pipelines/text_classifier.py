"""Labels for texts and for pairs of texts.

References: Devlin et al., BERT, 2018, section 4.1. Sun et al., How to Fine-Tune BERT for Text Classification, 2019,
section 5.3.1 (texts longer than the window).
"""

from typing import Any

import jax.numpy as jnp
import numpy as np

from bert_jax.metrics.classification import sigmoid, softmax
from bert_jax.pipelines.documents import Document
from bert_jax.pipelines.pipeline import Pipeline


class TextClassifier(Pipeline):
    """Says which label a text carries.

    `x(text)` returns `{"label": ..., "score": ...}`; `x(text, top=n)` a list of the n best, `top=None` of all. A score
    is a softmax over the labels; a sigmoid for each, where labels may hold together or there is only one; and the plain
    value of a regression. The scores of a long text are the mean over its windows, each weighed by its tokens.
    """

    models = ("BertForSequenceClassification",)

    def static(self, *, top: int | None = 1) -> dict[str, Any]:
        if top is not None and top < 1:
            raise ValueError(f"top must be at least 1, got {top}")
        return {}

    def wanted(self, outputs, batch):
        return outputs.logits.astype(jnp.float32)

    def answer(self, document: Document, results: list[Any], *, top: int | None = 1) -> Any:
        tokens = [window.stop - window.start + 1 for window in document.windows]
        scores = np.average(self.scores(np.concatenate(results)), axis=0, weights=tokens)
        best = np.argsort(-scores, kind="stable")[:top]
        names = self.bert.config.label_names or [f"LABEL_{label}" for label in range(len(scores))]
        answers = [{"label": names[label], "score": float(scores[label])} for label in best]
        return answers[0] if top == 1 else answers

    def scores(self, logits: np.ndarray) -> np.ndarray:
        """Returns what the logits [..., C] mean."""
        config = self.bert.config
        if config.problem_type == "regression":
            return logits
        if config.problem_type == "multi_label_classification" or config.num_labels == 1:
            return sigmoid(logits)
        return softmax(logits)
