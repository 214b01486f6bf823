"""Settings survive the way through training.json, whose values are checked against the settings' types."""

import json
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from bert_jax.cli.programs import parse_finetuning, parse_pretraining
from bert_jax.config import BertConfig
from bert_jax.finetuning import checks as finetuning_checks
from bert_jax.finetuning import settings as finetuning
from bert_jax.pretraining.checks import check
from bert_jax.pretraining.presets import make_settings
from bert_jax.pretraining.settings import Settings, Training
from bert_jax.tasks import TASKS
from bert_jax.training.runs.folder import recorded_settings
from bert_jax.training.settings import GroupedSettings, Optimizer, Run, as_record, from_record

FINETUNING = {name: finetuning.make_settings(name, model="RUN", sweep_epochs=(5, 7)) for name in TASKS}
ALL = {name: make_settings(name) for name in ("demo", "tiny", "large")} | FINETUNING


@pytest.mark.parametrize("chosen", ALL.values(), ids=ALL)
def test_settings_survive_a_round_trip(chosen):
    recorded = json.loads(json.dumps(as_record(chosen)))
    assert from_record(type(chosen), recorded, "training.json") == chosen


@pytest.mark.parametrize("old_format", [False, True])
def test_a_run_that_replaced_another_can_be_resumed(run, old_format):
    """A record holds the settings of the run, not how the command was called; those of older versions hold both."""
    flags = ["--preset", "tiny", "--steps", "7", "--overwrite"]
    record = as_record(parse_pretraining(flags))
    assert not {"resume", "begin", "overwrite", "plan"} & record["run"].keys()
    if old_format:
        record["run"] |= {"resume": False, "begin": False, "overwrite": True, "plan": False}
    folder = str(run(record, "run", "preset", "tiny"))
    resumed = parse_pretraining(["--output", folder, "--resume"])
    check(resumed)
    assert (resumed.training.steps, resumed.run.overwrite) == (7, False)

    tuned = finetuning.make_settings("squad", model="M", train="a.json", dev="b.json", epochs=7, overwrite=True)
    record = tuned.as_record()
    assert "overwrite" not in record["run"]
    if old_format:
        record["run"] |= {"resume": False, "begin": False, "overwrite": True}
    folder = str(run(record, "run", "seed", 0))
    resumed = parse_finetuning(["squad", "--output", folder, "--resume"])
    finetuning_checks.check(resumed)
    assert (resumed.training.epochs, resumed.run.overwrite) == (7, False)


def test_a_setting_that_is_missing_has_its_default():
    recorded = {"training": {"steps": 7, "of another version": []}, "another group": {"a": 1}}
    chosen = from_record(Settings, recorded, "training.json")
    assert chosen.training == Training(steps=7)
    assert chosen.model == BertConfig()


def test_a_setting_is_found_in_whatever_group_it_was_recorded():
    chosen = from_record(Settings, {"another group": {"steps": 7}}, "training.json")
    assert chosen.training == Training(steps=7)


@dataclass(frozen=True)
class Small(GroupedSettings):
    run: Run = field(default_factory=Run)
    optimizer: Optimizer = field(default_factory=Optimizer)


def test_settings_are_replaced_by_name():
    changed = Small().replace(output="x", learning_rate=0.5)
    assert changed == Small(Run(output="x"), Optimizer(learning_rate=0.5))
    assert Small().replace() == Small()
    with pytest.raises(ValueError, match="there is no setting `rate`"):
        Small().replace(output="x", rate=0.5)


def test_values_are_converted_or_refused_when_they_are_replaced():
    corpus = [Path("a.txt"), "b.txt"]
    changed = make_settings("tiny", output=Path("RUN"), corpus=corpus, learning_rate=np.float32(1), steps=9)
    assert changed == make_settings("tiny", output="RUN", corpus=("a.txt", "b.txt"), learning_rate=1.0, steps=9)
    assert from_record(Settings, as_record(changed), "training.json") == changed
    assert finetuning.make_settings("tokens", model=Path("M")).run.model == "M"
    with pytest.raises(ValueError, match=r"`corpus` must be tuple\[str, \.\.\.\], got 'a.txt'"):
        make_settings("tiny", corpus="a.txt")
    with pytest.raises(ValueError, match=r"`steps` must be int, got 2\.5"):
        make_settings("tiny", steps=2.5)


def test_settings_to_resume_are_those_of_the_run(run, tmp_path):
    begun = make_settings("tiny", steps=7, output="MOVED")
    folder = run(as_record(begun), "run", "preset", "tiny")
    resumed = make_settings(output=folder, resume=True, log_every=3)
    assert resumed == begun.replace(output=folder, resume=True, log_every=3)
    assert parse_pretraining(["--output", str(folder), "--resume", "--log-every", "3"]) == resumed

    begun = FINETUNING["squad"].replace(epochs=7)
    folder = run(begun.as_record(), "run", "seed", 5)
    resumed = finetuning.make_settings("squad", model="RUN", output=folder, resume=True, log_every=3)
    assert resumed == begun.replace(output=folder, resume=True, seed=5, log_every=3)
    assert parse_finetuning(["squad", "--output", str(folder), "--resume", "--log-every", "3"]) == resumed
    other = finetuning.make_settings("tokens", model="RUN", output=folder, resume=True)
    assert other.training.epochs == FINETUNING["tokens"].training.epochs

    new = make_settings("tiny", output=tmp_path / "new", resume=True, begin=True)
    assert new == make_settings("tiny").replace(output=tmp_path / "new", resume=True, begin=True)


def test_resuming_a_fine_tuning_that_does_not_exist_says_so(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no run in .*/typo to resume"):
        parse_finetuning(["squad", "--output", str(tmp_path / "typo"), "--resume"])


def test_an_integer_becomes_a_float():
    chosen = from_record(Settings, {"optimizer": {"clip_norm": 2}}, "training.json")
    assert isinstance(chosen.optimizer.clip_norm, float)


WRONG = [
    ("training", "steps", "x", "int, got 'x'"),
    ("training", "steps", 3.0, "int, got 3.0"),
    ("training", "steps", True, "int, got True"),
    ("training", "steps", None, "int, got None"),
    ("training", "steps", 10**30, "int, got 10000"),
    ("optimizer", "learning_rate", "1", "float, got '1'"),
    ("optimizer", "learning_rate", False, "float, got False"),
    ("optimizer", "learning_rate", 10**400, "float, got 10000"),
    ("optimizer", "optimizer", "evil", "Literal['bert_adamw', 'adamw', 'lamb'], got 'evil'"),
    ("devices", "parallel", 3, "Literal['mesh', 'pmap'], got 3"),
    ("devices", "parallel", ["mesh"], "Literal['mesh', 'pmap'], got ['mesh']"),
    ("text", "tokenizer", {}, "str | None, got {}"),
    ("text", "lowercase", 1, "bool | None, got 1"),
    ("text", "strip_accents", "no", "bool | None, got 'no'"),
    ("text", "corpus", "films.txt", "tuple[str, ...], got 'films.txt'"),
    ("reports", "fill_mask", 5, "tuple[str, ...], got 5"),
    ("reports", "fill_mask", ["a [MASK]", 5], "tuple[str, ...], got ['a [MASK]', 5]"),
    ("batches", "max_predictions", 2.5, "int | None, got 2.5"),
]


@pytest.fixture
def run(tmp_path):
    """Makes a run's folder, with one value of the record replaced."""

    def run(record, group, name, value):
        record.setdefault(group, {})[name] = value
        (tmp_path / "training.json").write_text(json.dumps({"settings": record}))
        return tmp_path

    return run


@pytest.mark.parametrize(("group", "name", "value", "message"), WRONG, ids=lambda x: f"{x!r:.30}")
def test_a_value_of_the_wrong_type_is_named_with_its_file(run, group, name, value, message):
    folder = run(as_record(make_settings("tiny")), group, name, value)
    with pytest.raises(ValueError, match=r"training\.json: ") as caught:
        parse_pretraining(["--output", str(folder), "--resume"])
    assert str(caught.value).startswith(f"{folder}/training.json: {group}.{name} must be {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("group", "name", "value", "message"),
    [
        ("batches", "max_length", 10**9, "`max_length` must be at most 65536, got 1000000000"),
        ("optimizer", "learning_rate", float("nan"), "`learning_rate` must be above 0, got nan"),
        ("text", "min_frequency", -1, "`min_frequency` must be at least 0, got -1"),
        ("model", "hidden_dropout_prob", 2, r"hidden_dropout_prob must lie in \[0, 1\), got 2\.0"),
    ],
)
def test_a_value_out_of_range_is_named(run, group, name, value, message):
    record = as_record(make_settings("tiny"))
    record["model"]["position_embedding_type"] = "sinusoidal"
    flags = ["--output", str(run(record, group, name, value)), "--resume"]
    with pytest.raises(ValueError, match=message):
        check(parse_pretraining(flags))


@pytest.mark.parametrize(
    ("group", "name", "value", "message"),
    [
        ("run", "sweep_epochs", [2, "x"], r"run\.sweep_epochs must be tuple\[int, \.\.\.\], got \[2, 'x'\]"),
        ("data", "version_2", "yes", r"data\.version_2 must be bool, got 'yes'"),
        ("training", "dropout", [], r"training\.dropout must be float \| None, got \[\]"),
        ("data", "max_length", 10**9, "`max_length` must be at most 65536, got 1000000000"),
    ],
)
def test_fine_tuning_checks_values_too(run, group, name, value, message):
    folder = run(FINETUNING["squad"].as_record(), group, name, value)
    flags = ["squad", "--train", "a.json", "--dev", "b.json", "--output", str(folder), "--resume"]
    with pytest.raises(ValueError, match=message):
        finetuning_checks.check(parse_finetuning(flags))


def test_a_setting_without_default_is_required(run):
    record = FINETUNING["tokens"].as_record()
    del record["run"]["model"]
    folder = run(record, "run", "seed", 0)
    with pytest.raises(ValueError, match=r"training\.json: run\.model is missing"):
        from_record(finetuning.settings_type("tokens"), recorded_settings(folder), folder / "training.json")
