"""Runs of train.py that are killed, interrupted, moved to other devices, out of disk space, or find damaged files."""

import os
import shutil
import signal
import time

import jax
import numpy as np
import pytest
from resumable import kill, pretrain, pretrain_on_disk, rows, saving, start, wait_until
from small_disk import NO_DISK, no_disk
from small_runs import SMALL, write_corpus

import bert_jax
from bert_jax.training.runs.saved_steps import newest_step

STEPS = 40
MANY_STEPS = 150  # more than a run takes between two kills
OTHER_DEVICES_TOLERANCE = 1e-5  # relative and absolute
# At this learning rate differences in rounding do not grow; at 1e-2 they grow a hundredfold.
SLOW = ["--learning-rate", "1e-3"]
FLAGS = ["--steps", str(STEPS), "--checkpoint-every", "4", "--eval-every", "10", "--eval-rows", "8", *SLOW]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    write_corpus(folder / "films.txt")
    return folder


@pytest.fixture(scope="module")
def begin(folder):
    """Starts train.py in a process; its output goes to RUN.log."""

    def begin(name, *flags, devices=1):
        texts = ["--corpus", str(folder / "films.txt"), "--cache-dir", str(folder / "cache")]
        flags = [*SMALL, *FLAGS, *texts, "--output", str(folder / name), *flags]
        return start(pretrain, folder / "compiled", *flags, devices=devices, log=folder / f"{name}.log")

    return begin


@pytest.fixture(scope="module")
def finish(begin, folder):
    """Runs train.py to the end; returns its exit code and its output."""

    def finish(name, *flags, devices=1):
        process = begin(name, *flags, devices=devices)
        process.join()
        return process.exitcode, (folder / f"{name}.log").read_text()

    return finish


@pytest.fixture(scope="module")
def whole(finish, folder):
    """A run without interruptions."""
    code, output = finish("whole")
    assert code == 0, output
    return folder / "whole"


def reached(run):
    logged = rows(run) if (run / "metrics.jsonl").exists() else []
    return logged[-1]["step"] if logged else 0


def params(run):
    return jax.tree.map(np.asarray, bert_jax.load(run).params)


@pytest.mark.slow
def test_a_run_that_is_killed_and_interrupted_equals_one_that_is_not(begin, finish, folder, whole):
    run = folder / "killed"
    process = begin("killed", "--resume", "--begin")
    wait_until(lambda: reached(run) >= 6, process)
    assert f"no checkpoint in {run} to resume from: starting at step 0" in (folder / "killed.log").read_text()
    kill(process)
    process = begin("killed", "--resume")
    wait_until(lambda: reached(run) >= 15, process)
    os.kill(process.pid, signal.SIGTERM)
    process.join()
    output, saved = (folder / "killed.log").read_text(), newest_step(run / "checkpoints")
    assert process.exitcode == 128 + signal.SIGTERM
    assert f"train.py: SIGTERM: saved at step {saved}; to resume: python " in output
    assert output.rstrip().endswith("--resume")
    process = begin("killed", "--resume")
    wait_until(lambda: reached(run) >= 25, process)
    wait_until(lambda: saving(run), process)
    kill(process)
    code, output = finish("killed", "--resume")
    assert code == 0, output
    assert rows(run) == rows(whole)
    assert [row["step"] for row in rows(run) if "loss" in row] == list(range(1, STEPS + 1))
    jax.tree.map(np.testing.assert_array_equal, params(run), params(whole))
    assert finish("killed", "--resume")[0] == 0  # a supervisor may start a finished run again


@pytest.mark.slow
def test_a_run_that_is_killed_at_many_moments_equals_one_that_is_not(begin, finish, folder):
    """While it starts, between two steps, and while a checkpoint is written, in turn."""
    long = ["--steps", str(MANY_STEPS), "--decay-steps", str(MANY_STEPS)]
    code, output = finish("unkilled", *long)
    assert code == 0, output
    run, random, while_saving = folder / "often", np.random.default_rng(0), 0
    for moment in ("starting", "stepping", "saving") * 2:
        process, before, row = (
            begin("often", *long, "--resume", "--begin"),
            newest_step(run / "checkpoints"),
            reached(run),
        )
        if moment == "starting":
            time.sleep(random.uniform(0, 3))
        elif moment == "stepping":
            wait_until(lambda row=row: reached(run) > row, process)
            time.sleep(random.uniform(0, 0.1))
        else:
            wait_until(lambda before=before: newest_step(run / "checkpoints") != before, process)
            wait_until(lambda: saving(run), process)
        kill(process)
        while_saving += saving(run)
    assert while_saving, "no kill came while a checkpoint was being written"
    assert newest_step(run / "checkpoints") < MANY_STEPS, "the run was over before the last kill"
    code, output = finish("often", *long, "--resume")
    assert code == 0, output
    assert rows(run) == rows(folder / "unkilled")
    assert [row["step"] for row in rows(run) if "loss" in row] == list(range(1, MANY_STEPS + 1))
    jax.tree.map(np.testing.assert_array_equal, params(run), params(folder / "unkilled"))


@pytest.mark.slow
def test_a_run_that_moves_to_other_devices_computes_the_same(finish, folder, whole):
    for steps, devices in ((12, 8), (24, 4), (STEPS, 1)):
        code, output = finish("moved", "--resume", "--begin", "--steps", str(steps), devices=devices)
        assert code == 0, output
    found, wanted = ([row for row in rows(run) if "loss" in row] for run in (folder / "moved", whole))
    assert [row["row_efficiency"] for row in found] == [row["row_efficiency"] for row in wanted]
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=OTHER_DEVICES_TOLERANCE)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=OTHER_DEVICES_TOLERANCE, atol=OTHER_DEVICES_TOLERANCE),
        params(folder / "moved"),
        params(whole),
    )


def copy(run, name):
    return shutil.copytree(run, run.parent / name)


def test_a_damaged_checkpoint_is_named_and_an_earlier_one_is_used(finish, whole):
    run = copy(whole, "damaged")
    largest = max((run / "checkpoints" / str(STEPS) / "state").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    with pytest.raises(ValueError, match=rf"checkpoints/{STEPS}: the checkpoint is damaged: the content of state/"):
        bert_jax.load(run)
    assert np.isfinite(params(run.parent / "whole")["pooler"]["kernel"]).all()
    code, output = finish("damaged", "--resume")
    assert code == 0, output
    assert f"checkpoints/{STEPS}: the checkpoint is damaged" in output
    assert f"moved to {run}/damaged/{STEPS}" in output
    assert f"resuming from step {STEPS - 4}" in output
    assert rows(run) == rows(whole)
    jax.tree.map(np.testing.assert_array_equal, params(run), params(whole))


@pytest.fixture(scope="module")
def on_disk(folder):
    """Runs train.py in a folder that is a separate disk; returns its exit code and its output."""

    def on_disk(name, options):
        disk = folder / name
        disk.mkdir()
        texts = ["--corpus", str(folder / "films.txt"), "--cache-dir", str(folder / "cache")]
        flags = [
            *SMALL,
            *FLAGS,
            *texts,
            "--output",
            str(disk / "run"),
            "--hidden-size",
            "64",
            "--keep-checkpoints",
            "9",
        ]
        process = start(pretrain_on_disk, disk, options, folder / "compiled", *flags, log=folder / f"{name}.log")
        process.join()
        if process.exitcode == NO_DISK:
            no_disk()
        return process.exitcode, (folder / f"{name}.log").read_text()

    return on_disk


def test_a_full_disk_gives_one_line_and_keeps_earlier_checkpoints(on_disk):
    code, output = on_disk("full", "size=3m")
    assert code == 1
    (message,) = [line for line in output.splitlines() if line.startswith("train.py: ")]
    assert (
        "checkpoints: a checkpoint could not be saved: No space left on device; complete checkpoints: step 4" in message
    )
    assert "Traceback" not in output
    assert "4 whole" in output


def test_a_folder_that_cannot_be_written_is_an_error_before_any_work(on_disk):
    code, output = on_disk("locked", "ro")
    assert code == 1
    assert output.strip().startswith("train.py: ")
    assert output.strip().endswith("locked cannot be written: choose another --output")
