"""A tracker gets each row once, over resumes and rewinds; whatever it does, the run goes on."""

import json
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from small_trackers import Recorder, recorded_tracker

from bert_jax.training.runs import tracking
from bert_jax.training.runs.reporting import Reporter
from bert_jax.training.runs.tracking import check_track, open_tracker, parse_track

CONFIG = {"run": {"output": "x", "words": [1, 2]}, "text read": {"contents of the corpus": "53"}}


def report(
    folder: Path, steps: range, *, first: int = 0, seeds=None, track="trackio", rewind: int | None = None
) -> None:
    """Reports rows of steps as a run does."""
    folder.mkdir(exist_ok=True)
    options = {"last_step": 99, "panels": [("loss", "loss")], "headline": [], "seeds": seeds, "quiet": True}
    with (
        open_tracker(track, folder, CONFIG) as tracker,
        Reporter(folder, first_step=first, tracker=tracker, **options) as reporter,
    ):
        for step in steps:
            loss = float(step) if seeds is None else np.array([step, step + 0.5])
            reporter.write({"step": step, "loss": loss, "tokens_per_second": 1.0})
        if rewind is not None:
            reporter.rewind(rewind)
            reporter.write({"step": rewind + 1, "loss": -1.0, "tokens_per_second": 1.0})
        reporter.draw()


@pytest.fixture
def runs():
    Recorder.runs.clear()
    with recorded_tracker():
        yield Recorder.runs


def losses(run: Recorder) -> list[tuple[int, float]]:
    return [(step, row["loss"]) for step, row in run.rows]


def test_rows_after_the_checkpoint_are_not_sent_twice(runs, tmp_path):
    report(tmp_path, range(1, 6))
    report(tmp_path, range(4, 8), first=3)
    first, second = runs
    assert losses(first) == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]
    assert losses(second) == [(6, 6), (7, 7)]
    assert (first.run_id, first.pictures, first.failed) == (second.run_id, ["curves.png"], False)


def test_other_rows_after_a_rewind_are_sent(runs, tmp_path):
    report(tmp_path, range(1, 6))
    report(tmp_path, range(4, 6), first=3, rewind=3)
    assert losses(runs[1]) == [(4, -1.0)]


def test_a_run_that_was_not_tracked_from_its_beginning_is_sent_whole(runs, tmp_path):
    report(tmp_path, range(1, 4), track=None)
    report(tmp_path, range(4, 6), first=3)
    (run,) = runs
    assert losses(run) == [(1, 1), (2, 2), (3, 3), (4, 4), (5, 5)]


def test_another_project_is_another_run(runs, tmp_path):
    report(tmp_path, range(1, 3))
    report(tmp_path, range(3, 5), first=2, track="trackio:other")
    first, second = runs
    assert (first.project, second.project) == ("bert_jax", "other")
    assert first.run_id != second.run_id
    assert losses(second)[0] == (1, 1)


def test_metrics_of_seeds_are_one_row_of_named_values(runs, tmp_path):
    report(tmp_path, range(3, 4), seeds=(7, 11))
    ((step, row),) = runs[0].rows
    assert (step, row["loss/seed_7"], row["loss/seed_11"]) == (3, 3.0, 3.5)


def test_an_error_of_the_run_ends_the_trackers_run_as_failed(runs, tmp_path):
    with pytest.raises(KeyError), open_tracker("trackio", tmp_path, CONFIG):
        raise KeyError
    assert runs[0].failed is True


def test_a_record_that_cannot_be_written_is_one_warning(runs, tmp_path, capsys):
    (tmp_path / "tracker.json").mkdir()
    report(tmp_path, range(1, 4))
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 3
    (warned,) = [line for line in capsys.readouterr().out.splitlines() if "tracking" in line or "warning" in line]
    assert warned.startswith("warning: trackio failed, the run goes on without it")


def test_passwords_of_urls_are_not_sent(runs, tmp_path):
    config = {"text": {"corpus": ["https://anna:secret@host/a.txt?signature=5", "b.txt"], "steps": 3}}
    with open_tracker("trackio", tmp_path, config):
        pass
    assert runs[0].config == {"text": {"corpus": ["https://host/a.txt", "b.txt"], "steps": 3}}


class Silent(Recorder):
    """A tracker that never answers."""

    released = threading.Event()

    def log(self, metrics, step: int) -> None:
        self.released.wait()


class Broken(Recorder):
    """A tracker whose second row is an error."""

    def log(self, metrics, step: int) -> None:
        super().log(metrics, step)
        if step == 2:
            raise SystemExit("quota exceeded\nsee https://...")


class Unreachable(Recorder):
    def __init__(self, *_) -> None:
        raise RuntimeError("no network")


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        (Broken, "SystemExit: quota exceeded"),
        (Unreachable, "RuntimeError: no network"),
        (Silent, "no answer within 0.1"),
    ],
)
def test_a_tracker_that_fails_is_one_warning_and_the_run_goes_on(kind, reason, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(tracking, "FINISH_SECONDS", 0.1)
    Silent.released.clear()
    with recorded_tracker(kind):
        report(tmp_path, range(1, 50))
    Silent.released.set()
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 49
    warned = [line for line in capsys.readouterr().out.splitlines() if "warning" in line]
    assert len(warned) == 1
    assert warned[0].startswith(f"warning: trackio failed, the run goes on without it ({reason}")


def test_only_the_first_process_tracks(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(tracking, "is_first", lambda: False)
    with open_tracker("trackio", tmp_path, CONFIG) as tracker:
        assert tracker is None
    assert runs == []


@pytest.mark.parametrize("track", ["tensorboard", "wandb:", "wandb: ", "", ":x"])
def test_an_impossible_setting_is_refused(track):
    with pytest.raises(ValueError, match=r"^`track` must be wandb, mlflow, trackio, or one of them and :PROJECT, got"):
        parse_track(track)


def test_a_tracker_that_is_not_installed_is_refused_with_the_extra(monkeypatch):
    monkeypatch.setattr(tracking, "find_spec", lambda name: None)
    with pytest.raises(
        ImportError, match=r"^`track=mlflow:x` needs the package mlflow: pip install 'bert_jax\[mlflow\]'"
    ):
        check_track("mlflow:x")


# The packages themselves, offline, where they are installed


def test_trackio_keeps_settings_rows_and_pictures_of_a_resumed_run(tmp_path, monkeypatch):
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))  # read when it is imported
    pytest.importorskip("trackio", reason="trackio is not installed")
    from trackio import sqlite_storage

    report(tmp_path / "run", range(1, 4))
    report(tmp_path / "run", range(3, 6), first=2)
    assert "failed" not in (tmp_path / "run" / "tracker.json").read_text()
    run = json.loads((tmp_path / "run" / "tracker.json").read_text())["run"]
    logs = sqlite_storage.SQLiteStorage.get_logs("bert_jax", run)
    assert [(row["step"], row["loss"]) for row in logs if "loss" in row] == [
        (step, float(step)) for step in range(1, 6)
    ]
    assert sum("curves" in row for row in logs) == 2
    config = sqlite_storage.SQLiteStorage.get_run_config("bert_jax", run)
    assert config is not None
    assert config["run"] == CONFIG["run"]


@pytest.mark.filterwarnings("ignore")
def test_mlflow_keeps_settings_rows_and_pictures_of_a_resumed_run(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.chdir(tmp_path)
    mlflow.set_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")
    report(tmp_path / "run", range(1, 4), track="mlflow:owls")
    report(tmp_path / "run", range(3, 6), first=2, track="mlflow:owls")
    (found,) = mlflow.search_runs(experiment_names=["owls"], output_format="list")
    assert found.info.run_id == json.loads((tmp_path / "run" / "tracker.json").read_text())["run"]
    assert (found.info.status, found.info.run_name) == ("FINISHED", "run")
    assert found.data.params["run.words"] == "[1, 2]"
    history = mlflow.MlflowClient().get_metric_history(found.info.run_id, "loss")
    assert [(row.step, row.value) for row in history] == [(step, step) for step in range(1, 6)]
    assert [file.path for file in mlflow.MlflowClient().list_artifacts(found.info.run_id)] == ["curves.png"]


@pytest.mark.filterwarnings("ignore")
def test_wandb_keeps_settings_rows_and_pictures_of_a_resumed_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="wandb is not installed")
    from wandb.proto.wandb_internal_pb2 import Record

    monkeypatch.setenv("WANDB_MODE", "offline")
    report(tmp_path / "run", range(1, 4), track="wandb")
    report(tmp_path / "run", range(3, 6), first=2, track="wandb")
    kept = []
    for path in sorted((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")):
        for content in wandb_records(path.read_bytes()):
            record = Record.FromString(content)
            row = {item.nested_key[0] if item.nested_key else item.key: item.value_json for item in record.history.item}
            kept += [(int(row["step"]), float(row["loss"]))] if "loss" in row else []
            kept += ["curves"] if "curves" in row else []
            assert record.run.run_id in ("", json.loads((tmp_path / "run" / "tracker.json").read_text())["run"])
    assert kept == [(1, 1.0), (2, 2.0), (3, 3.0), "curves", (4, 4.0), (5, 5.0), "curves"]


def wandb_records(content: bytes) -> Iterator[bytes]:
    """Yields the records of a small file of W&B: a header of 7 bytes; of each, checksum, length, 1 and the bytes."""
    position = 7
    while position < len(content):
        _, length, kind = struct.unpack("<IHB", content[position : position + 7])
        assert kind == 1  # whole: the file has one block
        yield content[position + 7 : position + 7 + length]
        position += 7 + length
