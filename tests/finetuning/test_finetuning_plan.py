"""`finetune.py --plan`: the step that it compiles is the run's, and nothing is written."""

import re

import jax
import numpy as np
import pytest
from small_finetuning import ENDS, choices, make_model, reviews

import finetune as script
from bert_jax.finetuning import make_settings
from bert_jax.finetuning.checks import check
from bert_jax.finetuning.plan import run_spec
from bert_jax.finetuning.program import read_inputs
from bert_jax.finetuning.trainer import Trainer, ensemble_batch
from bert_jax.training.devices import plan as plans
from bert_jax.training.devices.parallel import make_layout
from bert_jax.training.devices.targets import Target

WRITERS = {"classification": reviews, "multiple-choice": choices}


def rows_of(batch, seeds):
    """The rows of one seed in [B, K, T], or in [B, K, C, T] with C rows per example."""
    return int(np.prod(batch["input_ids"].shape[:-1])) // seeds


@pytest.mark.parametrize(("task", "seeds", "freeze"), [("classification", 2, 0), ("multiple-choice", 1, None)])
def test_the_planned_step_is_that_of_the_run(task, seeds, freeze, tmp_path):
    """The state and the batches have the shapes that training has, where a batch has the longest rows."""
    data = WRITERS[task](tmp_path / f"data{ENDS[task]}", 30)
    settings = make_settings(
        task, model=str(make_model(tmp_path / "model")), train=str(data), dev=str(data), seeds=seeds,
        freeze=freeze, batch_size=8, max_length=64, dtype="float32",
    ).with_length()  # fmt: skip
    check(settings)
    settings, prepared, _, bert = read_inputs(settings)
    trainer = Trainer(settings, prepared, bert, make_layout(devices=jax.devices()[:1]), None)
    spec = run_spec(trainer)
    batches = [ensemble_batch(trainer.ensemble, trainer.batches, index) for index in range(trainer.steps_per_epoch)]
    longest = max(batches, key=lambda batch: batch["input_ids"].shape[-1])
    planned = spec.batch(rows_of(longest, seeds))
    assert {n: (x.shape, x.dtype) for n, x in planned.items()} == {n: (x.shape, x.dtype) for n, x in longest.items()}
    assert abs(np.mean([rows_of(batch, seeds) for batch in batches]) - spec.rows) <= spec.unit
    state, _ = trainer._build()
    assert jax.tree.map(lambda x: (x.shape, x.dtype), spec.state) == jax.tree.map(lambda x: (x.shape, x.dtype), state)


def test_a_plan_is_printed_and_no_run_is_started(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Target, "devices", lambda self: jax.devices()[:2])
    monkeypatch.setattr(plans, "extrapolated_batch", lambda needed, limit, unit, rows: 1000 * unit)
    data = str(reviews(tmp_path / "data.tsv", 30))
    run = tmp_path / "run"
    flags = ["--model", str(make_model(tmp_path / "model")), "--train", data, "--dev", data, "--batch-size", "8"]
    script.main(
        [
            "classification",
            *flags,
            "--output",
            str(run),
            "--epochs",
            "7",
            "--max-length",
            "64",
            "--plan",
            "--device",
            "h100:2",
        ]
    )
    output = capsys.readouterr().out
    assert re.search(r"plan: 2 layers of 12, .*, float32, 8 examples in \d+ rows of \d+ tokens on 2 x H100", output)
    assert re.search(r"largest batch     [\d,]+ rows, [\d,]+ examples .*; \d+ fits", output)
    for part in ("evaluation", "not measured", "all-reduce", "28 steps", "tokens/s"):
        assert part in output
    assert not run.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"device": "h100"}, "`device` is only used with `plan`"),
        ({"plan": True, "distributed": True}, "`plan` is for the devices of one process"),
        ({"plan": True, "sweep": True}, "`plan` is for one training, not for those of `sweep`"),
        ({"plan": True, "do": "evaluate"}, "`plan` is only used for training"),
    ],
)
def test_settings_that_no_plan_can_have(changes, message, tmp_path):
    data = str(reviews(tmp_path / "data.tsv", 3))
    with pytest.raises(ValueError, match=message):
        check(make_settings("classification", model="x", dev=data, max_length=8, **changes))
