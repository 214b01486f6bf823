"""The settings of fine-tuning: defaults of each task, changes by name, and records of older versions."""

from dataclasses import fields

import pytest

from bert_jax.finetuning import make_settings
from bert_jax.finetuning.settings import settings_type
from bert_jax.tasks import TASKS
from bert_jax.training.settings import from_record


def test_tasks_have_their_training_defaults():
    defaults = {
        name: (s.optimizer.learning_rate, s.training.epochs, s.training.batch_size)
        for name, s in ((name, make_settings(name, model="m")) for name in TASKS)
    }
    assert defaults == {
        "classification": (3e-5, 3, 32),
        "tokens": (5e-5, 3, 32),
        "squad": (3e-5, 2, 32),
        "multiple-choice": (5e-5, 3, 16),
    }


@pytest.mark.parametrize("task", TASKS)
def test_settings_are_found_by_names_that_are_unique(task):
    settings = make_settings(task, model="m", epochs=7, dev="d", tensor=2, mistakes=1)
    assert (settings.task, settings.training.epochs, settings.data.dev) == (task, 7, "d")
    assert (settings.devices.tensor, settings.reports.mistakes) == (2, 1)
    names = [one.name for group in fields(settings) for one in fields(getattr(settings, group.name))]
    assert len(names) == len(set(names))


def test_unknown_tasks_and_settings_are_refused():
    with pytest.raises(ValueError, match="there is no task 'tagging'; the tasks are classification, tokens"):
        make_settings("tagging", model="m")
    with pytest.raises(ValueError, match="there is no setting `stride`"):
        make_settings("classification", model="m", stride=3)


def test_a_record_of_an_older_version_is_read():
    """It had the settings of the optimizer and the devices in the group `training`."""
    recorded = {
        "task": {"name": "squad"},
        "run": {"model": "m", "output": "o", "seed": 3, "sweep_epochs": [2, 4]},
        "data": {"train": "t.json", "dev": "d.json", "version_2": True, "max_length": 384},
        "training": {"learning_rate": 1e-4, "epochs": 5, "accumulate": 2, "attention": "plain", "on_nan": "skip"},
        "reports": {"log_every": 7, "mistakes": 1},
        "data read": {"contents of the training data": "0123"},
    }
    settings = from_record(settings_type("squad"), recorded, "training.json")
    assert settings == make_settings(
        "squad",
        model="m",
        output="o",
        seed=3,
        sweep_epochs=(2, 4),
        train="t.json",
        dev="d.json",
        version_2=True,
        max_length=384,
        learning_rate=1e-4,
        epochs=5,
        accumulate=2,
        attention="plain",
        on_nan="skip",
        log_every=7,
        mistakes=1,
    )
