"""Questions about a context, answered by a span of it, or by nothing.

References: Devlin et al., BERT, 2018, sections 4.2 and 4.3; Rajpurkar et al., SQuAD, 2016 and 2018.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from bert_jax.data.finetuning.batches import Features
from bert_jax.data.finetuning.questions import QuestionSequences, encode_questions
from bert_jax.data.readers.examples import Question
from bert_jax.metrics.classification import collapsed
from bert_jax.metrics.spans import Predictions, predict_answers
from bert_jax.metrics.squad import best_thresholds, score_answers, threshold_between, totals
from bert_jax.models import Bert, BertForQuestionAnswering
from bert_jax.tasks.base import Answers, Part
from bert_jax.tasks.reports import list_mistakes
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import objectives

NOTHING = "(no answer)"  # in the table of mistakes
NULL_THRESHOLD = "null_threshold"  # among the scores, and in config.json


class Replies(NamedTuple):
    """Answers to the questions of a part, by the questions' ids.

    Attributes:
        likeliest: the answers as if there were one to each question, the next best, and the odds that there is none.
        texts: the final answers, empty where there is none.
        threshold: the null odds above which there is none; None where there is always one.
        best: see `best_thresholds`; empty where it is not known what is right, and where there is always an answer.
    """

    likeliest: Predictions
    texts: dict[str, str]
    threshold: float | None
    best: dict[str, float]

    def share(self, name: str) -> float:
        """Returns the probability of a final answer; 0 where it is not among the best."""
        best = self.likeliest.n_best[name]
        return next((one["probability"] for one in best if one["text"] == self.texts[name]), 0.0)


@dataclass(frozen=True, eq=False)
class QuestionAnswering:
    """Questions of SQuAD v1.1, or of v2.0, where a context may not hold the answer.

    Attributes:
        version_2: whether there may be no answer.
        max_answer_length: in tokens.
        n_best: answers written to nbest_predictions.json.
        null_threshold: the null odds above which there is no answer; None = what scores best where the right answers
            are known, and else 0.
        mistakes: how many are listed.
    """

    version_2: bool
    max_answer_length: int = 30
    n_best: int = 20
    null_threshold: float | None = None
    mistakes: int = 20

    model: ClassVar[type[Bert]] = BertForQuestionAnswering
    per_token: ClassVar[bool] = True

    @property
    def metric(self) -> str:
        return "best_f1" if self.version_2 else "f1"

    @property
    def changes(self) -> dict[str, Any]:
        return {}

    def encode(
        self,
        name: str,
        questions: Sequence[Question],
        tokenizer: Tokenizer,
        *,
        max_length: int,
        stride: int,
        max_question_length: int,
        labelled: bool = True,
        learnable: bool = False,
    ) -> tuple[Part, QuestionSequences]:
        """Encodes a part of the data; also returns all of its windows.

        Args:
            labelled: whether right answers must be known; else they are not looked at.
            learnable: leave out the windows of questions whose answer the tokens do not hold, or no window as a whole.

        Raises:
            ValueError: a question without an answer where there must be one, with its place; nothing to learn from.
        """
        for question in questions if labelled else ():
            if not is_known(question):
                raise ValueError(f"{question.where}: no answer, and it is not said that there is none")
        windows = encode_questions(
            questions, tokenizer, max_length=max_length, stride=stride, max_question_length=max_question_length
        )
        chosen = windows.learnable() if learnable else windows
        if not len(chosen):
            why = "no answer is where it is said to be, or no window holds it"
            raise ValueError(f"{questions[0].where} to {questions[-1].where}: {why}")
        weights = (chosen.found & chosen.whole)[chosen.questions].astype(np.float32)
        positions = {"start_positions": chosen.starts, "end_positions": chosen.ends}
        features = Features(chosen, {"weights": weights}, positions=positions)
        return Part(name, questions, features, labelled and all(map(is_known, questions))), windows

    def objective(self, model: Bert, *, learning: bool = True) -> objectives.Objective:
        return objectives.question_answering(model)

    def decode(self, part: Part, answers: Answers) -> Replies:
        windows = part.features.sequences
        assert isinstance(windows, QuestionSequences)
        found = predict_answers(
            [question.id for question in part.examples],
            [question.context for question in part.examples],
            windows.window_logits(answers["start_logits"], answers["end_logits"]),
            n_best=self.n_best,
            max_answer_length=self.max_answer_length,
            null_answer=self.version_2,
        )
        if not self.version_2:
            return Replies(found, found.texts, None, {})
        best, threshold = {}, self.null_threshold
        if part.labelled:
            known = found.texts, golds_of(part), found.null_odds
            best = best_thresholds(*known)
            threshold = threshold_between(*known) if threshold is None else threshold
        threshold = threshold or 0.0
        return Replies(found, found.above(threshold), threshold, best)

    def score(self, part: Part, found: Replies) -> dict[str, float]:
        """Returns what the final answers are worth and, where there may be none, the threshold that they keep to."""
        golds = golds_of(part)
        scores = totals(score_answers(found.texts, golds, version_2=self.version_2), golds)
        if found.threshold is None:
            return scores
        there_is_one = np.array([bool(gold) for gold in golds.values()])
        alike = collapsed(np.array(list(found.texts.values())), there_is_one)
        return {**scores, **found.best, NULL_THRESHOLD: found.threshold, "collapsed": float(alike)}

    def predictions(self, part: Part, found: Replies) -> Iterator[dict[str, Any]]:
        for question in part.examples:
            text = found.texts[question.id]
            row = {"id": question.id, "question": question.question, "answer": text, "score": found.share(question.id)}
            if self.version_2:
                row["null_odds"] = found.likeliest.null_odds[question.id]
            gold = [answer.text for answer in question.answers]
            yield row | {"gold": gold} if gold or part.labelled else row

    def report(self, folder: Path, part: Part, found: Replies) -> list[str]:
        files: dict[str, Any] = {"predictions": found.texts, "nbest_predictions": found.likeliest.n_best}
        if self.version_2:
            files["null_odds"] = found.likeliest.null_odds
        for name, content in files.items():
            (folder / f"{part.file_prefix}{name}.json").write_text(
                json.dumps(content, indent=4) + "\n", encoding="utf-8"
            )
        lines = [f"{', '.join(f'{name}.json' for name in files)} in {folder}, in the format of SQuAD"]
        if found.threshold is not None:
            odds = f"{found.threshold:.4f}"
            lines.append(f"no answer where its logit is above the best one's by more than {odds} (--null-threshold)")
        return [*lines, *self.worst(folder, part, found)] if part.labelled else lines

    def worst(self, folder: Path, part: Part, found: Replies) -> list[str]:
        """Writes the most confident of the answers that share no word with a right one; returns what to say of them."""
        golds = golds_of(part)
        scores = score_answers(found.texts, golds, version_2=self.version_2)
        wrong = [(found.share(one.id), one) for one in part.examples if scores[one.id].f1 == 0]
        wrong.sort(key=lambda one: -one[0])
        rows = [
            (
                f"{share:.3f}",
                found.texts[one.id] or NOTHING,
                " | ".join(dict.fromkeys(golds[one.id])) or NOTHING,
                one.question,
                one.where,
            )
            for share, one in wrong[: self.mistakes]
        ]
        path = folder / f"{part.file_prefix}mistakes.md"
        columns = ("probability", "predicted", "right", "question", "where")
        return list_mistakes(path, columns, rows, wrong=len(wrong), of=len(golds))


def golds_of(part: Part) -> dict[str, list[str]]:
    """Returns the right answers by the questions' ids; none for a question that has no answer."""
    return {question.id: [answer.text for answer in question.answers] for question in part.examples}


def is_known(question: Question) -> bool:
    """Says whether it is known what is right, be it that there is no answer."""
    return bool(question.answers) or question.impossible
