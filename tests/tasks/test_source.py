"""The model that fine-tuning starts from: its tokenizer, and whether special tokens in texts are text."""

import numpy as np
import pytest
from small_checkpoints import edit_config, model

from bert_jax.data.finetuning.questions import encode_questions
from bert_jax.data.finetuning.sequences import encode_choices, encode_texts
from bert_jax.data.readers.examples import ChoiceExample, Question, TextExample
from bert_jax.models import BertForMaskedLM
from bert_jax.tasks.source import ModelSource


@pytest.fixture
def source(tokenizer, tmp_path):
    """Finds a small model."""
    model("BertForMaskedLM").save_pretrained(tmp_path)
    tokenizer.save(tmp_path)
    return lambda **options: ModelSource.find(str(tmp_path), **options)


def special_tokens(tokenizer):
    """Returns the number of [SEP] in examples of every kind that contain two "[SEP]" each."""
    typed = "an [SEP] owl [SEP] hooted"
    texts, _ = encode_texts(
        [TextExample(typed, None, None, "x:1"), TextExample("a", "b", None, "x:2")], tokenizer, max_length=99
    )
    choices, _ = encode_choices([ChoiceExample(typed, ("a", "b"), None, "x:1")], tokenizer, max_length=99)
    question = Question("1", typed, typed, (), True, "x:1")
    questions = encode_questions([question], tokenizer, max_length=99, stride=9, max_question_length=20)
    own = (3, 4, 2)  # those that end the texts
    found = ((each.ids == tokenizer.sep_id).sum() for each in (texts, choices, questions))
    return [int(count) - ends for count, ends in zip(found, own, strict=True)]


def test_special_tokens_in_examples_are_text_unless_templates_have_them(source):
    assert special_tokens(source().tokenizer) == [0, 0, 0]
    assert special_tokens(source(special_tokens=True).tokenizer) == [2, 4, 4]


def test_the_setting_is_kept_with_the_model(source, tmp_path):
    found = source(special_tokens=True)
    bert = found.load(BertForMaskedLM, {})
    assert bert.tokenizer is found.tokenizer
    bert.save_pretrained(tmp_path)
    assert source().tokenizer.split_special_tokens is False
    np.testing.assert_array_equal(special_tokens(source().tokenizer), [2, 4, 4])


@pytest.mark.parametrize(
    ("name", "found"), [("BertLMHeadModel", "BertForMaskedLM"), ("Mine", None), ("BertForMaskedLM", "BertForMaskedLM")]
)
def test_the_class_of_the_model_is_known_or_open(source, name, found, tmp_path):
    edit_config(tmp_path, architectures=[name])
    assert source().architecture == found
