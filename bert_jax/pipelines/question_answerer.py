"""Finds the answers to questions in their contexts, with their characters.

`bert_jax/data/finetuning/answers.py` defines which spans are answers.

References: Devlin et al., BERT, 2018, sections 4.2 and 4.3; google-research/bert `run_squad.py`.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.data.finetuning.answers import Span, best_spans
from bert_jax.models import Outputs
from bert_jax.pipelines.documents import Document, Pair
from bert_jax.pipelines.pipeline import Pipeline


class QuestionAnswerer(Pipeline):
    """Finds the answer to a question in a context.

    `answerer({"question": ..., "context": ...})`, or `answerer(question=..., context=...)`, returns
    `{"score", "start", "end", "answer"}` with `answer == context[start:end]`. Options of the call:

    `top`: with n above 1, returns a list of the n best answers.
    `max_answer_length`: maximum number of tokens of an answer.
    `null_answer`: allow no answer: an empty `answer`, with `start` and `end` 0. Its logit is that of [CLS], the lowest
    over the windows.
    `null_threshold`: how much the null logit must exceed the best answer's. Models fine-tuned here on SQuAD 2.0 have
    their threshold in config.json. By default no answer is allowed if there is a threshold.

    A score is the probability among all allowed spans of all windows, and the null answer if it is allowed.
    """

    models = ("BertForQuestionAnswering",)
    task = "squad"
    everywhere = True
    offsets = True
    whole_first = "question"  # a truncated question is a different question

    def __call__(self, questions: Any = None, *, question: Any = None, context: Any = None, **options: Any) -> Any:
        if questions is None:
            questions = {"question": question, "context": context}
        return super().__call__(questions, **options)

    def pair(self, given: Any) -> Pair:
        if not isinstance(given, Mapping) or given.keys() != {"question", "context"}:
            raise ValueError(f"a question must be a dict with question and context, got {given!r:.60}")
        for name, text in given.items():
            if not isinstance(text, str) or not text.strip():
                raise ValueError(f"the {name} must be a non-empty string, got {text!r:.60}")
        return given["question"], given["context"]

    def default_options(self) -> dict[str, Any]:
        return {"top": 1, "max_answer_length": 30, "null_answer": None, "null_threshold": None}

    def static(self, options: Mapping[str, Any]) -> dict[str, Any]:
        for name in ("top", "max_answer_length"):
            if options[name] < 1:
                raise ValueError(f"`{name}` must be at least 1, got {options[name]}")
        return {}

    def select(self, outputs: Outputs, batch: Mapping[str, jax.Array], options: Mapping[str, Any]) -> jax.Array:
        return jnp.stack([outputs.start_logits, outputs.end_logits], axis=2).astype(jnp.float32)

    def answer(self, document: Document, results: list[Any], options: Mapping[str, Any]) -> Any:
        top = options["top"]
        longest = options["max_answer_length"]
        threshold = options["null_threshold"]
        if threshold is None:
            threshold = self.bert.config.null_threshold
        null_answer = options["null_answer"]
        if null_answer is None:
            null_answer = threshold is not None
        best = []
        totals = []
        for number, (window, logits) in enumerate(zip(document.windows, results, strict=True)):
            start_logits, end_logits = logits.T
            inside = slice(len(document.opening), len(document.opening) + window.stop - window.start)
            starts = np.where(document.owners[window.start : window.stop] == number, start_logits[inside], -np.inf)
            spans, total = best_spans(starts, end_logits[inside], max_answer_length=longest, top=top)
            best += [Span(span.logit, span.start + window.start, span.end + window.start) for span in spans]
            totals.append(total)
        if null_answer:
            null = min(float(logits[0].sum()) for logits in results) - (threshold or 0.0)
            best.append(Span(null, -1, -1))
            totals.append(null)
        if not best:
            raise ValueError(f"the context has no token in the vocabulary: {document.text!r:.60}")
        total = np.logaddexp.reduce(totals)
        best.sort(key=lambda span: -span.logit)
        answers = [self.found(document, span, float(np.exp(span.logit - total))) for span in best[:top]]
        return answers[0] if top == 1 else answers

    def found(self, document: Document, span: Span, score: float) -> dict[str, Any]:
        """Returns one result."""
        start = int(document.offsets[span.start, 0]) if span.start >= 0 else 0
        end = max(start, int(document.offsets[span.end, 1])) if span.end >= 0 else 0
        return {"score": score, "start": start, "end": end, "answer": document.text[start:end]}
