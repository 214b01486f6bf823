"""`load` returns the saved model or the requested one, and refuses what is inconsistent."""

import gc
import pickle
import shutil
import tracemalloc

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_bert as small
from small_checkpoints import assert_same_bits, edit_config, edit_weights, make_run, model, refusal

import bert_jax
from bert_jax.config import BertConfig
from bert_jax.interop.checkpoint_reader import CheckpointReader
from bert_jax.interop.heads import MODELS, model_class
from bert_jax.interop.loading import LoadedBert, TrainedRun, save_config
from bert_jax.models import BertForMaskedLM, BertForPreTraining

PRETRAINED = model("BertForPreTraining")


# Models


def test_a_trained_run_loads_its_model_once(tmp_path):
    make_run(tmp_path, PRETRAINED)
    run = TrainedRun(tmp_path, {"eval_loss": 1.5})
    assert_same_bits(run.model.params, PRETRAINED.params)
    assert run.model is run.model


@pytest.mark.parametrize("head", [head for head in MODELS if head != "BertForMultipleChoice"])
def test_without_architectures_the_head_is_detected_from_the_tensors(head, tmp_path):
    model(head).save_pretrained(tmp_path)
    edit_config(tmp_path, "architectures")
    assert type(bert_jax.load(tmp_path).model) is model_class(head)


def test_a_model_with_fewer_parts_is_loaded_from_a_larger_one(folder):
    loaded = bert_jax.load(folder, head="BertForMaskedLM")
    assert loaded.params.keys() == {"embeddings", "encoder", "masked_lm"}
    assert bert_jax.load(folder, head="Bert").params.keys() == {"embeddings", "encoder", "pooler"}


def test_unused_parts_are_named_in_a_warning(folder):
    edit_config(folder, architectures=["BertForMaskedLM"])
    with pytest.warns(UserWarning, match="BertForMaskedLM does not use the next_sentence, pooler in it"):
        bert_jax.load(folder)


@pytest.mark.parametrize("run", [False, True], ids=["folder", "run"])
def test_a_missing_head_is_initialized_with_a_warning(run, tmp_path):
    bert = model("BertForMaskedLM")
    make_run(tmp_path, bert) if run else bert.save_pretrained(tmp_path)
    options = {"head": "BertForSequenceClassification", "label_names": ["no", "yes", "who knows"]}
    with pytest.warns(UserWarning, match="has no classifier, pooler: newly initialized") as caught:
        loaded = bert_jax.load(tmp_path, **options)
    assert caught[0].filename == __file__
    assert loaded.config.label_names == ("no", "yes", "who knows")
    assert loaded.params["classifier"]["kernel"].shape == (small.D, 3)
    assert_same_bits(loaded.params["encoder"], bert.params["encoder"])
    with pytest.warns(UserWarning, match="newly"):
        other, same = (bert_jax.load(tmp_path, seed=seed, **options).params["classifier"] for seed in (1, 0))
    assert_same_bits(same, loaded.params["classifier"])
    assert not np.array_equal(other["kernel"], same["kernel"])


def test_an_unknown_model_is_refused_with_the_names_of_the_known(folder):
    assert "there is no model 'BertForPoetry'; there are BertModel, " in refusal(folder, head="BertForPoetry")
    edit_config(folder, architectures=["RobertaForMaskedLM"])
    assert type(bert_jax.load(folder, head="BertForPreTraining").model) is BertForPreTraining
    assert "colour is not a field" in refusal(folder, head="BertModel", colour=3)


# Runs


@pytest.mark.parametrize("changes", [{"hidden_size": 24}, {"vocab_size": 10**18}, {"num_hidden_layers": 3}])
def test_a_run_with_another_config_is_refused(changes, tmp_path):
    run = make_run(tmp_path, PRETRAINED)
    edit_config(run, **changes)
    line = refusal(run)
    assert line.startswith(f"{run}: ")
    assert "has shape" in line
    assert "the config requires" in line


def test_a_run_without_a_complete_checkpoint_is_refused(tmp_path):
    save_config(tmp_path, PRETRAINED.model)
    (tmp_path / "checkpoints").mkdir()
    assert "there is no checkpoint yet" in refusal(tmp_path, FileNotFoundError)
    (tmp_path / "checkpoints" / "5").mkdir()
    assert "checkpoints/5: the checkpoint is damaged: manifest.json is missing" in refusal(tmp_path)


def test_the_folder_of_a_run_is_not_overwritten(tmp_path):
    run = make_run(tmp_path, PRETRAINED)
    with pytest.raises(FileExistsError, match="the folder of a run"):
        bert_jax.load(run).save_pretrained(run)


# Vocabulary


def test_a_vocabulary_larger_than_the_embedding_is_refused(tokenizer, folder):
    tokenizer.save(folder)
    assert bert_jax.load(folder).tokenizer.vocab_size == small.V
    edit_config(folder, vocab_size=29)
    edit_weights(folder, lambda t: {name: t[name][:29].copy() if len(t[name]) == 31 else t[name] for name in t})
    assert "the vocabulary has 31 tokens, the embedding only 29 rows" in refusal(folder)


def test_a_vocabulary_much_smaller_than_the_embedding_gives_a_warning(tokenizer, tmp_path):
    bert = model("BertModel")
    rows = jnp.zeros((small.V + 128, small.D))
    embeddings = {**bert.params["embeddings"], "word": {"embedding": rows}}
    config = BertConfig(**{**vars(bert.config), "vocab_size": len(rows)})
    LoadedBert(type(bert.model)(config), {**bert.params, "embeddings": embeddings}, tokenizer).save_pretrained(tmp_path)
    with pytest.warns(UserWarning, match="the embedding has 159 rows, the vocabulary only 31 tokens"):
        bert_jax.load(tmp_path)


def test_a_model_without_a_vocabulary_loads_without_a_tokenizer(folder):
    loaded = bert_jax.load(folder)
    assert loaded([[1, 2]]).last_hidden_state.shape == (1, 2, small.D)
    with pytest.raises(ValueError, match="has no vocabulary"):
        _ = loaded.tokenizer


# Calls


@pytest.mark.parametrize(
    ("head", "arguments", "message"),
    [
        ("BertModel", ([1, 2, 3],), r"input_ids must be \[B, T\] with T above 0, got shape \(3,\)"),
        ("BertModel", ([[], []],), r"input_ids must be \[B, T\] with T above 0, got shape \(2, 0\)"),
        ("BertModel", ("an owl",), r"input_ids must be \[B, T\] with T above 0, got 'an owl'"),
        ("BertModel", (None,), r"input_ids must be \[B, T\] with T above 0, got None"),
        ("BertForMultipleChoice", ([[1, 2]],), r"input_ids must be \[B, C, T\] with T above 0, got shape \(1, 2\)"),
        ("BertModel", ([["an", "owl"]],), "input_ids must be integers"),
        ("BertModel", ([[1, small.V]],), rf"input_ids must lie in \[0, {small.V}\), got {small.V}"),
    ],
)
def test_invalid_inputs_are_refused_in_one_line(head, arguments, message):
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        model(head)(*arguments)
    assert "\n" not in str(caught.value)


def test_inputs_of_another_shape_than_input_ids_are_refused_in_one_line():
    for name, array in {"attention_mask": [[1, 1, 1]], "token_type_ids": [0, 0], "cls_positions": [[0]] * 3}.items():
        with pytest.raises(ValueError, match=f"^{name} has shape .*, input_ids has .2, 2.$"):
            PRETRAINED([[1, 2], [3, 4]], **{name: array})
    everywhere, once = (PRETRAINED([[1, 2], [3, 4]], position_ids=rows) for rows in ([[1, 0], [1, 0]], [[1, 0]]))
    np.testing.assert_array_equal(everywhere.last_hidden_state, once.last_hidden_state)


# Missing files


def test_missing_files_are_named(folder, tmp_path):
    (folder / "model.safetensors").unlink()
    assert "has no weights: expected one of model.safetensors" in refusal(folder, FileNotFoundError)
    (folder / "config.json").unlink()
    assert "no config.json here" in refusal(folder, FileNotFoundError)
    assert "no config.json here" in refusal(tmp_path / "nowhere", FileNotFoundError)


# Memory


def test_peak_memory_is_one_tensor_when_loading_and_one_copy_when_saving(tmp_path):
    sizes = BertConfig(
        vocab_size=997, hidden_size=64, num_hidden_layers=7, num_attention_heads=4, intermediate_size=256
    )
    bert = LoadedBert(model_class("BertModel")(sizes), {})
    shapes = jax.eval_shape(bert.model.init, jax.random.key(0), jnp.zeros((1, 2), jnp.int32))["params"]
    bert = LoadedBert(bert.model, jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes))
    total = sum(leaf.nbytes for leaf in jax.tree.leaves(bert.params))
    bert.save_pretrained(tmp_path)
    bert_jax.load(tmp_path)

    def peak(act):
        gc.collect()  # so that garbage of other tests is not freed while memory is measured
        tracemalloc.start()
        act()
        most = tracemalloc.get_traced_memory()[1] / total
        tracemalloc.stop()
        return most

    assert min(peak(lambda: bert.save_pretrained(tmp_path)) for _ in range(2)) < 1.0
    assert min(peak(lambda: bert_jax.load(tmp_path)) for _ in range(2)) < 0.6


# Classes


@pytest.mark.parametrize("name", ["BertForFilmReviews", "RobertaForTokenClassification", "BertClassifierWithDropout"])
def test_an_unknown_class_is_loaded_by_its_tensors_and_told(name, tmp_path):
    bert = model("BertForTokenClassification")
    bert.save_pretrained(tmp_path)
    edit_config(tmp_path, architectures=[name])
    with pytest.warns(UserWarning, match=f"the class '{name}' in config.json is unknown; its tensors are those of "):
        loaded = bert_jax.load(tmp_path)
    assert type(loaded.model).__name__ == "BertForTokenClassification"
    assert_same_bits(loaded.params, bert.params)


def test_the_class_of_decoders_is_a_masked_language_model_unless_it_decodes(tmp_path):
    bert = model("BertForMaskedLM")
    bert.save_pretrained(tmp_path)
    edit_config(tmp_path, architectures=["BertLMHeadModel"])
    assert type(bert_jax.load(tmp_path).model) is BertForMaskedLM
    assert_same_bits(bert_jax.load(tmp_path).params, bert.params)
    edit_config(tmp_path, is_decoder=True)
    assert "is_decoder must be false" in refusal(tmp_path)


# Weights that are not numbers


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "name", ["bert.embeddings.word_embeddings.weight", "bert.encoder.layer.1.output.dense.bias", "cls.predictions.bias"]
)
def test_weights_that_are_not_finite_are_refused_by_name(name, value, folder):
    edit_weights(folder, lambda tensors: tensors[name].reshape(-1).__setitem__(-1, value))
    line = refusal(folder)
    assert line.startswith(f"{folder}: {name} has NaN or infinite values: 1 of ")


def test_weights_of_a_part_that_is_not_loaded_are_not_checked(folder):
    edit_weights(folder, lambda tensors: tensors["cls.predictions.bias"].fill(np.nan))
    assert bert_jax.load(folder, head="BertModel").params.keys() == {"embeddings", "encoder", "pooler"}


def test_large_weights_are_finite(folder):
    edit_weights(folder, lambda tensors: tensors["bert.pooler.dense.weight"].fill(3e38))
    assert bert_jax.load(folder).params["pooler"]["kernel"][0, 0] == np.float32(3e38)


def test_a_run_whose_weights_are_not_finite_is_refused_by_name(tmp_path):
    params = jax.tree.map(np.array, PRETRAINED.params)
    params["encoder"]["feed_forward"]["up"]["bias"][1, 0] = np.nan
    make_run(tmp_path, LoadedBert(PRETRAINED.model, params))
    assert "encoder/feed_forward/up/bias has NaN or infinite values: 1 of " in refusal(tmp_path)


# A run that goes on


def test_a_checkpoint_that_is_deleted_while_it_is_read_is_replaced_by_the_newer_one(tmp_path, monkeypatch):
    make_run(tmp_path, PRETRAINED)
    checkpoints = tmp_path / "checkpoints"
    (old,) = [path for path in checkpoints.iterdir() if path.name.isdigit()]
    newer = checkpoints / str(int(old.name) + 1)
    assemble = CheckpointReader.assemble
    reads = []

    def assemble_late(self, shapes, dtype):
        reads.append(self.step)
        if old.exists():  # what the run does meanwhile
            shutil.copytree(old, newer)
            shutil.rmtree(old)
        return assemble(self, shapes, dtype)

    monkeypatch.setattr(CheckpointReader, "assemble", assemble_late)
    assert_same_bits(bert_jax.load(tmp_path).params, PRETRAINED.params)
    assert reads == [int(old.name), int(newer.name)]


def test_a_damaged_checkpoint_is_read_once_and_refused(tmp_path, monkeypatch):
    make_run(tmp_path, PRETRAINED)
    opened = []
    monkeypatch.setattr(CheckpointReader, "__init__", lambda self, folder, step=None: opened.append(step) or 1 / 0)
    with pytest.raises(ZeroDivisionError):
        bert_jax.load(tmp_path)
    monkeypatch.undo()
    (manifest,) = (tmp_path / "checkpoints").glob("*/manifest.json")
    manifest.write_text("{}")
    assert "damaged" in refusal(tmp_path)
    assert len(opened) == 1


# Processes


def test_a_called_model_can_be_pickled():
    want = PRETRAINED([[1, 2]]).last_hidden_state
    copy = pickle.loads(pickle.dumps(PRETRAINED))
    np.testing.assert_array_equal(copy([[1, 2]]).last_hidden_state, want)


def test_a_step_that_was_not_saved_is_refused_with_those_that_were(tmp_path):
    run = make_run(tmp_path / "run", model("BertForPreTraining"))
    line = refusal(run, FileNotFoundError, step=7)
    assert line.endswith("there is no checkpoint of step 7; those saved: 0")
    model("BertForPreTraining").save_pretrained(tmp_path / "model")
    assert "`step=7`" in refusal(tmp_path / "model", step=7)
