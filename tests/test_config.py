"""The config refuses impossible values and survives a round trip through config.json."""

import json

import jax
import jax.numpy as jnp
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
        ({"hidden_act": "mish"}, "hidden_act must be one of gelu, gelu_new, relu, silu, tanh; got 'mish'"),
        ({"dtype": "int8"}, "dtype must be one of float32, bfloat16, float64, auto; got 'int8'"),
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
    with pytest.raises(ValueError, match=r"model_type must be one of bert, roberta, .*; got 'gpt2'"):
        BertConfig.from_dict({"model_type": "gpt2"})
    with pytest.raises(ValueError, match="is_decoder must be false"):
        BertConfig.from_dict({"is_decoder": True})


def test_an_error_in_a_config_file_names_the_file(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("{")
    with pytest.raises(ValueError, match=r"config\.json: "):
        BertConfig.load(path)


@pytest.mark.parametrize(
    ("name", "value", "same"),
    [
        ("hidden_act", "gelu_python", "gelu"),
        ("hidden_act", "gelu_fast", "gelu_new"),
        ("hidden_act", "gelu_pytorch_tanh", "gelu_new"),
        ("hidden_act", "gelu_accurate", "gelu_new"),
        ("torch_dtype", "torch.float16", "float32"),
        ("torch_dtype", "torch.bfloat16", "bfloat16"),
        ("torch_dtype", "auto", "float32"),
        ("dtype", "torch.float32", "float32"),
    ],
)
def test_equal_names_mean_the_same(name, value, same):
    config = BertConfig.from_dict({name: value})
    assert getattr(config, name.removeprefix("torch_")) == same


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"layer_norm_eps": "1e-12"}, "layer_norm_eps must be a number, got '1e-12'"),
        ({"hidden_dropout_prob": "0.1"}, "hidden_dropout_prob must be a number, got '0.1'"),
        ({"initializer_range": True}, "initializer_range must be a number, got True"),
        ({"hidden_size": "768"}, "hidden_size must be a positive integer, got '768'"),
        ({"pad_token_id": "0"}, "pad_token_id must be an integer, got '0'"),
        ({"null_threshold": "0"}, "null_threshold must be a number, got '0'"),
    ],
)
def test_a_number_that_is_a_text_is_refused_by_name(changes, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        BertConfig.from_dict(changes)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"0": "bad", "1": "good", "2": "bad"}, "two labels are called 'bad': 0 and 2"),
        ({"0": 1, "1": "1"}, "two labels are called '1': 0 and 1"),
        ({"1": "bad", "2": "good"}, "id2label has 2 labels, but not the ids 0 to 1"),
        ({"0": "bad", "2": "good"}, "id2label has 2 labels, but not the ids 0 to 1"),
    ],
)
def test_labels_that_would_be_mixed_up_are_refused(labels, message):
    with pytest.raises(ValueError, match=message):
        BertConfig.from_dict({"id2label": labels})


def test_label_names_are_different():
    with pytest.raises(ValueError, match="two labels are called 'a': 1 and 2"):
        BertConfig(num_labels=3, label_names=("b", "a", "a"))


SIGMOID = "torch.nn.modules.activation.Sigmoid"
IDENTITY = "torch.nn.modules.linear.Identity"


@pytest.mark.parametrize(
    ("values", "function"),
    [
        ({"sentence_transformers": {"activation_fn": IDENTITY, "version": "6.0"}}, "Identity"),
        ({"sentence_transformers": {"activation_fn": SIGMOID}}, "Sigmoid"),
        ({"sbert_ce_default_activation_function": "torch.nn.modules.linear.Identity"}, "Identity"),
        ({"sbert_ce_default_activation_function": None, "sentence_transformers": {"version": "6.0"}}, None),
    ],
)
def test_the_activation_of_a_cross_encoder_is_read_and_written(values, function):
    config = BertConfig.from_dict({"id2label": {"0": "LABEL_0"}, **values})
    assert config.activation_fn == function
    assert BertConfig.from_dict(config.to_dict()) == config
    assert adapt_config(config, models.BertForSequenceClassification, num_labels=3).activation_fn is None
    assert BertConfig.from_dict({"id2label": {"0": "a", "1": "b"}, **values}).activation_fn is None


def test_another_activation_of_a_cross_encoder_is_refused():
    with pytest.raises(ValueError, match="activation_fn must be one of None, Identity, Sigmoid; got 'GELU'"):
        BertConfig.from_dict({"num_labels": 1, "sentence_transformers": {"activation_fn": "torch.nn.GELU"}})


def test_the_dtype_auto_is_that_of_the_platform():
    config = BertConfig(dtype="auto")
    assert [config.for_platform(name).dtype for name in ("cpu", "gpu", "tpu")] == ["float32", "bfloat16", "bfloat16"]
    assert BertConfig(dtype="float32").for_platform("gpu").dtype == "float32"


def test_a_model_needs_a_dtype():
    with pytest.raises(ValueError, match="dtype auto is for settings: a model needs float32, bfloat16 or float64"):
        models.Bert(BertConfig(dtype="auto")).init(jax.random.key(0), jnp.zeros((1, 2), jnp.int32))
