"""Answers out of a context, with the characters where they stand.

What makes a span an answer is said in `bert_jax/metrics/spans.py`.

References: Devlin et al., BERT, 2018, sections 4.2 and 4.3; google-research/bert `run_squad.py`.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from bert_jax.metrics.spans import Span, best_spans
from bert_jax.pipelines.documents import Document, Pair
from bert_jax.pipelines.pipeline import Pipeline


class QuestionAnswerer(Pipeline):
    """Finds the answer to a question in a context.

    `x({"question": ..., "context": ...})`, or `x(question=..., context=...)`, returns
    `{"score", "start", "end", "answer"}` with `answer == context[start:end]`. Options of the call:

    `top`: returns a list of the n best when above 1.
    `max_answer_length`: in tokens.
    `null_answer`: whether there may be none: `answer` is then empty, and `start` and `end` are 0. Its logit is that of
    [CLS], the lowest over the windows. `null_threshold` is how much higher than the best answer's it must be. A model
    that was fine-tuned on SQuAD 2.0 here keeps its threshold in config.json; by default there may be none where it
    does, or where one is given.

    A score is a probability among all admissible spans of all windows, the null answer with them if there may be one.
    """

    models = ("BertForQuestionAnswering",)
    everywhere = True
    offsets = True
    whole_first = "question"  # what is left of a question asks something else

    def __call__(self, questions: Any = None, *, question: Any = None, context: Any = None, **options: Any) -> Any:
        if questions is None:
            questions = {"question": question, "context": context}
        return super().__call__(questions, **options)

    def pair(self, given: Any) -> Pair:
        if not isinstance(given, Mapping) or given.keys() != {"question", "context"}:
            raise ValueError(f"wanted a dict of question and context, got {given!r:.60}")
        for name, text in given.items():
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"the {name} must be a text that is not empty, got {text!r:.60}")
        return given["question"], given["context"]

    def static(
        self,
        *,
        top: int = 1,
        max_answer_length: int = 30,
        null_answer: bool | None = None,
        null_threshold: float | None = None,
    ) -> dict[str, Any]:
        if top < 1 or max_answer_length < 1:
            raise ValueError(f"top and max_answer_length must be at least 1, got {top} and {max_answer_length}")
        return {}

    def wanted(self, outputs, batch):
        return jnp.stack([outputs.start_logits, outputs.end_logits], axis=2).astype(jnp.float32)

    def answer(
        self,
        document: Document,
        results: list[Any],
        *,
        top: int = 1,
        max_answer_length: int = 30,
        null_answer: bool | None = None,
        null_threshold: float | None = None,
    ) -> Any:
        threshold = self.bert.config.null_threshold if null_threshold is None else null_threshold
        if null_answer is None:
            null_answer = threshold is not None
        best, totals = [], []
        for number, (window, logits) in enumerate(zip(document.windows, results, strict=True)):
            start_logits, end_logits = logits.T
            inside = slice(len(document.opening), len(document.opening) + window.stop - window.start)
            starts = np.where(document.owners[window.start : window.stop] == number, start_logits[inside], -np.inf)
            spans, total = best_spans(starts, end_logits[inside], max_answer_length=max_answer_length, top=top)
            best += [Span(span.logit, span.start + window.start, span.end + window.start) for span in spans]
            totals.append(total)
        if null_answer:
            null = min(float(logits[0].sum()) for logits in results) - (threshold or 0.0)
            best.append(Span(null, -1, -1))
            totals.append(null)
        if not best:
            raise ValueError(f"the context holds no token that the vocabulary knows: {document.text!r:.60}")
        total = np.logaddexp.reduce(totals)
        best.sort(key=lambda span: -span.logit)
        answers = [self.found(document, span, float(np.exp(span.logit - total))) for span in best[:top]]
        return answers[0] if top == 1 else answers

    def found(self, document: Document, span: Span, score: float) -> dict[str, Any]:
        """Returns one result."""
        start = int(document.offsets[span.start, 0]) if span.start >= 0 else 0
        end = int(document.offsets[span.end, 1]) if span.end >= 0 else 0
        return {"score": score, "start": start, "end": end, "answer": document.text[start:end]}
