"""Rows of one run and of several seeds: in metrics.jsonl, TensorBoard, messages and curves.png."""

import json
import re
import struct
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

from bert_jax.training.runs.events import EventFile
from bert_jax.training.runs.metrics import read_metrics
from bert_jax.training.runs.reporting import Reporter, evaluation_line

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


def test_each_seed_has_its_own_rows(run):
    assert [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] == [
        {"step": 1, "seed": 7, "loss": 2.0, "learning_rate": 0.5, "tokens_per_second": 30.0},
        {"step": 1, "seed": 11, "loss": 4.0, "learning_rate": 0.5, "tokens_per_second": 30.0},
        {"step": 1, "seed": 7, "eval_accuracy": 0.25},
        {"step": 1, "seed": 11, "eval_accuracy": 0.75},
    ]


def events(run):
    """Returns the events that TensorBoard would read, without the file version and the session start."""
    # Here, after the run: with the import at the head of this file, tensorboardX would import an installed PyTorch.
    from tensorboardX.proto.event_pb2 import Event, SessionLog
    from tensorboardX.record_writer import masked_crc32c

    (path,) = (run / "tensorboard").iterdir()
    content, found = path.read_bytes(), []
    while content:
        (length,) = struct.unpack("<Q", content[:8])
        assert struct.unpack("<I", content[8:12]) == (masked_crc32c(content[:8]),)
        event, content = content[12 : 12 + length], content[12 + length :]
        assert struct.unpack("<I", content[:4]) == (masked_crc32c(event),)
        found.append(Event.FromString(event))
        content = content[4:]
    assert found[0].file_version == "brain.Event:2"
    assert found[1].session_log.status == SessionLog.START
    return found[2:]


def test_tensorboard_gets_the_same_metrics_by_seed(run):
    one, two, *_, last = events(run)
    assert {value.tag: value.simple_value for value in one.summary.value} == {
        "loss/seed_7": 2.0,
        "learning_rate/seed_7": 0.5,
        "tokens_per_second/seed_7": 30.0,
    }
    assert two.summary.value[0].tag == "loss/seed_11"
    assert (last.step, last.summary.value[0].tag) == (1, "eval/accuracy/seed_11")


def test_a_rewind_drops_rows_from_every_file(tmp_path):
    with Reporter(tmp_path, first_step=0, last_step=9, panels=PANELS, headline=HEADLINE, quiet=True) as reporter:
        for step in (1, 2, 3):
            reporter.write({"step": step, "loss": 1.0, "tokens_per_second": 1.0})
        reporter.rewind(2)
    assert [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2]
    last = events(tmp_path)[-1]
    assert (last.step, last.session_log.status) == (3, last.session_log.START)


def test_a_full_disk_is_an_error_where_the_row_is_written(tmp_path):
    """A thread that writes rows would end with that error, and the run would wait for it."""
    with open("/dev/full", "wb", buffering=0) as full:
        file = EventFile(tmp_path, after_step=0)
        file.close()
        file.file = full
        with pytest.raises(OSError, match="No space left on device"):
            file.write({"step": 1, "loss": 1.0})


def test_progress_in_a_log_file_is_whole_lines_with_the_time_left(tmp_path, capsys):
    options = {"first_step": 4, "last_step": 9, "panels": PANELS, "headline": HEADLINE}
    with Reporter(tmp_path, **options) as reporter:
        reporter.bar.mininterval = 0.0
        for step in (5, 6):
            reporter.advance()
            reporter.log(f"message {step}")
    output, progress = capsys.readouterr()
    assert output.splitlines() == ["message 5", "message 6"]
    lines = progress.split("\n")
    assert [re.sub(r"(\d\d:\d\d|\?) left.*", r"\1 left", line) for line in lines] == [
        "step 5 of 9, ? left", "step 6 of 9, 00:00 left", "",
    ]  # fmt: skip
    assert "\r" not in progress


def test_the_last_line_of_progress_is_printed_once(tmp_path, capsys):
    with Reporter(tmp_path, first_step=0, last_step=2, panels=PANELS, headline=HEADLINE) as reporter:
        for _ in range(2):
            reporter.advance()
        reporter.bar.refresh()  # as the monitor thread of tqdm does during a long evaluation
    assert [line.partition(",")[0] for line in capsys.readouterr().err.splitlines()] == ["step 1 of 2", "step 2 of 2"]


def test_the_time_left_is_estimated_without_the_first_step(tmp_path, capsys):
    """Also after a rewind, and after the evaluation at the end of a phase."""
    with Reporter(tmp_path, first_step=4, last_step=9, panels=PANELS, headline=HEADLINE) as reporter:
        for begin in (partial(reporter.rewind, 4), partial(reporter.rewind, 2), partial(reporter.begin_phase, 2)):
            begin()
            reporter.bar.start_t -= 1000.0  # the first step was compiled
            reporter.bar.last_print_t -= 1000.0
            reporter.advance()
            reporter.advance()
            reporter.bar.refresh()
    lines = [re.sub(r" left.*", "", line) for line in capsys.readouterr().err.splitlines()]
    assert lines[:4] == ["step 5 of 9, ?", "step 6 of 9, 00:00", "step 3 of 9, ?", "step 4 of 9, 00:00"]
    assert lines[-1] == "step 6 of 9, 00:00"


def test_only_the_first_process_writes(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    with Reporter(tmp_path, first_step=0, last_step=9, panels=PANELS, headline=HEADLINE) as reporter:
        reporter.advance()
        reporter.write(TRAINING)
        reporter.rewind(0)
        reporter.sync()
        reporter.log("a line")
        reporter.draw()
    assert list(tmp_path.iterdir()) == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("seeds", [None, (7,), (7, 11)])
def test_a_recorded_evaluation_is_read_back(tmp_path, seeds):
    value = 0.1 + 0.2 if seeds is None else np.arange(len(seeds)) + 0.1
    with Reporter(tmp_path, first_step=0, last_step=9, panels=PANELS, headline=HEADLINE, seeds=seeds) as reporter:
        reporter.write({"step": 3, "eval_accuracy": value})
        found = reporter.evaluation(3)
        assert found is not None
        np.testing.assert_array_equal(found["eval_accuracy"], value)
        assert reporter.evaluation(4) is None


def test_curves_are_drawn(run):
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_curves_name_each_phase_at_its_border(tmp_path, monkeypatch):
    from matplotlib.axes import Axes

    found = []
    monkeypatch.setattr(Axes, "text", lambda self, x, y, text, **_: found.append((x, text.strip())))
    options = {"first_step": 0, "last_step": 7, "panels": PANELS[:1], "headline": HEADLINE, "quiet": True}
    with Reporter(tmp_path, **options) as reporter:
        for step in range(1, 8):
            reporter.phase = 1 if step <= 3 else 2 if step <= 5 else 3
            reporter.write({"step": step, "loss": 2.0, "tokens_per_second": 30.0})
        reporter.draw()
    assert found == [(3, "phase 2"), (5, "phase 3")]


def test_an_evaluation_is_one_line():
    assert evaluation_line({"step": 20, "eval_accuracy": 0.5}, HEADLINE) == "step     20  held-out accuracy 0.50"
    assert evaluation_line(EVALUATION, HEADLINE) == "step      1  held-out accuracy 0.50 ± 0.35"


BROKEN = {
    "a missing library": "raise OSError('libtorch_cpu.so: cannot open shared object file')",
    "a wrong driver": "raise RuntimeError('the NVIDIA driver is too old')",
    "half installed": "import torch.version; Tensor = torch._C.Tensor",
    "not installed": None,
}


def test_events_are_written_beside_a_broken_pytorch(tmp_path):
    """One process tries all of them: the modules that an import has left are removed before the next one."""
    for name, line in BROKEN.items():
        if line is not None:
            package = tmp_path / name / "torch"
            package.mkdir(parents=True)
            (package / "__init__.py").write_text(line)
            (package / "version.py").touch()
    code = """
import sys
from pathlib import Path
from bert_jax.training.runs.events import EventFile

before = list(sys.modules)
for place in sys.argv[1:]:
    sys.path.insert(0, place)
    file = EventFile(Path(place), after_step=0)
    file.write({"step": 1, "loss": 2.0})
    file.close()
    assert "torch" not in sys.modules
    sys.path.remove(place)
    for name in set(sys.modules) - set(before):
        if name.startswith(("tensorboardX", "torch")):
            del sys.modules[name]
"""
    places = [tmp_path / name for name in BROKEN]
    places[-1].mkdir()
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", code, *map(str, places)], check=True, cwd=root)
    for place in places:
        assert len(list(place.glob("events.*"))) == 1
