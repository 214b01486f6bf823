"""What is said of data that are not learned of as they were written: how many are cut, moved or left out."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax.data.finetuning.questions import QuestionSequences
from bert_jax.data.readers.examples import Question, TextExample
from bert_jax.finetuning.settings import Files, Squad


def say_cut(cut: int, count: int, what: str, length: int) -> None:
    """Prints how many were cut."""
    if cut:
        print(f"{cut:,} of {count:,} {what} are longer than --max-length {length} tokens and were cut")


def say_empty(examples: Sequence[TextExample], what: str) -> None:
    """Prints how many texts there is nothing of, and the first of them."""
    empty = [one.where for one in examples if not one.text.strip()]
    if empty:
        print(f"{len(empty):,} of {len(examples):,} {what} have an empty text, such as {empty[0]}")


def say_same(data: Files) -> None:
    """Prints that what is trained on is evaluated; two splits of a dataset on the hub have one name."""
    if data.train is None or data.train != data.dev:
        return
    if data.train_split == data.dev_split or Path(data.train).is_file():
        print("--dev is --train: the scores tell what was memorized")


def say_labels(names: Sequence[str], count: int) -> None:
    """Prints that classes look like scores, being numbers that are not all whole, or like texts, being so many."""
    if all(map(is_number, names)) and not all(float(name).is_integer() for name in names):
        print("the labels are numbers: --problem-type regression takes them as scores")
    elif len(names) > max(10, count / 2):
        print(f"{len(names):,} labels of {count:,} examples: is that the column of the label?")


def is_number(text: str) -> bool:
    """Says whether a text is a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def say_notes(notes: Sequence[Any], what: str) -> None:
    """Prints how many notes there are, and the first of them."""
    if notes:
        print(f"{len(notes):,} {what}, such as {notes[0]}")


def say_lost(questions: Sequence[Question], encoded: QuestionSequences, name: str, data: Squad) -> None:
    """Prints how many questions cannot be learned of, and how many are not read as they were meant to be."""
    answered = np.array([bool(question.answers) for question in questions])
    not_learned = ", and are not learned of" if name == "train" else ""
    for count, what in (
        (answered & ~encoded.found, f"have an answer that no run of tokens holds{not_learned}"),
        (answered & encoded.found & ~encoded.whole, f"have an answer that no window holds whole{not_learned}"),
        (encoded.cut, f"were cut to {data.max_question_length} tokens"),
        (encoded.apart, f"leave less than --stride {data.stride} tokens of room: their windows share no token"),
    ):
        if number := int(np.sum(count)):
            print(f"{number:,} of {len(questions):,} questions of {name} {what}")
