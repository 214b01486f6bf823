"""finetune.py as people use it: each kind of task, what a run leaves, how it goes on, and what it says to bad input."""

import json

import jax
import numpy as np
import pytest
import small_finetuning as small
from safetensors.numpy import load_file
from small_finetuning import finetune

from bert_jax.pipelines import TextClassifier

SAME_IN_FLOAT32 = 2e-5
SHORT = ["--max-length", "32", "--batch-size", "16", "--epochs", "2", "--learning-rate", "1e-2"]


@pytest.fixture(scope="module", autouse=True)
def quick():
    """What is computed here is small, and most of the time goes into making it fast."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A model, and data of every kind."""
    place = tmp_path_factory.mktemp("finetuning")
    small.make_model(place / "model")
    for name, count, seed in (("train", 36, 0), ("dev", 13, 1)):
        small.reviews(place / f"{name}.tsv", count, seed)
        small.tagged(place / f"{name}.conll", count, seed)
        small.questions(place / f"{name}.json", count, seed)
        small.questions(place / f"{name}-v2.json", count, seed, version_2=True)
        small.choices(place / f"{name}.jsonl", count, seed)
    return place


@pytest.fixture(scope="module")
def run(place):
    """Runs a kind of task in a folder of this name."""
    files = {"classification": ".tsv", "tokens": ".conll", "squad": ".json", "multiple-choice": ".jsonl"}

    def run(kind, name, *flags, on=1, model="model", data=None):
        end = data or files[kind]
        read = ["--train", place / f"train{end}"] if "--do" not in flags else []
        files_of = ["--model", place / model, *read, "--dev", place / f"dev{end}"]
        return finetune(kind, place / name, *files_of, *flags, on=on)

    return run


@pytest.fixture(scope="module")
def reviewed(run):
    """Reviews, classified one a row."""
    return run("classification", "reviewed", *SHORT, "--no-pack")


def tensors(run):
    return load_file(run / "model.safetensors")


def assert_same_tensors(one, two, tolerance=0.0):
    one, two = tensors(one), tensors(two)
    assert one.keys() == two.keys()
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=0, atol=tolerance, err_msg=name)


def without_clock(rows):
    return [{name: x for name, x in row.items() if name != "tokens_per_second"} for row in rows]


def test_a_run_leaves_a_model_with_its_labels_and_scores(reviewed, place):
    names = {path.name for path in reviewed.iterdir()}
    assert names >= {
        "config.json", "model.safetensors", "training.json", "tokenizer.json", "vocab.txt", "metrics.jsonl",
        "tensorboard", "curves.png", "confusion.png", "mistakes.md", "predictions.jsonl", "scores.json", "checkpoints",
    }  # fmt: skip
    assert json.loads((reviewed / "config.json").read_text())["id2label"] == {"0": "0", "1": "1"}
    evaluations = [row for row in small.rows(reviewed) if "eval_loss" in row]
    assert [row["step"] for row in evaluations] == [3, 6]  # once an epoch
    assert evaluations[0].keys() > {"eval_accuracy", "eval_f1", "eval_matthews", "eval_collapsed"}
    best = max(row["eval_accuracy"] for row in evaluations)
    assert json.loads((reviewed / "scores.json").read_text())["accuracy"] == pytest.approx(best)
    assert len(small.rows(reviewed)) == 8


def test_predictions_are_in_the_order_of_the_file_and_those_of_the_pipeline(reviewed, place):
    lines = (place / "dev.tsv").read_text().splitlines()[1:]
    found = small.predictions(reviewed)
    assert [f"{one['text']}\t{one['gold']}" for one in found] == lines
    classify = TextClassifier.load(reviewed)
    for one in found:
        answer = classify(one["text"])
        assert answer["label"] == one["label"]
        assert answer["score"] == pytest.approx(one["score"], abs=SAME_IN_FLOAT32)
        assert sum(one["probabilities"].values()) == pytest.approx(1)


def test_evaluating_repeats_the_scores_of_training(reviewed, run, place):
    again = run("classification", "again", "--do", "evaluate", "--max-length", "32", model="reviewed")
    want, got = (json.loads((folder / "scores.json").read_text()) for folder in (reviewed, again))
    assert got == pytest.approx(want, abs=SAME_IN_FLOAT32)
