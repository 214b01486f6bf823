"""The report of a run's data counts examples, labels, tokens, [UNK] and what is cut off."""

import json

import numpy as np
import pytest

from bert_jax.data.finetuning.batches import Features
from bert_jax.data.readers.examples import IGNORED_TAG, Answer, ChoiceExample, Question, TaggedExample, TextExample
from bert_jax.data.readers.report import ReadReport
from bert_jax.tasks.base import PreparedData, Split
from bert_jax.tasks.classification import Classification
from bert_jax.tasks.data_report import describe_data, describe_split, describe_splits
from bert_jax.tasks.multiple_choice import MultipleChoice
from bert_jax.tasks.question_answering import QuestionAnswering
from bert_jax.tasks.tagging import Tagging


def classified(tokenizer, texts, labels, *, max_length=9, name="train", labelled=True):
    examples = [TextExample(text, None, label, "x:1") for text, label in zip(texts, labels, strict=True)]
    task = Classification("single_label_classification", ("no", "yes"))
    return task, task.encode(name, examples, tokenizer, max_length=max_length, labelled=labelled)


def test_tokens_are_those_seen_and_those_cut_off(tokenizer):
    texts = ["an owl", "an owl an owl an owl an owl an owl", "\u2603 \u2603"]
    whole = [len(one) for one in tokenizer.encode_batch(texts, add_special_tokens=False)]
    _, split = classified(tokenizer, texts, ["no", "yes", "yes"], max_length=7)
    facts = describe_split(split, tokenizer)
    assert facts["tokens"] + facts["tokens_never_seen"] == sum(whole)
    assert facts["tokens_never_seen"] == sum(max(0, length - 5) for length in whole)
    assert facts["truncated_sequences"] == sum(length > 5 for length in whole)
    assert facts["unknown_tokens"] == 2
    assert facts["labels"] == {"yes": 2, "no": 1}


@pytest.mark.parametrize(("unknown", "warned"), [(1, False), (2, True)])
def test_more_than_two_percent_unknown_tokens_give_a_warning(unknown, warned, tokenizer):
    known = tokenizer.tokens[-1]
    texts = [" ".join([known] * 80 + ["\u2603"] * unknown)]
    task, split = classified(tokenizer, texts, ["no"], max_length=200)
    lines = describe_splits(describe_data(PreparedData(task, [split]), tokenizer))
    assert any("[UNK]: is the vocabulary" in line for line in lines) == warned


def test_labels_are_counted_for_every_task(tokenizer):
    tags = TaggedExample(("an", "owl", "flew"), ("O", IGNORED_TAG, "O"), "c:1")
    tagging = Tagging(("O", "B-x"))
    split = tagging.encode("", [tags], tokenizer, max_length=9, overlap=1)
    assert describe_split(split, tokenizer)["labels"] == {"O": 2}
    choice = ChoiceExample("an owl", ("flew", "sat"), 1, "s:1")
    split = MultipleChoice().encode("", [choice, choice], tokenizer, max_length=9)
    assert describe_split(split, tokenizer)["labels"] == {"1": 2}
    asked = Question("1", "who flew?", "an owl flew", (Answer("an owl", 0),), False, "q:1")
    unanswered = Question("2", "who sat?", "an owl flew", (), True, "q:2")
    options = {"max_length": 20, "stride": 4, "max_question_length": 5}
    split, _ = QuestionAnswering(version_2=True).encode("", [asked, unanswered], tokenizer, **options)
    assert describe_split(split, tokenizer)["labels"] == {"answer": 1, "no answer": 1}


def test_unknown_labels_and_scores_are_not_counted(tokenizer):
    _, split = classified(tokenizer, ["an owl"], [None], labelled=False)
    assert describe_split(split, tokenizer)["labels"] == {}
    scored = [TextExample("an owl", None, 0.5, "x:1"), TextExample("it flew", None, (0.5, 1.0), "x:2")]
    sequences = split.features.sequences.take([0, 0])
    features = Features(sequences, {"labels": np.zeros((2, 1), np.float32), "weights": np.ones(2, np.float32)})
    assert describe_split(Split("", scored, features), tokenizer)["labels"] == {}


def test_the_report_holds_what_the_readers_counted(tokenizer):
    task, split = classified(tokenizer, ["an owl"], ["no"], name="")
    report = ReadReport("dev.csv", rows=3, columns={"text": "body"})
    report.skip("rows without a label", "dev.csv:2")
    found = describe_data(PreparedData(task, [split], [report]), tokenizer)
    assert json.loads(json.dumps(found))["sources"] == [report.as_dict()]
    assert found["splits"]["dev"]["examples"] == 1
