"""The choice is the one that the model prefers, for any number of choices and any other texts in the batch."""

from dataclasses import replace

import numpy as np
import pytest
import small_pipelines as small

from bert_jax.models import BertForMultipleChoice
from bert_jax.pipelines import MultipleChoice

TOLERANCE = 1e-5
SCORING = small.bert("BertForSequenceClassification", num_labels=1)  # its parameters are those of the other
BERT = replace(SCORING, model=BertForMultipleChoice(SCORING.config))
CHOOSE = MultipleChoice(BERT)
EXAMPLES = [
    {"text": "the owl", "choices": ["hooted", "played a record", "it was answered at last !"]},
    {"text": small.SHORT, "choices": ["yes", "is that so ?"]},
    {"text": "", "choices": ["owl", "", "barn", "paris , in 1923"]},
]


def counted(example):
    """The probabilities of the choices, from the model with all of them as one example."""
    pairs = [example["text"]] * len(example["choices"]), example["choices"]
    inputs = {name: array[None] for name, array in small.tokenizer()(*pairs).items()}
    logits = np.asarray(BERT(inputs.pop("input_ids"), **inputs).logits[0], np.float64)
    shares = np.exp(logits - logits.max())
    return shares / shares.sum()


def test_choices_equal_those_of_the_model():
    found = CHOOSE(EXAMPLES)
    for example, answer in zip(EXAMPLES, found, strict=True):
        want = counted(example)
        np.testing.assert_allclose(answer["probabilities"], want, atol=TOLERANCE)
        assert answer["choice"] == want.argmax()
        assert answer["score"] == max(answer["probabilities"])
    alone = CHOOSE(EXAMPLES[1])
    assert alone["probabilities"] == pytest.approx(found[1]["probabilities"], abs=TOLERANCE)
    assert [one["choice"] for one in CHOOSE(iter(EXAMPLES))] == [one["choice"] for one in found]


def test_a_choice_longer_than_a_window_is_read_in_several():
    [long] = CHOOSE([{"text": "it flew", "choices": [small.LONG, "to the barn"]}])
    assert sum(long["probabilities"]) == pytest.approx(1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("owl", r"texts\[1\]: a text must be a dict with text and choices, got 'owl'"),
        ({"text": "owl"}, r"texts\[1\]: a text must be a dict with text and choices"),
        ({"text": "owl", "choices": ["barn"]}, r"texts\[1\]: choices must be a list of two or more, got \['barn'\]"),
        ({"text": "owl", "choices": "barn"}, r"texts\[1\]: choices must be a list of two or more, got 'barn'"),
        ({"text": "owl", "choices": ["barn", 3]}, r"texts\[1\]: .*a choice"),
    ],
)
def test_the_error_for_invalid_choices_names_their_index(given, message):
    with pytest.raises(ValueError, match=message):
        CHOOSE([EXAMPLES[0], given])
    answers = CHOOSE(iter([EXAMPLES[0], given]))
    assert next(answers)["choice"] == counted(EXAMPLES[0]).argmax()
    with pytest.raises(ValueError, match=message.removeprefix(r"texts\[1\]: ")):
        next(answers)


def test_another_head_is_an_error():
    with pytest.raises(ValueError, match="MultipleChoice needs a BertForMultipleChoice; this is a BertForSeq"):
        MultipleChoice(SCORING)
