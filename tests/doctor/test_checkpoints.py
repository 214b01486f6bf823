"""A healthy model has no problem; each kind of damage is named."""

import json
import shutil

import numpy as np
from small_checkpoints import edit_config, edit_weights, make_run, model

from bert_jax.doctor.checkpoints import examine_model, is_model

BERT = model("BertForSequenceClassification")


def found(folder, *severities):
    return [finding.text for finding in examine_model(folder) if finding.severity in severities]


def test_a_healthy_folder_has_no_problem(folder):
    assert not found(folder, "problem")
    assert any("BertForPreTraining loads" in text for text in found(folder, "fact"))


def test_a_healthy_run_lists_its_checkpoints(tmp_path):
    make_run(tmp_path, BERT)
    assert not found(tmp_path, "problem")
    assert any(text.startswith("checkpoints: ") for text in found(tmp_path, "fact"))


def test_a_run_without_a_checkpoint_is_one_warning_and_no_problem(tmp_path):
    make_run(tmp_path, BERT)
    shutil.rmtree(tmp_path / "checkpoints")
    (tmp_path / "checkpoints").mkdir()
    assert not found(tmp_path, "problem")
    assert [text for text in found(tmp_path, "warning") if "no checkpoint yet" in text]


def test_a_changed_file_of_a_checkpoint_is_a_problem(tmp_path):
    make_run(tmp_path, BERT)
    largest = max((tmp_path / "checkpoints").glob("*/*/**/*"), key=lambda path: path.is_file() and path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    assert any(largest.name in text for text in found(tmp_path, "problem"))


def test_a_damaged_row_of_metrics_is_a_problem(tmp_path):
    make_run(tmp_path, BERT)
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n\0\0\0\n')
    assert any("metrics.jsonl:2" in text for text in found(tmp_path, "problem"))


def test_missing_and_wrong_weights_are_problems(folder):
    edit_weights(folder, lambda tensors: {name: tensor * np.nan for name, tensor in tensors.items()})
    assert found(folder, "problem")
    (folder / "model.safetensors").unlink()
    assert found(folder, "problem")


def test_a_vocabulary_larger_than_the_embedding_is_a_problem(folder, tokenizer):
    tokenizer.save(folder)
    edit_config(folder, vocab_size=7)
    assert any("the embedding only 7 rows" in text for text in found(folder, "problem"))


def test_labels_that_look_like_mistakes_are_warnings(tmp_path):
    BERT.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    names = dict(enumerate(["nan", *(f"x{number}" for number in range(1, len(config["id2label"])))]))
    edit_config(tmp_path, id2label=names, label2id={name: number for number, name in names.items()})
    assert any("'nan'" in text for text in found(tmp_path, "warning"))


def test_a_folder_without_config_is_one_problem(tmp_path):
    assert len(found(tmp_path, "problem")) == 1


def test_models_are_told_from_data(folder, write):
    assert is_model(folder)
    assert not is_model(write("train.csv", "text,label\n"))
    assert not is_model("no such file")
