"""Answers obey their constraints and equal those of an exhaustive search."""

from itertools import product

import numpy as np
import pytest
import small_pipelines as small

from bert_jax.pipelines import QuestionAnswerer

TOLERANCE = 1e-4
QUESTION = "where is the owl ?"
BERT = small.bert("BertForQuestionAnswering")
ANSWERER = QuestionAnswerer(BERT, overlap=8)


def logits_of_windows(context, answerer=ANSWERER):
    """The document, and the start and end logits of each of its windows, straight from the model."""
    documents = []
    list(answerer.keyed_sequences([(QUESTION, context)], documents, []))
    (document,) = documents
    found = []
    for window in document.windows:
        row = document.encoded(window)
        types = (np.arange(len(row.ids)) >= row.second).astype(int)
        outputs = answerer.bert(row.ids[None], token_type_ids=types[None])
        found.append((np.asarray(outputs.start_logits[0]), np.asarray(outputs.end_logits[0])))
    return document, found


def counted(context, longest):
    """Every admissible span with its logit: (logit, first character, last character)."""
    document, found = logits_of_windows(context)
    spans = []
    for number, (window, (starts, ends)) in enumerate(zip(document.windows, found, strict=True)):
        shift = len(document.opening) - window.start
        for start, end in product(range(window.start, window.stop), repeat=2):
            if document.owners[start] == number and start <= end < start + longest:
                first, last = document.offsets[start, 0], document.offsets[end, 1]
                spans.append((float(starts[start + shift] + ends[end + shift]), int(first), int(last)))
    return sorted(spans, reverse=True), min(float(start[0] + end[0]) for start, end in found)


@pytest.mark.parametrize("context", [small.SHORT, small.MIDDLE, small.LONG])
@pytest.mark.parametrize("longest", [1, 5, 30])
def test_answers_over_all_windows_equal_an_exhaustive_search(context, longest):
    spans, _ = counted(context, longest)
    total = np.logaddexp.reduce([logit for logit, *_ in spans])
    answers = ANSWERER(question=QUESTION, context=context, top=7, max_answer_length=longest)
    assert [(one["start"], one["end"]) for one in answers] == [(first, last) for _, first, last in spans[:7]]
    want = [np.exp(logit - total) for logit, *_ in spans[:7]]
    np.testing.assert_allclose([one["score"] for one in answers], want, rtol=TOLERANCE)
    assert all(one["answer"] == context[one["start"] : one["end"]] for one in answers)
    assert ANSWERER(question=QUESTION, context=context, max_answer_length=longest) == answers[0]


def test_all_scores_add_up_to_one():
    answers = ANSWERER(question=QUESTION, context=small.SHORT, top=10_000, max_answer_length=4, null_answer=True)
    np.testing.assert_allclose(sum(one["score"] for one in answers), 1.0, rtol=TOLERANCE)
    spans = [(one["start"], one["end"]) for one in answers]
    assert len(set(spans)) == len(spans)


@pytest.mark.parametrize("context", [small.SHORT, small.LONG])
def test_no_answer_is_given_above_the_threshold(context):
    spans, null = counted(context, 30)
    difference = null - spans[0][0]
    ask = {"question": QUESTION, "context": context}
    none = ANSWERER(ask, null_answer=True, null_threshold=difference - 0.01)
    some = ANSWERER(ask, null_answer=True, null_threshold=difference + 0.01)
    assert {name: none[name] for name in ("start", "end", "answer")} == {"start": 0, "end": 0, "answer": ""}
    assert some["answer"]
    assert ANSWERER(ask)["answer"] == some["answer"]


def test_a_model_with_a_threshold_may_give_no_answer_by_default():
    spans, null = counted(small.SHORT, 30)
    difference = null - spans[0][0]
    ask = {"question": QUESTION, "context": small.SHORT}
    some, none = ANSWERER(ask), ANSWERER(ask, null_answer=True, null_threshold=difference - 0.01)

    def keeping(threshold):
        return QuestionAnswerer(small.bert("BertForQuestionAnswering", null_threshold=threshold))

    assert keeping(difference - 0.01)(ask) == none
    assert keeping(difference + 0.01)(ask)["answer"] == some["answer"]
    assert keeping(difference - 0.01)(ask, null_answer=False) == some
    assert keeping(difference + 0.01)(ask, null_threshold=difference - 0.01) == none
    assert ANSWERER(ask, null_threshold=difference - 0.01) == none


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"question": " ", "context": "owl"}, "the question must be a non-empty string, got ' '"),
        ({"question": "owl ?", "context": ""}, "the context must be a non-empty string, got ''"),
        ({"question": "owl ?", "context": "\x00"}, "no token in the vocabulary"),
        ({"question": "owl " * 40, "context": "owl"}, "a question of 40 tokens leaves too little of 23 tokens"),
        ({"question": "owl ?"}, "a question must be a dict with question and context"),
        ("owl ?", "a question must be a dict with question and context"),
    ],
)
def test_an_invalid_question_or_context_is_an_error(given, message):
    with pytest.raises(ValueError, match=message):
        ANSWERER(given)


def test_impossible_options_are_errors():
    with pytest.raises(ValueError, match="`top` must be at least 1, got 0"):
        ANSWERER(question=QUESTION, context="owl", top=0)
    lonely = QuestionAnswerer(small.bert("BertForQuestionAnswering", type_vocab_size=1))
    with pytest.raises(ValueError, match="one token type"):
        lonely(question=QUESTION, context="owl")
