"""A run is never overwritten unless the settings say so, and is resumed only with the settings it began with."""

import json
import os
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from bert_jax.process_start import start_time
from bert_jax.training.runs.folder import begin_run, check_run, recorded_settings
from bert_jax.training.runs.lock import LOCK, Owner, RunInUse

SETTINGS = {"training": {"learning_rate": 0.1, "steps": 30}}
CHOICES = {
    "resume": False,
    "begin": False,
    "overwrite": False,
    "may_change": ("steps",),
    "contents": {"corpus": "contents of the corpus"},
    "defaults": {"training": {"beta": 0.9}},
}


def changed(**values):
    return {"training": SETTINGS["training"] | values}


@pytest.fixture
def run(tmp_path):
    return begin_run(tmp_path / "run", SETTINGS, **CHOICES)


def test_a_new_folder_holds_the_settings(run):
    assert recorded_settings(run) == SETTINGS


def test_a_run_is_not_overwritten_by_default(run):
    with pytest.raises(FileExistsError, match="run holds a run already: continue it"):
        check_run(run, SETTINGS, **CHOICES)


def test_a_run_in_use_is_reported_as_such_rather_than_as_one_to_resume(run):
    owner = Owner.this_process(run)
    (run / LOCK).write_text(json.dumps(asdict(owner)))
    with pytest.raises(FileExistsError, match="run holds a run already"):  # this process holds the lock
        check_run(run, SETTINGS, **CHOICES)
    parent = replace(owner, process=os.getppid(), started=start_time(os.getppid()))
    (run / LOCK).write_text(json.dumps(asdict(parent)))
    with pytest.raises(RunInUse, match=rf"run is in use by process {os.getppid()} on .*: wait until it ends"):
        check_run(run, SETTINGS, **CHOICES)


def test_a_folder_that_holds_no_run_is_never_overwritten(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(FileExistsError, match=r"exists and holds no run \(no training\.json\)"):
        check_run(tmp_path, SETTINGS, **CHOICES | {"overwrite": True})


@pytest.mark.parametrize("choices", [{}, {"overwrite": True}, {"resume": True}])
def test_an_evaluation_does_not_replace_a_training_run(run, choices):
    """Neither one of fine-tuning, whose record says so, nor one of pretraining, whose record has no `do`."""
    begin_run(run, SETTINGS | {"run": {"do": "train"}}, **CHOICES | {"overwrite": True})
    for do in ("evaluate", "predict"):
        with pytest.raises(FileExistsError, match=rf"holds a training run, which `do={do}` would replace"):
            begin_run(run, SETTINGS | {"run": {"do": do}}, **CHOICES | choices)
    assert recorded_settings(run)["run"] == {"do": "train"}


def test_an_evaluation_may_be_replaced(tmp_path):
    for do in ("evaluate", "predict", "train"):
        begin_run(tmp_path / "run", {"run": {"do": do}}, **CHOICES | {"overwrite": True})
    begin_run(tmp_path / "pretraining", SETTINGS, **CHOICES)
    with pytest.raises(FileExistsError, match="holds a training run"):
        check_run(tmp_path / "pretraining", {"run": {"do": "evaluate"}}, **CHOICES | {"overwrite": True})


def test_a_run_to_resume_must_exist_unless_it_may_begin(tmp_path):
    resuming = CHOICES | {"resume": True}
    with pytest.raises(FileNotFoundError, match=r"no run in .*runn to resume: check `output`, or add `begin`"):
        check_run(tmp_path / "runn", SETTINGS, **resuming)
    check_run(tmp_path / "runn", SETTINGS, **resuming | {"begin": True})


def test_overwriting_removes_the_old_run_and_keeps_files_of_others(run, capsys):
    for name in ("metrics.jsonl", "thesis.tex"):
        (run / name).write_text("x")
    begin_run(run, SETTINGS, **CHOICES | {"overwrite": True})
    assert {path.name for path in run.iterdir()} == {"training.json", "thesis.tex"}
    assert "not removed, as no run writes it: thesis.tex" in capsys.readouterr().out


def test_a_folder_with_a_lock_alone_holds_no_run(tmp_path):
    for name in (".lock", ".lock.1f.new", "..lock.1f.new.part"):
        (tmp_path / name).touch()
    check_run(tmp_path, SETTINGS, **CHOICES)
    with pytest.raises(FileNotFoundError, match="no run in"):
        check_run(tmp_path, SETTINGS, **CHOICES | {"resume": True})


def test_a_run_killed_while_its_folder_was_made_can_start_again(tmp_path, monkeypatch):
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
def test_a_run_killed_while_it_was_overwritten_can_still_be_overwritten(run, monkeypatch, killed_at):
    """Whichever file or folder was being removed."""
    for name in (
        "config.json",
        "metrics.jsonl",
        "checkpoints/30/state",
        "damaged/20/state",
        "tensorboard/events.out.tfevents.1",
    ):
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


def test_a_run_that_began_after_the_check_is_not_overwritten(tmp_path):
    """Two runs start with one folder: both pass the first check, the slower one fails when it begins."""
    for _ in range(2):
        check_run(tmp_path / "run", SETTINGS, **CHOICES)
    begin_run(tmp_path / "run", SETTINGS, **CHOICES)
    with pytest.raises(FileExistsError, match="holds a run already"):
        begin_run(tmp_path / "run", SETTINGS, **CHOICES)


def test_resuming_keeps_the_folder_and_names_the_setting_that_differs(run):
    (run / "old").write_text("x")
    (run / "checkpoints" / "30").mkdir(parents=True)
    resuming = CHOICES | {"resume": True}
    begin_run(run, changed(steps=60), **resuming)
    assert (run / "old").exists()
    assert recorded_settings(run) == changed(steps=60)
    with pytest.raises(ValueError, match=r"began with learning_rate 0\.1, now learning_rate is 0\.2"):
        check_run(run, changed(learning_rate=0.2), **resuming)


def test_a_setting_missing_in_an_old_record_has_its_default(run):
    """The record is of an older version, which had no beta."""
    (run / "checkpoints" / "30").mkdir(parents=True)
    resuming = CHOICES | {"resume": True}
    check_run(run, changed(beta=0.9), **resuming)
    with pytest.raises(ValueError, match=r"began with beta 0\.9, now beta is 0\.8"):
        check_run(run, changed(beta=0.8), **resuming)


def test_a_setting_without_default_that_an_old_record_does_not_have_is_the_same(run):
    """Such as a hash, or the names of columns, of a version that did not record them."""
    (run / "checkpoints" / "30").mkdir(parents=True)
    resuming = CHOICES | {"resume": True}
    for group in ({"contents of the text": "3f"}, {"columns": ["a", "b"]}, {"columns": None}):
        check_run(run, SETTINGS | {"text read": group}, **resuming)
    begin_run(run, SETTINGS | {"text read": {"contents of the text": "3f"}}, **resuming)
    with pytest.raises(ValueError, match="began with contents of the text '3f', now contents of the text is '4a'"):
        check_run(run, SETTINGS | {"text read": {"contents of the text": "4a"}}, **resuming)


def test_the_contents_of_files_decide_and_not_their_names(tmp_path):
    def settings(corpus, contents=None):
        read = {} if contents is None else {"text read": {"contents of the corpus": contents}}
        return SETTINGS | {"text": {"corpus": corpus, "encoding": "utf-8"}} | read

    run = begin_run(tmp_path / "run", settings(["a.txt"], "3f"), **CHOICES)
    (run / "checkpoints" / "30").mkdir(parents=True)
    resuming = CHOICES | {"resume": True}
    check_run(run, settings(["/home/a.txt"]), **resuming)  # the text has not been read yet
    with pytest.raises(ValueError, match="began with contents of the corpus '3f', now contents of the corpus is '4a'"):
        begin_run(run, settings(["a.txt"], "4a"), **resuming)
    begin_run(run, settings(["/home/a.txt"], "3f"), **resuming)
    assert recorded_settings(run)["text"]["corpus"] == ["/home/a.txt"]
    with pytest.raises(ValueError, match="began with encoding 'utf-8'"):
        check_run(run, SETTINGS | {"text": {"corpus": ["a.txt"], "encoding": "latin-1"}}, **resuming)


def test_without_a_hash_in_the_record_the_names_decide(tmp_path):
    run = begin_run(tmp_path / "run", SETTINGS | {"text": {"corpus": ["a.txt"]}}, **CHOICES)
    (run / "checkpoints" / "30").mkdir(parents=True)
    with pytest.raises(ValueError, match="began with corpus"):
        check_run(run, SETTINGS | {"text": {"corpus": ["b.txt"]}}, **CHOICES | {"resume": True})


@pytest.mark.parametrize("begin", [False, True])
@pytest.mark.parametrize("checkpoints", ["missing", "dangling link", "empty", "moved away"])
def test_a_run_whose_checkpoints_are_missing_is_not_begun_again(run, checkpoints, begin):
    """As if the disk of the checkpoints was not mounted: its mount point is an empty folder, or is missing."""
    (run / "metrics.jsonl").write_text('{"step": 20, "loss": 2.5}\n')
    (run / "saved.json").write_text("{}")
    if checkpoints == "dangling link":
        (run / "checkpoints").symlink_to(run / "disk" / "checkpoints")
    elif checkpoints != "missing":
        (run / "checkpoints").mkdir()
    if checkpoints == "moved away":
        (run / "damaged").mkdir()
    before = sorted(run.iterdir())
    why = "the damaged ones are moved away" if checkpoints == "moved away" else r"is its disk mounted\?"
    for _ in range(2):
        with pytest.raises(
            FileNotFoundError, match=rf"checkpoints has no checkpoint, but the run is at step 20 \({why}\)"
        ):
            begin_run(run, SETTINGS, **CHOICES | {"resume": True, "begin": begin})
        assert sorted(run.iterdir()) == before
        if checkpoints in ("missing", "dangling link"):  # of a version that did not write saved.json
            (run / "saved.json").unlink(missing_ok=True)
            before = sorted(run.iterdir())
    begin_run(run, SETTINGS, **CHOICES | {"overwrite": True})


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_again(run):
    (run / "metrics.jsonl").write_text('{"step": 20, "loss": 2.5}\n')
    (run / "checkpoints").mkdir()
    begin_run(run, SETTINGS, **CHOICES | {"resume": True})


def test_checkpoints_without_a_record_of_settings_are_not_touched(run):
    (run / "checkpoints" / "30").mkdir(parents=True)
    (run / "training.json").unlink()
    for choices in ({"resume": True, "begin": True}, {"overwrite": True}, {}):
        with pytest.raises(FileExistsError, match=r"exists and holds no run \(no training\.json\)"):
            begin_run(run, SETTINGS, **CHOICES | choices)
    assert [path.name for path in run.iterdir()] == ["checkpoints"]


def test_a_run_without_a_checkpoint_may_start_again_with_other_settings(run):
    begin_run(run, changed(learning_rate=0.2), **CHOICES | {"resume": True})
    assert recorded_settings(run) == changed(learning_rate=0.2)


@pytest.mark.parametrize("text", ["", "[]", '{"settings": []}', '{"settings": {"training": 3}}', '{"settin', "\0" * 9])
def test_a_broken_record_is_an_error_that_names_the_file(run, text):
    (run / "training.json").write_text(text)
    with pytest.raises(ValueError, match=r"training\.json: not the settings of a run .* restore it from a copy"):
        recorded_settings(run)
