"""A run's record gives the settings it was made from, and nothing that the settings' types do not allow."""

import json
from dataclasses import dataclass, field

import pytest

from bert_jax.finetuning import checks as finetuning_checks
from bert_jax.finetuning import settings as finetuning
from bert_jax.pretraining import settings
from bert_jax.tasks import TASKS
from bert_jax.training.runs.folder import recorded_settings
from bert_jax.training.settings import GroupedSettings, Optimizer, Run, as_record, from_record

FINETUNING = {name: finetuning.make_settings(name, model="RUN", sweep_epochs=(5, 7)) for name in TASKS}
ALL = {name: settings.preset(name) for name in ("demo", "tiny", "large")} | FINETUNING


@pytest.mark.parametrize("chosen", ALL.values(), ids=ALL)
def test_a_record_is_read_as_it_was_made(chosen):
    recorded = json.loads(json.dumps(as_record(chosen)))
    assert from_record(type(chosen), recorded, "training.json") == chosen


def test_what_a_record_does_not_name_has_its_default():
    recorded = {"training": {"steps": 7, "of another version": []}, "another group": {"a": 1}}
    chosen = from_record(settings.Settings, recorded, "training.json")
    assert chosen.training == settings.Training(steps=7)
    assert chosen.model == settings.Model()


def test_a_setting_is_found_in_whatever_group_it_was_recorded():
    chosen = from_record(settings.Settings, {"another group": {"steps": 7}}, "training.json")
    assert chosen.training == settings.Training(steps=7)


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


def test_whole_numbers_are_numbers():
    chosen = from_record(settings.Settings, {"training": {"clip_norm": 2}}, "training.json")
    assert isinstance(chosen.training.clip_norm, float)


WRONG = [
    ("training", "steps", "x", "int, got 'x'"),
    ("training", "steps", 3.0, "int, got 3.0"),
    ("training", "steps", True, "int, got True"),
    ("training", "steps", None, "int, got None"),
    ("training", "steps", 10**30, "int, got 10000"),
    ("training", "learning_rate", "1", "float, got '1'"),
    ("training", "learning_rate", False, "float, got False"),
    ("training", "learning_rate", 10**400, "float, got 10000"),
    ("training", "optimizer", "evil", "Literal['bert_adamw', 'adamw', 'lamb'], got 'evil'"),
    ("training", "parallel", 3, "Literal['mesh', 'pmap'], got 3"),
    ("training", "parallel", ["mesh"], "Literal['mesh', 'pmap'], got ['mesh']"),
    ("text", "tokenizer", {}, "str | None, got {}"),
    ("text", "lowercase", 1, "bool, got 1"),
    ("text", "strip_accents", "no", "bool | None, got 'no'"),
    ("text", "corpus", "films.txt", "tuple[str, ...], got 'films.txt'"),
    ("reports", "fill_mask", 5, "tuple[str, ...], got 5"),
    ("reports", "fill_mask", ["a [MASK]", 5], "tuple[str, ...], got ['a [MASK]', 5]"),
    ("rows", "max_predictions", 2.5, "int | None, got 2.5"),
]


@pytest.fixture
def run(tmp_path):
    """A run's folder whose record has another value of some setting."""

    def run(record, group, name, value):
        record.setdefault(group, {})[name] = value
        (tmp_path / "training.json").write_text(json.dumps({"settings": record}))
        return tmp_path

    return run


@pytest.mark.parametrize(("group", "name", "value", "message"), WRONG, ids=lambda x: f"{x!r:.30}")
def test_a_value_of_another_type_is_named_with_file_and_field(run, group, name, value, message):
    folder = run(as_record(settings.preset("tiny")), group, name, value)
    with pytest.raises(ValueError, match=r"training\.json: ") as caught:
        settings.read_settings(["--output", str(folder), "--resume"], description="")
    assert str(caught.value).startswith(f"{folder}/training.json: {group}.{name} must be {message}")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("group", "name", "value", "message"),
    [
        ("rows", "max_length", 10**9, "`max_length` must be at most 65536, got 1000000000"),
        ("training", "learning_rate", float("nan"), "`learning_rate` must be above 0, got nan"),
        ("text", "min_frequency", -1, "`min_frequency` must be at least 0, got -1"),
        ("model", "hidden_dropout_prob", 2, r"hidden_dropout_prob must lie in \[0, 1\), got 2\.0"),
    ],
)
def test_a_value_out_of_range_is_named(run, group, name, value, message):
    record = as_record(settings.preset("tiny"))
    record["model"]["position_embedding_type"] = "sinusoidal"
    flags = ["--output", str(run(record, group, name, value)), "--resume"]
    with pytest.raises(ValueError, match=message):
        settings.check(settings.read_settings(flags, description=""))


@pytest.mark.parametrize(
    ("group", "name", "value", "message"),
    [
        ("run", "sweep_epochs", [2, "x"], r"run\.sweep_epochs must be tuple\[int, \.\.\.\], got \[2, 'x'\]"),
        ("data", "version_2", "yes", r"data\.version_2 must be bool, got 'yes'"),
        ("training", "dropout", [], r"training\.dropout must be float \| None, got \[\]"),
        ("data", "max_length", 10**9, "`max_length` must be at most 65536, got 1000000000"),
    ],
)
def test_fine_tuning_names_them_too(run, group, name, value, message):
    folder = run(FINETUNING["squad"].as_record(), group, name, value)
    flags = ["squad", "--train", "a.json", "--dev", "b.json", "--output", str(folder), "--resume"]
    with pytest.raises(ValueError, match=message):
        finetuning_checks.check(finetuning.read_settings(flags, description=""))


def test_a_setting_without_default_has_to_be_there(run):
    record = FINETUNING["tokens"].as_record()
    del record["run"]["model"]
    folder = run(record, "run", "seed", 0)
    with pytest.raises(ValueError, match=r"training\.json: run\.model is missing"):
        from_record(finetuning.settings_type("tokens"), recorded_settings(folder), folder / "training.json")
