"""What the data of a run hold: examples, labels, tokens, [UNK], and what is cut off. Printed, and kept in data.json."""

from collections import Counter
from typing import Any

import numpy as np

from bert_jax.data.readers.examples import IGNORED_TAG, ChoiceExample, Question, TaggedExample, TextExample
from bert_jax.messages import counted
from bert_jax.tasks.base import NEVER_SEEN, PreparedData, Split, list_first
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.vocabulary import MANY_UNKNOWN


def describe_data(data: PreparedData, tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns the facts as JSON: `sources`, what the readers made of each one, and `splits`, by name."""
    return {
        "sources": [report.as_dict() for report in data.reports],
        "splits": {split.title: describe_split(split, tokenizer) for split in data.splits},
    }


def describe_split(split: Split, tokenizer: Tokenizer) -> dict[str, Any]:
    """Returns the facts of a split.

    Returns:
        `examples`; `sequences`, which are more where texts are read in windows; `tokens`, without [CLS] and [SEP];
        `unknown_tokens`, those that are [UNK]; `Split.lost`, such as `truncated_sequences` and `tokens_never_seen`; and
        `labels`, the number of each class, unless labels are scores or unknown.
    """
    ids = split.features.sequences.ids
    special = np.isin(ids, tokenizer.layout.ids)
    labels = Counter(name for example in split.examples for name in _classes(example)) if split.labelled else {}
    return {
        "examples": len(split.examples),
        "sequences": len(split.features.sequences),
        "tokens": int(len(ids) - special.sum()),
        "unknown_tokens": int((ids == tokenizer.unk_id).sum()),
        **split.lost,
        "labels": dict(sorted(labels.items(), key=lambda pair: (-pair[1], pair[0]))),
    }


def describe_splits(report: dict[str, Any]) -> list[str]:
    """Returns the facts of the splits for the screen: a line each, and a warning about many [UNK]."""
    found = []
    for name, facts in report["splits"].items():
        unknown = facts["unknown_tokens"] / max(facts["tokens"], 1)
        counts = [f"{label} ({count:,})" for label, count in facts["labels"].items()]
        labels = f"; labels (with counts): {list_first(counts)}" if counts else ""
        found.append(f"{name}: {counted(facts['tokens'], 'token')}, {unknown:.2%} of them [UNK]{labels}")
        if facts.get(NEVER_SEEN):
            fraction = facts[NEVER_SEEN] / (facts["tokens"] + facts[NEVER_SEEN])
            found.append(f"{name}: {counted(facts[NEVER_SEEN], 'token')} ({fraction:.1%}) cut off and never seen")
        if unknown > MANY_UNKNOWN:
            found.append(
                f"warning: {unknown:.1%} of the tokens of {name} are [UNK]: is the vocabulary one of this language and "
                "casing?"
            )
    return found


def _classes(example: Any) -> tuple[str, ...]:
    """Returns the classes of an example: none for scores and without a label."""
    match example:
        case TextExample(label=str(name)):
            return (name,)
        case TextExample(label=tuple(names)):
            return tuple(name for name in names if isinstance(name, str))
        case TaggedExample(tags=tuple(names)):
            return tuple(name for name in names if name != IGNORED_TAG)
        case ChoiceExample(label=int(number)):
            return (str(number),)
        case Question(impossible=True):
            return ("no answer",)
        case Question(answers=answers) if answers:
            return ("answer",)
    return ()
