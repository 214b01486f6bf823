"""Every family and head gives the outputs and gradients of transformers, and is written as transformers reads it."""

import json
from dataclasses import replace
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_families as small
import tiny_families
from gradient_checks import assert_leaves_agree
from safetensors.numpy import load_file, save_file
from small_checkpoints import assert_same_bits, edit_config, edit_weights, make_run, refusal
from torch_extra import of_torch_extra

import bert_jax
from bert_jax.cli.inspection import inspect
from bert_jax.config import BertConfig
from bert_jax.families import FAMILIES
from bert_jax.functional.layers import activation
from bert_jax.interop.assembly import index_tensors
from bert_jax.interop.formats.tensors import Tensor
from bert_jax.interop.heads import MODELS, architecture, parts_of
from bert_jax.interop.names import NAMES, hf_name, leaf_shapes
from bert_jax.interop.resizing import extend_positions
from bert_jax.models import BertForSequenceClassification
from bert_jax.pipelines import FillMask
from bert_jax.training.devices.parallel import make_mesh, tree_shardings

OUTPUT_TOLERANCE = 2e-5
GRADIENT_TOLERANCE = 1e-5  # relative to a leaf's largest element
NEGLIGIBLE = 1e-6
PACKED_TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """case -> (folder, PyTorch module), written once."""
    of_torch_extra("torch")
    of_torch_extra("transformers")

    @cache
    def write(case):
        folder = tmp_path_factory.mktemp(str(case))
        return folder, small.write(case, folder)

    return write


@pytest.fixture
def folder(written, tmp_path):
    """A function that copies the folder of a case, to be changed."""

    def copy(case):
        source, _ = written(case)
        for path in source.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        return tmp_path

    return copy


def weights(shape):
    return np.random.default_rng(len(shape)).normal(size=shape).astype(np.float32)


def loaded_exactly(folder, case):
    """The model loaded by transformers, with nothing missing or unexpected."""
    import transformers

    model, report = getattr(transformers, case.architecture).from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), report
    return model.eval()


def their_outputs(model, rows):
    import torch

    return model(**{name: torch.from_numpy(array) for name, array in rows.items()})


@pytest.mark.parametrize("case", small.CASES, ids=str)
def test_outputs_and_gradients_agree_with_transformers(case, written):
    import torch

    folder, theirs = written(case)
    bert = bert_jax.load(folder)
    rows = small.rows(case)

    def objective(params):
        outputs = bert.model.apply({"params": params}, **{name: jnp.asarray(row) for name, row in rows.items()})
        names = small.OUTPUTS[:1] if case.head == "Model" else small.OUTPUTS[1:]
        outputs = {name: small.real(case, outputs[name]) for name in names if name in outputs}
        return sum((output * weights(output.shape)).sum() for output in outputs.values()), outputs

    (_, got), gradient = jax.jit(jax.value_and_grad(objective, has_aux=True))(bert.params)
    theirs.zero_grad()
    answer = their_outputs(theirs, rows)
    want = {name: answer[small.THEIR_NAMES.get(name, name)] for name in got}
    want = {
        name: output * torch.from_numpy(small.real(case, np.ones(output.shape, np.float32)))
        for name, output in want.items()
    }
    for name, output in want.items():
        np.testing.assert_allclose(got[name], output.detach().numpy(), atol=OUTPUT_TOLERANCE, rtol=0, err_msg=name)
    if case in small.STORED_CASES:
        assert_equals_what_is_stored(case, {name: output.detach().numpy() for name, output in want.items()})
    sum((output * torch.from_numpy(weights(output.shape))).sum() for output in want.values()).backward()
    slopes = {
        name: Tensor(tuple(leaf.shape), "float32", lambda leaf=leaf: _slope(leaf))
        for name, leaf in theirs.named_parameters()
    }
    shapes = leaf_shapes(bert.config, parts_of(type(bert.model), bert.config))
    wanted = index_tensors(slopes, case.family).assemble(shapes, "float32")
    if FAMILIES[case.family].is_modern:  # the first layer has no norm before its attention
        norm = wanted["encoder"]["attention"]["norm"]
        norm["scale"] = norm["scale"].at[0].set(0.0)
    ours = jax.tree.map(np.asarray, gradient)
    for tree in (ours, wanted):  # PyTorch keeps the gradient of padding's row at 0
        row = np.array(tree["embeddings"]["word"]["embedding"])
        row[small.PAD] = 0
        tree["embeddings"]["word"]["embedding"] = row
    assert_leaves_agree(ours, jax.tree.map(np.asarray, wanted), GRADIENT_TOLERANCE, negligible=NEGLIGIBLE)


def assert_equals_what_is_stored(case, outputs):
    numbers = small.sample(case, outputs)
    stored = small.stored()[str(case)]
    assert numbers.keys() == stored.keys()
    for name, want in stored.items():
        np.testing.assert_allclose(numbers[name], want, atol=OUTPUT_TOLERANCE, rtol=0, err_msg=name)


@pytest.mark.parametrize("case", small.STORED_CASES, ids=str)
def test_outputs_agree_with_stored_results_of_transformers(case):
    """The parameters come from the names of tensors, so the names agree too."""
    assert_equals_what_is_stored(case, small.model(case)(**small.rows(case)))


def _slope(leaf):
    return np.zeros(tuple(leaf.shape), np.float32) if leaf.grad is None else leaf.grad.numpy()


@pytest.mark.parametrize("case", small.CASES, ids=str)
def test_what_is_written_is_what_transformers_wrote(case, written, tmp_path):
    source, theirs = written(case)
    bert = bert_jax.load(source)
    bert.save_pretrained(tmp_path)
    values = json.loads((tmp_path / "config.json").read_text())
    assert (values["model_type"], values["architectures"]) == (case.family, [case.architecture])
    assert_same_bits(load_file(tmp_path / "model.safetensors"), load_file(source / "model.safetensors"))
    again = loaded_exactly(tmp_path, case)
    for key, value in theirs.config.to_dict().items():
        if key in values and key not in ("dtype", "transformers_version"):
            assert getattr(again.config, key) == value or key in ("id2label", "label2id"), key
    assert bert_jax.load(tmp_path).config == bert.config
    rows = small.rows(case)
    first, same = (next(iter(their_outputs(model, rows).values())) for model in (again, theirs))
    np.testing.assert_allclose(first.detach().numpy(), same.detach().numpy(), atol=OUTPUT_TOLERANCE, rtol=0)


@pytest.mark.parametrize("case", small.CASES, ids=str)
def test_the_tensors_of_a_head_are_recognized_without_its_name(case, folder):
    copy = folder(case)
    kind = type(bert_jax.load(copy).model)
    edit_config(copy, "architectures")
    is_modern = FAMILIES[case.family].is_modern  # whose classifiers all have the same tensors
    same = ("ForMultipleChoice", *(("ForTokenClassification", "ForQuestionAnswering") if is_modern else ()))
    guess = bert_jax.load(copy, head=architecture(kind, case.family) if case.head in same else None)
    assert type(guess.model) is kind
    assert architecture(kind, case.family) == case.architecture


@pytest.mark.parametrize("family", small.FAMILY_NAMES)
def test_packed_sequences_have_the_outputs_of_separate_ones(family, written):
    bert = bert_jax.load(written(small.Case(family, "ForMaskedLM"))[0])
    ids = np.random.default_rng(2).integers(2, small.V, (1, 7))
    packed = bert(ids, attention_mask=[[1, 1, 1, 2, 2, 2, 2]], position_ids=[[0, 1, 2, 0, 1, 2, 3]])
    for part in (slice(0, 3), slice(3, 7)):
        alone = bert(ids[:, part]).prediction_logits
        np.testing.assert_allclose(packed.prediction_logits[:, part], alone, atol=PACKED_TOLERANCE, rtol=0)


@pytest.mark.parametrize("family", small.FAMILY_NAMES)
def test_a_run_gives_back_the_same_bits_sharded_by_the_rules(family, written, tmp_path):
    bert = bert_jax.load(written(small.Case(family, "ForSequenceClassification"))[0])
    run = make_run(tmp_path / "run", bert)
    again = bert_jax.load(run)
    assert again.config == bert.config
    assert_same_bits(again.params, bert.params)
    mesh = make_mesh(fsdp=2, tensor=2)
    shardings = tree_shardings(bert.params, mesh)
    assert tuple(shardings["embeddings"]["word"]["embedding"].spec) == (None, "fsdp")
    layer = shardings[FAMILIES[family].sequence_layer]
    assert tuple(layer.get("transform", layer)["kernel"].spec) == ("fsdp", None)
    split = jax.tree.map(np.asarray, jax.device_put(bert.params, shardings))
    assert_same_bits(split, bert.params)


@pytest.mark.parametrize("family", small.FAMILY_NAMES)
def test_the_usable_length_is_that_of_transformers(family, written):
    bert = bert_jax.load(written(small.Case(family, "ForMaskedLM"))[0])
    usable = 13 - (small.PAD + 1 if FAMILIES[family].offset_positions else 0)
    assert bert.config.max_length == usable
    longest = bert(np.full((1, usable), 5)).prediction_logits
    assert np.isfinite(longest).all()
    with pytest.raises(ValueError, match=f"rows of {usable + 1} tokens exceed max_position_embeddings 13"):
        bert(np.full((1, usable + 1), 5))
    longer = extend_positions(bert, 2 * usable - 1)
    assert longer.config.max_length == 2 * usable - 1
    ids = np.full((1, 3), 5)
    places = [[0, 1, 2]] if FAMILIES[family].is_modern else [[0, 2, 4]]  # without a table, nothing is stretched
    stretched = longer(ids, position_ids=places).prediction_logits
    np.testing.assert_allclose(stretched, bert(ids).prediction_logits, atol=OUTPUT_TOLERANCE, rtol=0)


@pytest.mark.parametrize("family", ["xlm-roberta", "distilbert"])
def test_token_types_are_ignored_where_there_is_one(family, written):
    bert = bert_jax.load(written(small.Case(family, "Model"))[0])
    ids = np.full((1, 3), 5)
    np.testing.assert_array_equal(bert(ids, token_type_ids=[[0, 1, 1]]).last_hidden_state, bert(ids).last_hidden_state)


@pytest.mark.parametrize("family", ["roberta", "distilbert", "electra", "modernbert"])
def test_an_untied_decoder_is_refused_by_name(family, folder):
    copy = folder(small.Case(family, "ForMaskedLM"))
    names = NAMES[family]
    word = hf_name("embeddings/word/embedding", model_type=family)
    edit_config(copy, tie_word_embeddings=False)

    def untie(tensors):
        tensors[f"{names.decoder}.weight"] = tensors[word] + np.float32(0.5)

    line = refusal(copy)
    assert f"tie_word_embeddings is false, but the file has no {names.decoder}.weight" in line
    bert_jax.load(copy, head="BertForQuestionAnswering", new_head=True)  # which has no decoder
    edit_weights(copy, untie)
    line = refusal(copy)
    assert f"{names.decoder}.weight differs from {word}" in line
    assert "an untied decoder is not supported" in line


@pytest.mark.parametrize("family", ["roberta", "distilbert", "electra", "modernbert"])
def test_a_file_with_the_tied_decoder_only_is_read(family, folder):
    """As a repeated tensor, and as an alias in the metadata of the file."""
    copy = folder(small.Case(family, "ForMaskedLM"))
    whole = bert_jax.load(copy)
    names = NAMES[family]
    word = hf_name("embeddings/word/embedding", model_type=family)
    edit_weights(copy, lambda tensors: tensors.__setitem__(f"{names.decoder}.weight", tensors.pop(word)))
    assert_same_bits(bert_jax.load(copy).params, whole.params)
    tensors = load_file(copy / "model.safetensors")
    tensors["shared"] = tensors.pop(f"{names.decoder}.weight")
    save_file(tensors, copy / "model.safetensors", metadata={word: "shared"})
    assert "has no tensors called shared" in refusal(copy)
    tensors[f"{names.decoder}.weight"] = tensors.pop("shared")
    save_file(tensors, copy / "model.safetensors", metadata={word: f"{names.decoder}.weight"})
    assert_same_bits(bert_jax.load(copy).params, whole.params)


def test_the_discriminator_of_electra_is_an_encoder(written, tmp_path):
    theirs = small.write(small.Case("electra", "ForPreTraining"), tmp_path)
    with pytest.warns(UserWarning, match="ElectraModel does not use the discriminator_predictions in it"):
        bert = bert_jax.load(tmp_path)
    rows = small.rows(small.Case("electra", "Model"))
    want = their_outputs(theirs.electra, rows).last_hidden_state.detach().numpy()
    mask = rows["attention_mask"][..., None]
    np.testing.assert_allclose(bert(**rows).last_hidden_state * mask, want * mask, atol=OUTPUT_TOLERANCE, rtol=0)
    with pytest.warns(UserWarning, match="no masked_lm: newly initialized"):
        bert_jax.load(tmp_path, head="ElectraForMaskedLM")


@pytest.mark.parametrize(
    "heads",
    [("ForSequenceClassification", "ForTokenClassification"), ("ForTokenClassification", "ForSequenceClassification")],
)
@pytest.mark.parametrize("family", ["roberta", "electra"])
def test_a_classifier_of_sequences_is_not_one_of_tokens(family, heads, tmp_path):
    """It has another name in the file, and transformers would draw a new one."""
    has, wanted = (small.Case(family, head) for head in heads)
    small.model(has).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="has no classifier.*: newly initialized"):
        bert = bert_jax.load(tmp_path, head=wanted.architecture)
    assert "classifier" in bert.new_parts
    names = inspect(str(tmp_path))["heads"]
    assert has.architecture in names
    assert wanted.architecture not in names


def test_pipelines_name_the_classes_of_the_family():
    bert = small.model(small.Case("roberta", "ForQuestionAnswering"))
    assert repr(bert).startswith("<RobertaForQuestionAnswering: ")
    bert = replace(bert, vocabulary=tiny_families.tokenizer("bpe"))
    with pytest.raises(ValueError, match="needs a RobertaForMaskedLM; this is a RobertaForQuestionAnswering: load"):
        FillMask(bert)


@pytest.mark.parametrize("family", small.FAMILY_NAMES)
def test_heads_can_be_named_as_in_either_family(family, written):
    folder, _ = written(small.Case(family, "ForMaskedLM"))
    with pytest.warns(UserWarning, match="newly initialized"):
        named = bert_jax.load(folder, head=small.Case(family, "ForSequenceClassification").architecture)
    layer = FAMILIES[family].sequence_layer  # ModernBERT's is a part of the masked-LM head
    assert named.new_parts == {layer, "classifier"} - {"prediction_head"}
    line = refusal(folder, head="BertForNextSentencePrediction")
    assert f"{FAMILIES[family].title} has no next-sentence head" in line


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model_type": "gpt2"}, "model_type must be one of bert, roberta, xlm-roberta, .*; got 'gpt2'"),
        ({"model_type": ["bert"]}, "model_type must be one of bert, .*; got .'bert'."),
        ({"model_type": "distilbert", "dim": "768"}, "dim must be a positive integer, got '768'"),
        ({"model_type": "distilbert", "qa_dropout": "0.1"}, "qa_dropout must be a number, got '0.1'"),
        ({"model_type": "electra", "embedding_size": "128"}, "embedding_size must be a positive integer, got '128'"),
        ({"model_type": "electra", "summary_type": "mean"}, "summary_type must be 'first' for ELECTRA, got 'mean'"),
        ({"model_type": "roberta", "max_position_embeddings": 2}, "max_position_embeddings 2 has no row after the"),
        ({"model_type": "roberta", "position_embedding_type": "relative_key"}, "position_embedding_type must be one"),
        ({"model_type": "roberta", "is_decoder": True}, "is_decoder must be false"),
        ({"model_type": "modernbert", "norm_bias": "no"}, "norm_bias must be true or false, got 'no'"),
        ({"model_type": "modernbert", "mlp_dropout": "0"}, "mlp_dropout must be a number, got '0'"),
        ({"model_type": "modernbert", "local_attention": 0}, "local_attention must be a positive integer, got 0"),
        ({"model_type": "modernbert", "classifier_pooling": "max"}, "classifier_pooling must be one of cls, mean;"),
        ({"model_type": "modernbert", "global_rope_theta": 0}, "global_rope_theta must be a number above 0, got 0"),
        ({"model_type": "modernbert", "rope_scaling": {"factor": 2}}, "rope_scaling is not supported, got"),
        ({"model_type": "modernbert", "hidden_size": 36}, "rotary positions need heads of an even size"),
        (
            {"model_type": "modernbert", "rope_parameters": {"full_attention": {"rope_type": "yarn"}}},
            "rope_type must be 'default' for ModernBERT, got 'yarn'",
        ),
        (
            {"model_type": "modernbert", "rope_parameters": {"full_attention": {"type": "linear"}}},
            "rope_type must be 'default' for ModernBERT, got 'linear'",
        ),
        (
            {"model_type": "modernbert", "rope_parameters": {"rope_type": "yarn"}},
            "rope_parameters must have an object for each of full_attention, sliding_attention; got .'rope_type'",
        ),
        (
            {"model_type": "modernbert", "rope_parameters": {"full_attention": "yarn"}},
            "rope_parameters must have an obj",
        ),
        ({"model_type": "modernbert", "rope_parameters": ["yarn"]}, "rope_parameters must have an object"),
        (
            {"model_type": "modernbert", "layer_types": ["full_attention", "sliding_attention", "full_attention"] * 2},
            "layer_types must be full_attention at layers 0, n, 2n, ... and sliding_attention elsewhere",
        ),
        ({"model_type": "modernbert", "layer_types": []}, "layer_types must be full_attention at layers 0, n, 2n"),
        ({"model_type": "modernbert", "layer_types": 3}, "layer_types must be full_attention at layers 0, n, 2n"),
        (
            {"model_type": "modernbert", "num_hidden_layers": 3, "layer_types": ["full_attention"]},
            "num_hidden_layers is 3, but layer_types has 1 layers",
        ),
        ({"model_type": "distilbert", "dim": 100}, "dim 100 is not divisible by n_heads 12"),
    ],
)
def test_what_a_family_does_not_support_is_refused_by_name(values, message):
    with pytest.raises(ValueError, match=f"^{message}"):
        BertConfig.from_dict(values)


def test_a_padding_id_of_null_is_none_that_matters():
    """In files of transformers: no token is padding. Positions of RoBERTa need one."""
    for model_type, used in {"bert": 0, "modernbert": 0, "distilbert": 0, "roberta": 1}.items():
        values = {"model_type": model_type, "pad_token_id": None, "vocab_size": 37}
        assert BertConfig.from_dict(values).pad_token_id == used, model_type


def test_fields_of_another_family_are_refused():
    with pytest.raises(ValueError, match="embedding_size must be None for BERT, got 8"):
        BertConfig(embedding_size=8)
    with pytest.raises(ValueError, match="local_attention must be 128 for RoBERTa, got 64"):
        BertConfig(model_type="roberta", local_attention=64)
    with pytest.raises(ValueError, match="position_embedding_type must be absolute for ModernBERT, got 'sinusoidal'"):
        BertConfig(model_type="modernbert", position_embedding_type="sinusoidal")
    with pytest.raises(ValueError, match="layer_norm_eps must be 1e-12 for DistilBERT, got 1e-05"):
        BertConfig(model_type="distilbert", layer_norm_eps=1e-5)


def test_every_family_has_names_for_its_parameters_and_for_nothing_else():
    assert NAMES.keys() == FAMILIES.keys()
    for model_type, names in NAMES.items():
        family = FAMILIES[model_type]
        size = 8 if "embedding_size" not in family.without else None
        config = BertConfig(model_type=model_type, embedding_size=size)
        parts = {part for model in MODELS.values() if _exists(model, family) for part in parts_of(model, config)}
        subtrees = {path.rpartition("/")[0] for path in leaf_shapes(config, parts)}
        assert set(names.modules.values()) == subtrees, model_type


def _exists(model, family):
    return family.has_next_sentence or "next_sentence" not in model.heads


@pytest.mark.parametrize("family", small.FAMILY_NAMES)
def test_adapters_of_every_family_are_on_the_same_kernels(family):
    config = BertConfig(model_type=family, lora_rank=2)
    bert = BertForSequenceClassification(config)
    shapes = jax.eval_shape(bert.init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    assert shapes["adapters"].keys() == {"encoder"}
    assert FAMILIES[family].sequence_layer in shapes
    assert ("gate" in shapes["adapters"]["encoder"]["feed_forward"]) == FAMILIES[family].is_modern
    assert shapes["adapters"]["encoder"]["attention"].keys() == {"query", "key", "value", "output"}


@pytest.mark.parametrize(
    "name",
    ["silu", "swish", "tanh", "gelu_python", "gelu_fast", "gelu_accurate", "gelu_pytorch_tanh", "gelu_python_tanh"],
)
def test_activations_are_those_of_transformers(name):
    torch = of_torch_extra("torch")
    theirs = of_torch_extra("transformers.activations").ACT2FN[name]
    x = np.linspace(-4, 4, 51, dtype=np.float32)
    act = BertConfig.from_dict({"hidden_act": name}).hidden_act
    want = theirs(torch.from_numpy(x)).numpy()
    np.testing.assert_allclose(activation(act)(jnp.asarray(x)), want, atol=1e-6, rtol=0)


def test_old_and_new_keys_of_modernbert_mean_the_same():
    old = {"global_attn_every_n_layers": 2, "global_rope_theta": 7.5, "local_rope_theta": 3, "num_hidden_layers": 3}
    values = {"model_type": "modernbert", "position_embedding_type": "absolute", "id2label": {"0": "no"}, **old}
    config = BertConfig.from_dict(values)
    written = config.to_dict()
    assert written["layer_types"] == ["full_attention", "sliding_attention", "full_attention"]
    assert written["rope_parameters"]["sliding_attention"] == {"rope_type": "default", "rope_theta": 3}
    new = {name: value for name, value in written.items() if name not in old or name == "num_hidden_layers"}
    assert BertConfig.from_dict(new) == BertConfig.from_dict(written) == config
    one_global = {
        "model_type": "modernbert",
        "num_hidden_layers": 5,
        "layer_types": ["full_attention"] + ["sliding_attention"] * 4,
    }
    assert BertConfig.from_dict(one_global).layer_types(5) == one_global["layer_types"]


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("model.layers.1.attn.Wqkv.weight", lambda x: x[1:], "which is not 3 pieces of equal size"),
        (
            "model.layers.1.attn.Wqkv.weight",
            lambda x: x[3:],
            r"Wqkv.weight\[0:15\] has shape (15, 16), the config requires",
        ),
        ("model.layers.1.mlp.Wi.weight", None, "missing from the file: model.layers.1.mlp.Wi.weight"),
        ("model.layers.2.attn_norm.weight", None, "missing from the file: model.layers.2.attn_norm.weight"),
    ],
)
def test_broken_tensors_of_modernbert_are_named_as_in_the_file(name, change, message, folder):
    copy = folder(small.Case("modernbert", "ForMaskedLM"))

    def edit(tensors):
        tensor = tensors.pop(name)
        if change is not None:
            tensors[name] = np.ascontiguousarray(change(tensor))

    edit_weights(copy, edit)
    assert message.replace("\\", "") in refusal(copy)


@pytest.mark.parametrize("name", ["model.layers.0.attn_norm.weight", "model.layers.0.attn.Wqkv.0.weight"])
def test_tensors_that_modernbert_does_not_have_are_refused(name, folder):
    copy = folder(small.Case("modernbert", "ForMaskedLM"))
    edit_weights(copy, lambda tensors: tensors.__setitem__(name, np.ones(16, np.float32)))
    assert f"ModernBERT has no tensors called {name}" in refusal(copy)
