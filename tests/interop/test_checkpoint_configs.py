"""An impossible config.json is refused in one line, whatever it contains."""

import json
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_checkpoints import assert_same_bits, edit_config, model, refusal

import bert_jax
from bert_jax.config import BertConfig

PRETRAINED = model("BertForPreTraining")


@pytest.fixture
def folder(tmp_path):
    """A pretrained model in Hugging Face's layout."""
    PRETRAINED.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 10**18}, "has shape (31, 12), the config requires (1000000000000000000, 12)"),
        ({"num_hidden_layers": 10**18}, "missing from the file: bert.encoder.layer.2."),
        ({"num_hidden_layers": 1}, "the config has no place for bert.encoder.layer.1."),
        ({"hidden_size": 15}, "the config requires"),
        ({"hidden_size": 0}, "hidden_size must be a positive integer, got 0"),
        ({"hidden_size": "12"}, "hidden_size must be a positive integer"),
        ({"num_attention_heads": 5}, "hidden_size 12 is not divisible by num_attention_heads 5"),
        ({"hidden_act": "mish"}, "hidden_act must be one of"),
        ({"model_type": "gpt2"}, "electra, modernbert; got 'gpt2'"),
        ({"is_decoder": True}, "is_decoder must be false"),
        ({"position_embedding_type": "relative_key"}, "position_embedding_type must be one of"),
        ({"id2label": {"a": "b"}}, "config.json: id2label must be an object from ids to names, got {'a': 'b'}"),
        ({"id2label": [1, 2]}, "config.json: id2label must be an object from ids to names, got [1, 2]"),
        ({"id2label": "no"}, "config.json: id2label must be an object from ids to names, got 'no'"),
        ({"id2label": {"0": "no", "1": None}}, "label_names must be strings, got None"),
        ({"lora_rank": 4}, "lora_rank is 4: adapters must be merged before a model is written"),
        ({"architectures": 7}, "config.json: architectures must be a list of names of classes, got 7"),
        ({"architectures": "BertModel"}, "architectures must be a list of names of classes, got 'BertModel'"),
        ({"architectures": [[]]}, "architectures must be a list of names of classes, got [[]]"),
        ({"pad_token_id": 31}, "pad_token_id 31 is outside the vocabulary of 31"),
        ({"hidden_dropout_prob": "a lot"}, "config.json: "),
    ],
)
def test_an_impossible_config_is_refused_with_a_reason(changes, message, folder):
    edit_config(folder, **changes)
    line = refusal(folder)
    assert str(folder) in line
    assert message in line


@pytest.mark.parametrize("text", ["", "{", "[]", "7", "null", '{"a": ' * 100_000, "\x00", '"\\ud800'])
def test_a_config_that_is_not_a_json_object_is_refused(text, folder):
    (folder / "config.json").write_text(text)
    line = refusal(folder)
    assert line.startswith(f"{folder / 'config.json'}: ")
    assert "expected a JSON object, got list" in line or text != "[]"


def test_numeric_labels_become_strings(folder):
    edit_config(folder, id2label={"0": 7, "1": 2.5})
    assert bert_jax.load(folder).config.label_names == ("7", "2.5")


def test_a_config_without_sizes_is_bert_base(folder):
    (folder / "config.json").write_text("{}")
    assert "the config requires (30522, 768)" in refusal(folder) or "missing from the file:" in refusal(folder)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.text(max_size=3), values, max_size=3),
    max_leaves=5,
)
KEYS = sorted({*BertConfig().to_dict(), "architectures", "num_labels", "torch_dtype", "is_decoder"})


@settings(max_examples=150, derandomize=True, database=None)
@given(changes=st.dictionaries(st.sampled_from(KEYS), JSON, min_size=1, max_size=2))
def test_any_config_loads_or_is_refused_in_one_line(changes, tmp_path_factory):
    folder = tmp_path_factory.getbasetemp() / "absurd"
    if not folder.exists():
        PRETRAINED.save_pretrained(folder)
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(json.dumps(json.loads(config) | changes))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            loaded = bert_jax.load(folder)
        assert_same_bits(loaded.params["encoder"], PRETRAINED.params["encoder"])
    except ValueError as error:
        (line,) = str(error).splitlines()
        assert line.startswith(str(folder))
    finally:
        (folder / "config.json").write_text(config)
