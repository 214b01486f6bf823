"""Questions about a context, answered by a span of it, or by nothing.

References: Devlin et al., BERT, 2018, sections 4.2 and 4.3; Rajpurkar et al., SQuAD, 2016 and 2018.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from bert_jax.data.encoding_questions import QuestionSequences, encode_questions
from bert_jax.data.examples import Question
from bert_jax.data.finetuning import Features
from bert_jax.models import Bert, BertForQuestionAnswering
from bert_jax.scoring.answers import Predictions, predict_answers
from bert_jax.scoring.squad import best_thresholds, score_answers, totals
from bert_jax.tasks.showing import list_mistakes
from bert_jax.tasks.task import Answers, Part
from bert_jax.tokenization import Tokenizer
from bert_jax.training import objectives


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
            labelled: whether right answers must be known.
            learnable: leave out the windows of questions whose answer the tokens do not hold.

        Raises:
            ValueError: a question without an answer where there must be one, with its place; nothing to learn from.
        """
        for question in questions if labelled else ():
            if not question.answers and not question.impossible:
                raise ValueError(f"{question.where}: no answer, and it is not said that there is none")
        windows = encode_questions(
            questions, tokenizer, max_length=max_length, stride=stride, max_question_length=max_question_length
        )
        chosen = windows.learnable() if learnable else windows
        if not len(chosen):
            raise ValueError(f"{questions[0].where} to {questions[-1].where}: no answer is where it is said to be")
        weights = chosen.found[chosen.questions].astype(np.float32)
        positions = {"start_positions": chosen.starts, "end_positions": chosen.ends}
        return Part(name, questions, Features(chosen, {"weights": weights}, positions=positions)), windows

    def objective(self, model: Bert) -> objectives.Objective:
        return objectives.question_answering(model)

    def answers(self, part: Part, answers: Answers) -> Predictions:
        """Returns the answers in the texts, with the next best."""
        windows = part.features.sequences
        assert isinstance(windows, QuestionSequences)
        return predict_answers(
            [question.id for question in part.examples],
            [question.context for question in part.examples],
            windows.window_logits(answers["start_logits"], answers["end_logits"]),
            n_best=self.n_best,
            max_answer_length=self.max_answer_length,
            null_answer=self.version_2,
        )

    def score(self, part: Part, answers: Answers) -> dict[str, float]:
        found, golds = self.answers(part, answers), golds_of(part)
        if not self.version_2:
            return totals(score_answers(found.texts, golds, version_2=False), golds)
        scores = score_answers(found.above(self.null_threshold or 0.0), golds, version_2=True)
        return totals(scores, golds) | best_thresholds(found.texts, golds, found.null_odds)

    def threshold(self, found: Predictions, part: Part) -> float:
        """Returns the null odds above which there is no answer."""
        if self.null_threshold is not None or not known(part):
            return self.null_threshold or 0.0
        return best_thresholds(found.texts, golds_of(part), found.null_odds)["best_f1_threshold"]

    def texts(self, found: Predictions, part: Part) -> dict[str, str]:
        """Returns the final answers."""
        return found.above(self.threshold(found, part)) if self.version_2 else found.texts

    def predictions(self, part: Part, answers: Answers) -> Iterator[dict[str, Any]]:
        found = self.answers(part, answers)
        texts = self.texts(found, part)
        for question in part.examples:
            text = texts[question.id]
            shares = {one["text"]: one["probability"] for one in found.n_best[question.id]}
            row = {"id": question.id, "question": question.question, "answer": text, "score": shares.get(text, 0.0)}
            if self.version_2:
                row["null_odds"] = found.null_odds[question.id]
            gold = [answer.text for answer in question.answers]
            yield row | {"gold": gold} if gold or question.impossible else row

    def report(self, folder: Path, part: Part, answers: Answers) -> list[str]:
        found = self.answers(part, answers)
        texts = self.texts(found, part)
        files = {"predictions": texts, "nbest_predictions": found.n_best}
        if self.version_2:
            files["null_odds"] = found.null_odds
        for name, content in files.items():
            (folder / f"{part.file_prefix}{name}.json").write_text(
                json.dumps(content, indent=4) + "\n", encoding="utf-8"
            )
        lines = [f"{', '.join(f'{name}.json' for name in files)} in {folder}, in the format of SQuAD"]
        if self.version_2:
            odds = self.threshold(found, part)
            lines.append(
                f"no answer where its logit is above the best one's by more than {odds:.4f} (--null-threshold)"
            )
        if known(part):
            lines += self.worst(folder, part, found, texts)
        return lines

    def worst(self, folder: Path, part: Part, found: Predictions, texts: dict[str, str]) -> list[str]:
        """Writes the most confident of the answers that share no word with a right one; returns what to say of them."""
        golds = golds_of(part)
        scores = score_answers(texts, golds, version_2=self.version_2)
        wrong = []
        for question in part.examples:
            if scores[question.id].f1 == 0:
                shares = {one["text"]: one["probability"] for one in found.n_best[question.id]}
                wrong.append((shares.get(texts[question.id], 0.0), question))
        wrong.sort(key=lambda one: -one[0])
        rows = [
            (f"{share:.3f}", texts[one.id], " | ".join(dict.fromkeys(golds[one.id])), one.question, one.where)
            for share, one in wrong[: self.mistakes]
        ]
        path = folder / f"{part.file_prefix}mistakes.md"
        columns = ("probability", "predicted", "right", "question", "where")
        return list_mistakes(path, columns, rows, wrong=len(wrong), of=len(golds))


def golds_of(part: Part) -> dict[str, list[str]]:
    """Returns the right answers by the questions' ids; none for a question that has no answer."""
    return {question.id: [answer.text for answer in question.answers] for question in part.examples}


def known(part: Part) -> bool:
    """Says whether the right answers are known."""
    return all(question.answers or question.impossible for question in part.examples)
