"""A run's folder is never overwritten unasked, and a run goes on only as it began."""

import os
from pathlib import Path

import pytest

from bert_jax.training.runs.folder import begin_run, check_run, recorded_settings

SETTINGS = {"training": {"learning_rate": 0.1, "steps": 30}}
CHOICES = {"resume": False, "overwrite": False, "may_change": ("steps",), "defaults": {"training": {"beta": 0.9}}}


def changed(**values):
    return {"training": SETTINGS["training"] | values}


@pytest.fixture
def run(tmp_path):
    return begin_run(tmp_path / "run", SETTINGS, **CHOICES)


def test_a_new_folder_is_made_with_its_settings(run):
    assert recorded_settings(run) == SETTINGS


def test_another_run_is_left_alone(run):
    with pytest.raises(FileExistsError, match="run holds a run already: go on with it"):
        check_run(run, SETTINGS, **CHOICES)


def test_a_folder_of_something_else_is_left_alone_even_to_overwrite(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(FileExistsError, match=r"exists and holds no run, having no training\.json"):
        check_run(tmp_path, SETTINGS, **CHOICES | {"overwrite": True})


def test_overwriting_empties_the_folder(run):
    (run / "old").write_text("x")
    begin_run(run, SETTINGS, **CHOICES | {"overwrite": True})
    assert not (run / "old").exists()


def test_a_run_killed_while_it_was_made_is_made_again(tmp_path, monkeypatch):
    def killed(*given):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            begin_run(tmp_path / "run", SETTINGS, **CHOICES)
    assert [path.name for path in (tmp_path / "run").iterdir()] == [".training.json.part"]
    for choices in (CHOICES, CHOICES | {"resume": True}, CHOICES | {"overwrite": True}):
        check_run(tmp_path / "run", SETTINGS, **choices)
    begin_run(tmp_path / "run", SETTINGS, **CHOICES | {"resume": True})
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["training.json"]


@pytest.mark.parametrize("killed_at", range(10))
def test_a_run_killed_while_it_was_overwritten_may_still_be(run, monkeypatch, killed_at):
    """Whichever of its files and folders is the one that it is killed at, in whatever order they go."""
    for name in ("config.json", "metrics.jsonl", "checkpoints/30/state", "damaged/20/state", "tensorboard/events"):
        (run / name).parent.mkdir(parents=True, exist_ok=True)
        (run / name).write_text("x")
    gone = []

    def counted(remove):
        def counting(*given, **more):
            if len(gone) == killed_at:
                raise KeyboardInterrupt
            gone.append(given)
            remove(*given, **more)

        return counting

    overwriting = CHOICES | {"overwrite": True}
    with monkeypatch.context() as patch:
        patch.setattr(os, "unlink", counted(os.unlink))
        patch.setattr(os, "rmdir", counted(os.rmdir))
        with pytest.raises(KeyboardInterrupt):
            begin_run(run, SETTINGS, **overwriting)
    begin_run(run, changed(learning_rate=0.3), **overwriting)
    assert [path.name for path in run.iterdir()] == ["training.json"]
    assert recorded_settings(run) == changed(learning_rate=0.3)


def test_a_run_that_began_meanwhile_is_left_alone(tmp_path):
    """Two are started with one folder: both may begin when asked first, the slower is refused when it does."""
    for _ in range(2):
        check_run(tmp_path / "run", SETTINGS, **CHOICES)
    begin_run(tmp_path / "run", SETTINGS, **CHOICES)
    with pytest.raises(FileExistsError, match="holds a run already"):
        begin_run(tmp_path / "run", SETTINGS, **CHOICES)


def test_going_on_keeps_the_folder_and_names_what_differs(run):
    (run / "old").write_text("x")
    (run / "checkpoints" / "30").mkdir(parents=True)
    going_on = CHOICES | {"resume": True}
    begin_run(run, changed(steps=60), **going_on)
    assert (run / "old").exists()
    assert recorded_settings(run) == changed(steps=60)
    with pytest.raises(ValueError, match=r"began with learning_rate 0\.1, now learning_rate is 0\.2"):
        check_run(run, changed(learning_rate=0.2), **going_on)


def test_a_setting_that_was_not_there_yet_had_its_default(run):
    """The record is of an older version, which knew no beta."""
    (run / "checkpoints" / "30").mkdir(parents=True)
    going_on = CHOICES | {"resume": True}
    check_run(run, changed(beta=0.9), **going_on)
    with pytest.raises(ValueError, match=r"began with beta 0\.9, now beta is 0\.8"):
        check_run(run, changed(beta=0.8), **going_on)
    with pytest.raises(ValueError, match="began with contents of the text None, now contents of the text is '3f'"):
        check_run(run, SETTINGS | {"text read": {"contents of the text": "3f"}}, **going_on)


def test_a_run_without_a_checkpoint_may_begin_anew_with_other_settings(run):
    begin_run(run, changed(learning_rate=0.2), **CHOICES | {"resume": True})
    assert recorded_settings(run) == changed(learning_rate=0.2)


@pytest.mark.parametrize("text", ["", "[]", '{"settings": []}', '{"settings": {"training": 3}}'])
def test_a_broken_record_is_named(run, text):
    (run / "training.json").write_text(text)
    with pytest.raises(ValueError, match=r"training\.json: not a run's settings"):
        recorded_settings(run)
