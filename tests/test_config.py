"""The config refuses impossible values and survives a round trip through config.json."""

import json

import pytest

from bert_jax import models
from bert_jax.config import PRESETS, BertConfig
from bert_jax.interop.heads import adapt_config


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden_size": 100, "num_attention_heads": 12}, "hidden_size 100 is not divisible by num_attention_heads 12"),
        ({"num_hidden_layers": 0}, "num_hidden_layers must be a positive integer, got 0"),
        ({"vocab_size": 3.5}, "vocab_size must be a positive integer, got 3.5"),
        ({"hidden_dropout_prob": 1.0}, r"hidden_dropout_prob must lie in \[0, 1\), got 1.0"),
        ({"layer_norm_eps": 0.0}, "layer_norm_eps must be above 0, got 0.0"),
        ({"hidden_act": "swish"}, "hidden_act must be one of gelu, gelu_new, relu; got 'swish'"),
        ({"dtype": "int8"}, "dtype must be one of float32, bfloat16, float64; got 'int8'"),
        ({"pad_token_id": 7, "vocab_size": 7}, "pad_token_id 7 is outside the vocabulary of 7"),
        ({"null_threshold": float("nan")}, "null_threshold must be a finite number, got nan"),
        ({"num_labels": 3, "label_names": ("a", "b")}, "num_labels is 3, but there are 2 label_names"),
    ],
)
def test_impossible_values_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        BertConfig(**changes)


@pytest.mark.parametrize("name", PRESETS)
def test_presets_have_head_size_64(name):
    config = BertConfig.preset(name)
    assert config.hidden_size == 64 * config.num_attention_heads
    assert config.intermediate_size == 4 * config.hidden_size


def test_the_default_config_is_bert_base():
    assert BertConfig.preset("base") == BertConfig()


def test_config_json_round_trip(tmp_path):
    config = BertConfig.preset("tiny", num_labels=3, label_names=("bad", "so so", "good"), hidden_act="relu")
    (tmp_path / "config.json").write_text(json.dumps(config.to_dict()))
    assert BertConfig.load(tmp_path / "config.json") == config


def test_null_threshold_is_written_only_if_set_and_kept_only_for_question_answering():
    assert "null_threshold" not in BertConfig().to_dict()
    config = BertConfig(null_threshold=-1.5)
    assert BertConfig.from_dict(config.to_dict()).null_threshold == -1.5
    assert adapt_config(config, models.BertForQuestionAnswering).null_threshold == -1.5
    assert adapt_config(config, models.BertForSequenceClassification).null_threshold is None


def test_unnamed_labels_get_the_names_of_transformers():
    assert BertConfig(num_labels=2).to_dict()["id2label"] == {"0": "LABEL_0", "1": "LABEL_1"}


def test_other_architectures_are_refused():
    with pytest.raises(ValueError, match="model_type must be bert, got 'gpt2'"):
        BertConfig.from_dict({"model_type": "gpt2"})
    with pytest.raises(ValueError, match="is_decoder must be false"):
        BertConfig.from_dict({"is_decoder": True})


def test_an_error_in_a_config_file_names_the_file(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: "):
        BertConfig.load(path)
