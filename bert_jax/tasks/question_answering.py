"""Question answering: answers that are spans of a context, or no answer; SQuAD v1.1 and v2.0.

References: Devlin et al., BERT, 2018, sections 4.2 and 4.3; Rajpurkar et al., SQuAD, 2016 and 2018.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np

from bert_jax.data.finetuning.answers import Predictions, predict_answers
from bert_jax.data.finetuning.batches import Features
from bert_jax.data.finetuning.questions import QuestionSequences, encode_questions
from bert_jax.data.readers.examples import Question
from bert_jax.data.readers.questions import read_questions
from bert_jax.data.readers.report import ReadReport
from bert_jax.files import write_file
from bert_jax.metrics.classification import collapsed
from bert_jax.metrics.squad import best_thresholds, score_answers, threshold_between, totals
from bert_jax.models import Bert, BertForQuestionAnswering
from bert_jax.tasks.base import TRAIN, Do, Logits, PreparedData, Split, Task, TaskData
from bert_jax.tasks.reports import list_mistakes
from bert_jax.tasks.source import ModelSource
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training import objectives
from bert_jax.training.settings import require_at_least

NO_ANSWER = "(no answer)"  # in the table of mistakes


@dataclass(frozen=True)
class QuestionAnsweringData(TaskData):
    """Data: SQuAD v1.1 or v2.0 as its own JSON, or rows of jsonl, parquet or a hub dataset"""

    stride: int = 128
    """Tokens between the starts of neighbouring windows of a context."""
    max_question_length: int = 64
    """Maximum number of tokens of a question; longer questions are cut."""
    max_answer_length: int = 30
    """Maximum number of tokens of a predicted answer."""
    version_2: bool = False
    """Allow unanswerable questions (SQuAD 2.0). Implied by --null-threshold or by any question marked is_impossible."""
    n_best: int = 20
    """Number of answers per question in nbest_predictions.json."""
    null_threshold: float | None = None
    """Predict no answer if its score exceeds the best span's by more than this. Training tunes it on --dev and saves it
    in config.json; evaluate and predict read it from there (0 if absent).
    """

    default_length: ClassVar[int] = 384
    summary: ClassVar[str] = "Answer questions by a span of a context: SQuAD v1.1 and v2.0"
    model: ClassVar[type[Bert]] = BertForQuestionAnswering
    training_defaults: ClassVar[Mapping[str, Any]] = {"epochs": 2}

    def check(self, do: Do) -> None:
        super().check(do)
        require_at_least(1, self, "stride", "max_question_length", "max_answer_length", "n_best")
        if 0 < self.max_length < self.max_question_length + 4:  # [CLS], two [SEP], and a token of the context
            raise ValueError(
                f"`max_length={self.max_length}` leaves no room for a context next to "
                f"`max_question_length={self.max_question_length}` and the special tokens"
            )
        if self.null_threshold is not None and not math.isfinite(self.null_threshold):
            raise ValueError(f"`null_threshold` must be a finite number, got {self.null_threshold}")

    def read_and_encode(self, source: ModelSource, do: Do) -> PreparedData:
        questions: dict[str, list[Question]] = {}
        reports = []
        for name, path, split in self.sources(do):
            report = ReadReport(path)
            questions[name] = read_questions(path, split=split, encoding=self.encoding, report=report)
            for line in report.lines():
                print(line)
            reports.append(report)
        threshold = self.null_threshold
        if threshold is None and do != "train":
            threshold = source.config.null_threshold  # tuned in training
        version_2 = self.version_2 or threshold is not None
        if do != "predict":  # predictions must not depend on labels
            version_2 = version_2 or any(question.impossible for asked in questions.values() for question in asked)
        task = QuestionAnswering(version_2, self.max_answer_length, self.n_best, threshold)
        splits = []
        for name, asked in questions.items():
            split, windows = task.encode(
                name,
                asked,
                source.tokenizer,
                max_length=self.max_length,
                stride=self.stride,
                max_question_length=self.max_question_length,
                labelled=do != "predict",
                trainable_only=name == TRAIN,
            )
            splits.append(replace(split, lost=self._note_lost(asked, windows, split)))
        return PreparedData(task, splits, reports)

    def _note_lost(self, questions: Sequence[Question], windows: QuestionSequences, split: Split) -> dict[str, int]:
        """Prints, and returns by reason, how many questions cannot be trained on, or are not read in full."""
        answered = np.array([bool(question.answers) for question in questions])
        not_trained = " and are not trained on" if split.name == TRAIN else ""
        lost = {}
        for reason, flags, description in (
            ("unmatched_answers", answered & ~windows.found, f"have an answer that matches no tokens{not_trained}"),
            (
                "answers_longer_than_a_window",
                answered & windows.found & ~windows.whole,
                f"have an answer longer than a window{not_trained}",
            ),
            ("truncated_questions", windows.cut, f"were cut to {self.max_question_length} tokens"),
            (
                "contexts_without_overlap",
                windows.no_overlap,
                f"leave windows of less than the stride ({self.stride} tokens), which do not overlap",
            ),
        ):
            lost[reason] = int(np.sum(flags))
            if lost[reason]:
                print(f"{lost[reason]:,} of {len(questions):,} questions of {split.title} {description}")
        return lost


class Answers(NamedTuple):
    """Predicted answers to the questions of a split, by question id.

    Attributes:
        spans: the best answers as if every question had one, and the odds of no answer.
        texts: the final answers; empty for no answer.
        threshold: the odds above which there is no answer; None if every question has one.
        best: see `best_thresholds`; empty if labels are unknown or every question has an answer.
    """

    spans: Predictions
    texts: dict[str, str]
    threshold: float | None
    best: dict[str, float]

    def probability(self, question: str) -> float:
        """Returns the probability of a final answer; 0 if it is not among the n best."""
        candidates = self.spans.n_best[question]
        return next((one["probability"] for one in candidates if one["text"] == self.texts[question]), 0.0)


@dataclass(frozen=True, eq=False)
class QuestionAnswering(Task):
    """Questions of SQuAD v1.1, or of v2.0, where the context may hold no answer.

    Attributes:
        version_2: whether a question may have no answer.
        max_answer_length: in tokens.
        n_best: the number of answers per question in nbest_predictions.json.
        null_threshold: the odds above which there is no answer; None = the best one if labels are known, else 0.
    """

    version_2: bool
    max_answer_length: int = 30
    n_best: int = 20
    null_threshold: float | None = None

    model: ClassVar[type[Bert]] = BertForQuestionAnswering
    per_token: ClassVar[bool] = True

    @property
    def metric(self) -> str:
        return "best_f1" if self.version_2 else "f1"

    def tuned_config(self, metrics: Mapping[str, float]) -> dict[str, Any]:
        threshold = metrics.get("eval_null_threshold")
        return {} if threshold is None else {"null_threshold": float(threshold)}

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
        trainable_only: bool = False,
    ) -> tuple[Split, QuestionSequences]:
        """Encodes a split; also returns all of its windows.

        Args:
            labelled: whether answers must be known; otherwise they are ignored.
            trainable_only: leave out questions whose answer matches no tokens or does not fit into a window.

        Raises:
            ValueError: a question without an answer that is not marked as impossible, with its place; no question is
                left to train on.
        """
        for question in questions if labelled else ():
            if not _has_label(question):
                raise ValueError(f"{question.where}: question has no answers and is_impossible is not set")
        windows = encode_questions(
            questions, tokenizer, max_length=max_length, stride=stride, max_question_length=max_question_length
        )
        chosen = windows.trainable() if trainable_only else windows
        if not len(chosen):
            why = "no answer is at its answer_start, or no window holds it"
            raise ValueError(f"{questions[0].where} to {questions[-1].where}: {why}")
        # Windows that cannot be trained on are evaluated nevertheless, but count nothing in the held-out loss.
        weights = (chosen.found & chosen.whole)[chosen.questions].astype(np.float32)
        positions = {"start_positions": chosen.starts, "end_positions": chosen.ends}
        features = Features(chosen, {"weights": weights}, positions=positions)
        return Split(name, questions, features, labelled and all(map(_has_label, questions))), windows

    def objective(self, model: Bert, *, training: bool = True) -> objectives.Objective:
        return objectives.question_answering(model)

    def decode(self, split: Split, logits: Logits) -> Answers:
        windows = split.features.sequences
        assert isinstance(windows, QuestionSequences)
        spans = predict_answers(
            [question.id for question in split.examples],
            [question.context for question in split.examples],
            windows.window_logits(logits["start_logits"], logits["end_logits"]),
            n_best=self.n_best,
            max_answer_length=self.max_answer_length,
            null_answer=self.version_2,
        )
        if not self.version_2:
            return Answers(spans, spans.texts, None, {})
        best: dict[str, float] = {}
        threshold = self.null_threshold
        if split.labelled:
            scored = spans.texts, _gold_answers(split), spans.null_odds
            best = best_thresholds(*scored)
            # The official script reports the best threshold; the saved one is midway between the odds of two questions.
            threshold = threshold_between(*scored) if threshold is None else threshold
        threshold = threshold or 0.0
        return Answers(spans, spans.above(threshold), threshold, best)

    def compute_metrics(self, split: Split, decoded: Answers) -> dict[str, float]:
        """Returns the metrics of the final answers and, if there may be no answer, the threshold behind them."""
        golds = _gold_answers(split)
        metrics = totals(score_answers(decoded.texts, golds, version_2=self.version_2), golds)
        if decoded.threshold is None:
            return metrics
        answerable = np.array([bool(gold) for gold in golds.values()])
        same = collapsed(np.array(list(decoded.texts.values())), answerable)
        return {**metrics, **decoded.best, "null_threshold": decoded.threshold, "collapsed": float(same)}

    def predictions(self, split: Split, decoded: Answers) -> Iterator[dict[str, Any]]:
        for question in split.examples:
            row: dict[str, Any] = {
                "id": question.id,
                "question": question.question,
                "answer": decoded.texts[question.id],
                "score": decoded.probability(question.id),
            }
            if self.version_2:
                row["null_odds"] = decoded.spans.null_odds[question.id]
            gold = [answer.text for answer in question.answers]
            yield row | {"gold": gold} if gold or split.labelled else row

    def report(self, folder: Path, split: Split, decoded: Answers, *, mistakes: int) -> list[str]:
        files: dict[str, Any] = {"predictions": decoded.texts, "nbest_predictions": decoded.spans.n_best}
        if self.version_2:
            files["null_odds"] = decoded.spans.null_odds
        for name, content in files.items():
            path = folder / f"{split.file_prefix}{name}.json"
            write_file(path, json.dumps(content, indent=4) + "\n")
        lines = [f"{', '.join(f'{name}.json' for name in files)} in {folder}, in SQuAD's format"]
        if decoded.threshold is not None:
            lines.append(
                "no answer is predicted if its score exceeds the best span's by more than the null threshold, "
                f"{decoded.threshold:.4f}"
            )
        return lines + self._list_worst(folder, split, decoded, mistakes) if split.labelled else lines

    def _list_worst(self, folder: Path, split: Split, decoded: Answers, mistakes: int) -> list[str]:
        """Writes the most confident answers that share no word with a right one; returns lines for the screen."""
        golds = _gold_answers(split)
        scores = score_answers(decoded.texts, golds, version_2=self.version_2)
        wrong = [(decoded.probability(one.id), one) for one in split.examples if scores[one.id].f1 == 0]
        wrong.sort(key=lambda pair: -pair[0])
        rows = [
            (
                f"{probability:.3f}",
                decoded.texts[one.id] or NO_ANSWER,
                " | ".join(dict.fromkeys(golds[one.id])) or NO_ANSWER,
                one.question,
                one.where,
            )
            for probability, one in wrong[:mistakes]
        ]
        path = folder / f"{split.file_prefix}mistakes.md"
        columns = ("probability", "predicted", "right", "question", "where")
        return list_mistakes(path, columns, rows, wrong=len(wrong), total=len(golds))


def _gold_answers(split: Split) -> dict[str, list[str]]:
    """Returns the right answers by question id; an empty list if there is no answer."""
    return {question.id: [answer.text for answer in question.answers] for question in split.examples}


def _has_label(question: Question) -> bool:
    """Returns whether the answer is known, or it is known that there is none."""
    return bool(question.answers) or question.impossible
