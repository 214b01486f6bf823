"""Comparison of seeds and of the combinations of a sweep: what is printed, kept and deleted."""

import json
from types import SimpleNamespace

import numpy as np
import pytest

from bert_jax.finetuning import make_settings, program
from bert_jax.finetuning.sweep import combinations, compare_seeds, sweep
from bert_jax.training.metric_logger import NotFinite
from bert_jax.training.seeds import Selection

SEEDS = (4, 5, 6)


def best_of(folder, *evaluations):
    """What training returns, and the rows it writes; each evaluation is a pair (accuracy, collapsed) per seed."""
    selection, lines = Selection("eval_accuracy", len(SEEDS)), []
    for step, metrics in enumerate(evaluations, 1):
        selection.improved(step, {"eval_accuracy": np.array([accuracy for accuracy, _ in metrics])})
        lines += [
            json.dumps({"step": step, "seed": seed, "eval_accuracy": accuracy, "eval_collapsed": collapsed})
            for seed, (accuracy, collapsed) in zip(SEEDS, metrics, strict=True)
        ]
    (folder / "metrics.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return SimpleNamespace(selection=selection, seeds=SEEDS)


def test_seeds_are_listed_with_their_mean_deviation_and_collapse(tmp_path, capsys):
    best = best_of(tmp_path, [(0.5, 0.0), (0.5, 1.0), (0.8, 1.0)], [(0.7, 0.0), (0.5, 0.0), (0.9, 0.0)])
    compare_seeds("accuracy", tmp_path, best)
    assert capsys.readouterr().out.splitlines()[1:] == [
        "accuracy, best evaluation of each seed:",
        "  seed   4  0.7000  step 2",
        "  seed   5  0.5000  step 1  collapsed: it predicts the same for all examples",
        "  seed   6  0.9000  step 2  kept",
        "  mean 0.7000, standard deviation 0.2000, best 0.9000",
    ]


def test_a_seed_without_a_score_is_listed(tmp_path, capsys):
    best = best_of(tmp_path, [(float("nan"), 0.0), (0.5, 0.0), (0.6, 0.0)])
    compare_seeds("accuracy", tmp_path, best)
    assert "  seed   4  no finite score" in capsys.readouterr().out


SETTINGS = make_settings(
    "classification",
    model="m",
    seed=4,
    seeds=3,
    sweep=True,
    sweep_learning_rates=(1e-5, 2e-5, 3e-5),
    sweep_batch_sizes=(8,),
    sweep_epochs=(1,),
)


def fit(settings, folder):
    """Writes what training writes; the second of three rates is the best, the third fails."""
    rate = settings.optimizer.learning_rate
    for place in (folder, *(folder / "seeds" / str(seed) for seed in SEEDS)):
        place.mkdir(parents=True, exist_ok=True)
        (place / "model.safetensors").write_text(f"{rate:g}")
    for name in ("checkpoints", "tensorboard"):
        (folder / name).mkdir()
    (folder / "curves.png").touch()
    if rate == 3e-5:
        raise NotFinite("step 1: loss nan")
    if rate == 2e-5:
        return best_of(folder, [(0.7, 0.0), (0.8, 0.0), (0.9, 0.0)])
    return best_of(folder, [(0.5, 1.0), (0.5, 1.0), (0.8, 0.0)])


def test_a_sweep_ranks_its_combinations_and_keeps_only_the_models_of_the_best(tmp_path, capsys):
    sweep(combinations(SETTINGS), fit, tmp_path, "accuracy")
    said = capsys.readouterr().out.splitlines()[-4:]
    assert said[0].split() == ["mean", "deviation", "best", "learning", "rate", "batch", "size", "epochs"]
    assert said[1].split() == ["0.8000", "0.1000", "0.9000", "2e-05", "8", "1"]
    assert said[2].split() == ["0.6000", "0.1732", "0.8000", "1e-05", "8", "1", *["2", "of", "3", "seeds", "collapsed"]]
    assert said[3].split()[:2] == ["-inf", "-"]
    rows = [json.loads(line) for line in (tmp_path / "sweep.jsonl").read_text().splitlines()]
    assert [(row["learning_rate"], row["collapsed"]) for row in rows] == [(2e-5, 0), (1e-5, 2), (3e-5, 0)]
    assert rows[0]["deviation"] == pytest.approx(0.1)
    kept = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("model.safetensors")}
    seeds = [f"seeds/{seed}/model.safetensors" for seed in SEEDS]
    names = {"model.safetensors", *seeds}
    assert kept == names | {f"sweep/2e-05-8-1/{name}" for name in names}
    assert {(tmp_path / name).read_text() for name in kept} == {"2e-05"}
    for row in rows[1:2]:
        assert {path.name for path in (tmp_path / row["folder"]).iterdir()} == {
            "metrics.jsonl", "curves.png", "tensorboard",
        }  # fmt: skip


def test_each_training_is_made_when_its_turn_comes(tmp_path, monkeypatch):
    events = []

    class FakeTrainer:
        task = SimpleNamespace(metric="accuracy")
        data = bert = layout = lock = None

        def __init__(self, settings, *_):
            self.settings = settings
            events.append(("made", settings.optimizer.learning_rate))

        def train(self, run, tracker):
            events.append(("trained", self.settings.optimizer.learning_rate))
            return fit(self.settings, run)

    monkeypatch.setattr(program, "Trainer", FakeTrainer)
    program._train(SETTINGS, FakeTrainer(combinations(SETTINGS)[0]), tmp_path, None)
    assert events == [(event, rate) for rate in (1e-5, 2e-5, 3e-5) for event in ("made", "trained")]


def test_a_sweep_without_a_score_fails(tmp_path):
    def fail(settings, folder):
        (folder / "checkpoints").mkdir()
        raise NotFinite("step 1: loss nan")

    with pytest.raises(NotFinite, match="no combination of the sweep has a finite score"):
        sweep(combinations(SETTINGS), fail, tmp_path, "accuracy")
