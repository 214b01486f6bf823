"""The practice data as sources of the programs: `practice:id`, `practice:en-names`, `practice:id-questions`.

They stand where the name of a dataset on the hub stands, and have its splits: `train` and `validation`.
"""

from collections.abc import Iterable
from typing import Any

import datasets

from bert_jax.data.practice.stories import (
    GRAMMARS,
    practice_documents,
    practice_names,
    practice_questions,
)

PREFIX = "practice:"
SEEDS = {"train": 0, "validation": 1}
HELD_OUT = 5  # one held-out example for this many to train on


def practice_dataset(source: str, split: str) -> datasets.Dataset:
    """Generates a source of the practice data.

    Args:
        source: `practice:` and the language, `id` or `en`: a corpus with a column `text`. With `-names` behind it:
            words and tags. With `-questions`: questions, contexts and answers.
        split: `train` or `validation`.

    Raises:
        ValueError: there is no such source or split.
    """
    language, _, kind = source.removeprefix(PREFIX).partition("-")
    if language not in GRAMMARS or kind not in KINDS:
        known = ", ".join(f"{PREFIX}{one}{'-' * bool(kind)}{kind}" for one in GRAMMARS for kind in KINDS)
        raise ValueError(f"there is no {source!r}; the practice data are {known}")
    if split not in SEEDS:
        raise ValueError(f"{source} has no split {split!r}; its splits are {', '.join(SEEDS)}")
    rows = list(KINDS[kind](language, SEEDS[split]))
    if split == "validation":
        rows = rows[: len(rows) // HELD_OUT]
    made = datasets.Dataset.from_list(rows, split=datasets.NamedSplit(split))
    made.info.dataset_name = source
    return made


def _documents(language: Any, seed: int) -> Iterable[dict[str, Any]]:
    return ({"text": text} for text in practice_documents(language, seed=seed))


def _names(language: Any, seed: int) -> Iterable[dict[str, Any]]:
    return ({"words": one.words, "tags": one.tags} for one in practice_names(language, seed=seed))


def _questions(language: Any, seed: int) -> Iterable[dict[str, Any]]:
    for one in practice_questions(language, seed=seed):
        answers = {
            "text": [found.text for found in one.answers],
            "answer_start": [found.start for found in one.answers],
        }
        yield {"id": one.id, "question": one.question, "context": one.context, "answers": answers}


KINDS = {"": _documents, "names": _names, "questions": _questions}
