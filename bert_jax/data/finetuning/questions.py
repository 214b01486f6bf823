"""Encodes questions and their contexts as token sequences, with the first and last token of the answer.

`[CLS] question [SEP] context [SEP]`; a long context is read in several windows that cover all its tokens. The target is
[CLS] in a window without the whole answer, and for a question without an answer. Each context is encoded once, for any
number of questions about it.

Axes: n windows (sequences) of all questions.

References: Devlin et al., BERT, 2018, sections 4.2 and 4.3; google-research/bert `run_squad.py`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from tokenizers import Encoding

from bert_jax.data.finetuning.answers import WindowLogits
from bert_jax.data.finetuning.sequences import Runs, Sequences, encode_runs, join, ranges, second_starts
from bert_jax.data.readers.examples import Question
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.windows import flatten_windows, slide


@dataclass(frozen=True, eq=False)
class QuestionSequences(Sequences):
    """Windows over the contexts of questions.

    Attributes:
        owned: bool [tokens of all sequences], whether it is a token of the context that has the most context in this
            window.
        contexts: int32 [n], where the context begins in the sequence.
        context_ends: int32 [n], where it ends.
        starts, ends: int32 [n], the first and the last token of the answer in the sequence; 0 and 0 for no answer.
        questions: int64 [n], the question of each window.
        first_tokens: int64 [n], the row of `characters` of the window's first context token.
        characters: int32 [tokens of all contexts, 2], the start and end of each token in its context.
        found: bool [questions], whether `starts` and `ends` are right: False if the answer is unknown, or no span of
            tokens contains it.
        whole: bool [questions], whether a window contains the whole answer, or there is no answer.
        cut: number of truncated questions.
        no_overlap: number of contexts whose windows do not overlap, because `stride` exceeds a window.
    """

    owned: np.ndarray
    contexts: np.ndarray
    context_ends: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    questions: np.ndarray
    first_tokens: np.ndarray
    characters: np.ndarray
    found: np.ndarray
    whole: np.ndarray
    cut: int
    no_overlap: int

    per_token: ClassVar[tuple[str, ...]] = ("ids", "owned")
    per_sequence: ClassVar[tuple[str, ...]] = (
        "second", "contexts", "context_ends", "starts", "ends", "questions", "first_tokens",
    )  # fmt: skip

    def trainable(self) -> Self:
        """Returns the windows to train on: those of questions whose answers are `found` and `whole`."""
        return self.take(np.flatnonzero((self.found & self.whole)[self.questions]))

    def window_logits(self, start_logits: np.ndarray, end_logits: np.ndarray) -> list[list[WindowLogits]]:
        """Returns the logits of the windows of each question.

        Args:
            start_logits, end_logits: float [tokens of all sequences], aligned with `ids`.
        """
        allowed = np.where(self.owned, start_logits, -np.inf)
        windows: list[list[WindowLogits]] = [[] for _ in self.found]
        cls = self.offsets[:-1]
        bounds = zip(cls, cls + self.contexts, cls + self.context_ends, strict=True)
        for question, token, (cls, begin, end) in zip(self.questions, self.first_tokens, bounds, strict=True):
            windows[question].append(
                WindowLogits(
                    starts=allowed[begin:end],
                    ends=end_logits[begin:end],
                    null=(float(start_logits[cls]), float(end_logits[cls])),
                    characters=self.characters[token : token + end - begin],
                )
            )
        return windows


def encode_questions(
    questions: Sequence[Question], tokenizer: Tokenizer, *, max_length: int, stride: int, max_question_length: int
) -> QuestionSequences:
    """Encodes questions with their contexts.

    Of several answers the target is the first one that the tokens contain: see `answer_tokens`.

    Args:
        max_length: maximum number of tokens of a window with its special tokens.
        stride: distance in tokens between the starts of consecutive windows of a context; limited to the size of a
            window, so that no token is skipped.
        max_question_length: maximum number of tokens of a question; the rest is truncated.

    Raises:
        ValueError: an impossible number.
    """
    if stride < 1 or max_question_length < 1:
        raise ValueError(f"`stride` and `max_question_length` must be at least 1, got {stride}, {max_question_length}")
    special = tokenizer.layout.pair
    if max_length < max_question_length + special + 1:
        raise ValueError(
            f"`max_length` {max_length} has no room for a context beside a question of {max_question_length} tokens"
        )
    index: dict[str, int] = {}
    context_of = np.array([index.setdefault(question.context, len(index)) for question in questions], np.int64)
    contexts, characters = encode_contexts(index, tokenizer)
    whole = encode_runs([question.question for question in questions], tokenizer)
    asked = whole.cut(max_question_length)
    answered = contexts.take(context_of)
    spans = answer_spans(questions, characters, answered)

    rooms = max_length - special - asked.lengths
    sizes = zip(answered.lengths.tolist(), rooms.tolist(), strict=True)
    flat = flatten_windows([slide(length, room, min(stride, room)) for length, room in sizes])
    windows = answered.take(flat.documents)
    windows = Runs(windows.ids, windows.starts + flat.starts, flat.lengths)
    paired = np.ones(len(flat.starts), bool)
    sequences = join(asked.take(flat.documents), windows, paired, tokenizer)
    begins = second_starts(asked.take(flat.documents), paired, tokenizer)
    owned = np.zeros(len(sequences.ids), bool)
    owned[ranges(sequences.offsets[:-1] + begins, windows.lengths)] = flat.owned

    first, last = spans[flat.documents].T
    inside = (first >= flat.starts) & (last < flat.starts + flat.lengths)
    shift = begins - flat.starts
    impossible = np.array([question.impossible for question in questions], bool)
    whole_answers = impossible.copy()
    whole_answers[flat.documents[inside]] = True
    return QuestionSequences(
        ids=sequences.ids,
        offsets=sequences.offsets,
        second=sequences.second,
        owned=owned,
        contexts=begins.astype(np.int32),
        context_ends=(begins + windows.lengths).astype(np.int32),
        starts=np.where(inside, first + shift, 0).astype(np.int32),
        ends=np.where(inside, last + shift, 0).astype(np.int32),
        questions=flat.documents,
        first_tokens=windows.starts,
        characters=characters,
        found=(spans[:, 0] >= 0) | impossible,
        whole=whole_answers,
        cut=int((whole.lengths > max_question_length).sum()),
        no_overlap=int(((answered.lengths > rooms) & (stride > rooms)).sum()),
    )


def encode_contexts(texts: Iterable[str], tokenizer: Tokenizer) -> tuple[Runs, np.ndarray]:
    """Encodes texts without special tokens; also returns each token's start and end character, int32 [tokens, 2]."""
    characters = [np.zeros((0, 2), np.int32)]

    def encode(batch: list[str]) -> list[Encoding]:
        encodings = tokenizer.text_backend().encode_batch(batch, add_special_tokens=False)
        characters.extend(
            tokenizer.offsets(text, encoding).astype(np.int32) for text, encoding in zip(batch, encodings, strict=True)
        )
        return encodings

    runs = encode_runs(texts, tokenizer, encode)
    return runs, np.concatenate(characters)


def answer_spans(questions: Sequence[Question], characters: np.ndarray, contexts: Runs) -> np.ndarray:
    """Returns the first and the last token of each question's answer in its context, int64 [questions, 2]; or -1, -1.

    Args:
        characters: int [tokens of all contexts, 2].
        contexts: the context of each question.
    """
    spans = np.full((len(questions), 2), -1, np.int64)
    for number, question in enumerate(questions):
        if question.answers:
            start = contexts.starts[number]
            within = characters[start : start + contexts.lengths[number]]
            found = (answer_tokens(question.context, within, answer.text, answer.start) for answer in question.answers)
            spans[number] = next((span for span in found if span is not None), (-1, -1))
    return spans


def answer_tokens(context: str, characters: np.ndarray, text: str, start: int) -> tuple[int, int] | None:
    """Returns the first and the last token that overlap the answer at character `start`.

    None if the characters from the first to the last do not contain the answer: it is somewhere else, or begins or ends
    with characters that are in no token. White space is ignored.
    """
    wanted = " ".join(text.split())
    first = int(np.searchsorted(characters[:, 1], start, side="right"))
    last = int(np.searchsorted(characters[:, 0], start + len(text), side="left")) - 1
    if start < 0 or first > last or not wanted:
        return None
    shown = context[characters[first, 0] : characters[last, 1]]
    return (first, last) if wanted in " ".join(shown.split()) else None
