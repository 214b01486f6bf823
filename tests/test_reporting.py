"""Rows of one run and of several seeds: in the file, in one line, in curves.png."""

import json

import numpy as np
import pytest

from bert_jax.training.reporting import Reporter, evaluation_line

PANELS = (("loss", "loss"), ("accuracy", "accuracy"), ("learning rate", "learning_rate"))
HEADLINE = (("held-out accuracy", "eval_accuracy", ".2f"), ("F1", "eval_f1", ".1%"))
TRAINING = {"step": 1, "loss": np.array([2.0, 4.0]), "learning_rate": 0.5, "tokens_per_second": 30.0}
EVALUATION = {"step": 1, "eval_accuracy": np.array([0.25, 0.75])}


@pytest.fixture
def run(tmp_path):
    options = {"first_step": 0, "last_step": 3, "panels": PANELS, "headline": HEADLINE, "quiet": True}
    with Reporter(tmp_path, seeds=(7, 11), **options) as reporter:
        reporter.write(TRAINING)
        reporter.write(EVALUATION)
        reporter.draw()
    return tmp_path


def test_each_seed_has_rows_of_its_own(run):
    assert [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] == [
        {"step": 1, "seed": 7, "loss": 2.0, "learning_rate": 0.5, "tokens_per_second": 30.0},
        {"step": 1, "seed": 11, "loss": 4.0, "learning_rate": 0.5, "tokens_per_second": 30.0},
        {"step": 1, "seed": 7, "eval_accuracy": 0.25},
        {"step": 1, "seed": 11, "eval_accuracy": 0.75},
    ]


def test_events_are_named_after_the_seed(run):
    (events,) = (run / "tensorboard").iterdir()
    assert all(name in events.read_bytes() for name in (b"loss/seed_7", b"eval/accuracy/seed_11"))


def test_curves_are_drawn(run):
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_an_evaluation_is_one_line():
    assert evaluation_line({"step": 20, "eval_accuracy": 0.5}, HEADLINE) == "step     20  held-out accuracy 0.50"
    assert evaluation_line(EVALUATION, HEADLINE) == "step      1  held-out accuracy 0.50 ± 0.25"
