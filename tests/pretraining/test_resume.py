"""train.py killed, told to end, moved to other devices, out of disk, its files damaged: provoked, in processes."""

import os
import shutil
import signal
import time

import jax
import numpy as np
import pytest
from resumable import NO_DISK, kill, pretrain, pretrain_on_disk, rows, saving, start, wait_until
from small_runs import SMALL, write_corpus

import bert_jax
from bert_jax.training.runs.checkpoints import newest_step

STEPS = 40
MANY = 150  # that no run is through with between two kills
ON_OTHER_DEVICES = 1e-5
# At a learning rate that lets a difference in rounding grow no faster than it comes; at 1e-2 it grows a hundredfold.
SLOWLY = ["--learning-rate", "1e-3"]
EVERY = ["--steps", str(STEPS), "--checkpoint-every", "4", "--eval-every", "10", "--eval-rows", "8", *SLOWLY]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("train")
    write_corpus(folder / "films.txt")
    return folder


@pytest.fixture(scope="module")
def begin(folder):
    """Starts train.py; what it prints goes to RUN.log."""

    def begin(name, *flags, devices=1):
        texts = ["--corpus", str(folder / "films.txt"), "--cache-dir", str(folder / "cache")]
        flags = [*SMALL, *EVERY, *texts, "--output", str(folder / name), *flags]
        return start(pretrain, folder / "compiled", *flags, devices=devices, log=folder / f"{name}.log")

    return begin


@pytest.fixture(scope="module")
def finish(begin, folder):
    """Runs train.py to its end; returns exit code and output."""

    def finish(name, *flags, devices=1):
        process = begin(name, *flags, devices=devices)
        process.join()
        return process.exitcode, (folder / f"{name}.log").read_text()

    return finish


@pytest.fixture(scope="module")
def whole(finish, folder):
    """A run that never died."""
    code, said = finish("whole")
    assert code == 0, said
    return folder / "whole"


def reached(run):
    return rows(run)[-1]["step"] if (run / "metrics.jsonl").exists() and rows(run) else 0


def params(run):
    return jax.tree.map(np.asarray, bert_jax.load(run).params)


@pytest.mark.slow
def test_killed_and_told_to_end_train_py_ends_as_if_nothing_had_been(begin, finish, folder, whole):
    run = folder / "killed"
    process = begin("killed", "--resume")  # where there is nothing to go on with, it begins
    wait_until(lambda: reached(run) >= 6, process)
    assert "to go on from: beginning with step 0" in (folder / "killed.log").read_text()
    kill(process)
    process = begin("killed", "--resume")
    wait_until(lambda: reached(run) >= 15, process)
    os.kill(process.pid, signal.SIGTERM)
    process.join()
    told, saved = (folder / "killed.log").read_text(), newest_step(run / "checkpoints")
    assert process.exitcode == 128 + signal.SIGTERM
    assert f"train.py: SIGTERM: saved at step {saved}; to resume: python " in told
    assert told.rstrip().endswith("--resume")
    process = begin("killed", "--resume")
    wait_until(lambda: reached(run) >= 25, process)
    wait_until(lambda: saving(run), process)
    kill(process)
    code, said = finish("killed", "--resume")
    assert code == 0, said
    assert rows(run) == rows(whole)
    assert [row["step"] for row in rows(run) if "loss" in row] == list(range(1, STEPS + 1))
    jax.tree.map(np.testing.assert_array_equal, params(run), params(whole))
    assert finish("killed", "--resume")[0] == 0  # a supervisor that starts it once more finds it done


@pytest.mark.slow
def test_train_py_killed_at_many_moments_ends_as_if_nothing_had_been(begin, finish, folder):
    """While it starts, between two steps and while a checkpoint is being written, in turn."""
    long = ["--steps", str(MANY), "--decay-steps", str(MANY)]
    code, said = finish("unkilled", *long)
    assert code == 0, said
    run, random, while_saving = folder / "often", np.random.default_rng(0), 0
    for moment in ("starting", "stepping", "saving") * 2:
        process, before, row = begin("often", *long, "--resume"), newest_step(run / "checkpoints"), reached(run)
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
    assert newest_step(run / "checkpoints") < MANY, "the run was over before the last kill"
    code, said = finish("often", *long, "--resume")
    assert code == 0, said
    assert rows(run) == rows(folder / "unkilled")
    assert [row["step"] for row in rows(run) if "loss" in row] == list(range(1, MANY + 1))
    jax.tree.map(np.testing.assert_array_equal, params(run), params(folder / "unkilled"))


@pytest.mark.slow
def test_a_run_that_moves_to_other_devices_goes_on_as_it_would_have(finish, folder, whole):
    for steps, devices in ((12, 8), (24, 4), (STEPS, 1)):
        code, said = finish("moved", "--resume", "--steps", str(steps), devices=devices)
        assert code == 0, said
    found, wanted = ([row for row in rows(run) if "loss" in row] for run in (folder / "moved", whole))
    assert [row["row_efficiency"] for row in found] == [row["row_efficiency"] for row in wanted]
    for a, b in zip(found, wanted, strict=True):
        np.testing.assert_allclose(a["loss"], b["loss"], rtol=ON_OTHER_DEVICES)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=ON_OTHER_DEVICES, atol=ON_OTHER_DEVICES),
        params(folder / "moved"),
        params(whole),
    )


def copy(run, name):
    return shutil.copytree(run, run.parent / name)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_used(finish, whole):
    run = copy(whole, "damaged")
    largest = max((run / "checkpoints" / str(STEPS) / "state").rglob("*"), key=lambda path: path.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    with pytest.raises(ValueError, match=rf"checkpoints/{STEPS}: the checkpoint is damaged: the content of state/"):
        bert_jax.load(run)
    assert np.isfinite(params(run.parent / "whole")["pooler"]["kernel"]).all()
    code, said = finish("damaged", "--resume")
    assert code == 0, said
    assert f"checkpoints/{STEPS}: the checkpoint is damaged" in said
    assert f"moved to {run}/damaged/{STEPS}" in said
    assert f"going on from step {STEPS - 4}" in said
    assert rows(run) == rows(whole)
    jax.tree.map(np.testing.assert_array_equal, params(run), params(whole))


def no_disk():
    """Skips, or fails where it is known that there can be one."""
    give_up = pytest.fail if os.environ.get("BERT_JAX_REQUIRE_NAMESPACES") == "1" else pytest.skip
    give_up("this system lets no process of ours mount a disk")


@pytest.fixture(scope="module")
def on_disk(folder):
    """Runs train.py in a folder that is a disk of its own; returns exit code and output."""

    def on_disk(name, options):
        disk = folder / name
        disk.mkdir()
        texts = ["--corpus", str(folder / "films.txt"), "--cache-dir", str(folder / "cache")]
        flags = [
            *SMALL,
            *EVERY,
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


def test_a_full_disk_is_told_in_one_line_and_earlier_checkpoints_are_whole(on_disk):
    code, said = on_disk("full", "size=3m")
    assert code == 1
    (told,) = [line for line in said.splitlines() if line.startswith("train.py: ")]
    assert "checkpoints: a checkpoint could not be saved: No space left on device; complete checkpoints: step 4" in told
    assert "Traceback" not in said
    assert "4 whole" in said


def test_a_folder_that_cannot_be_written_is_refused_before_work(on_disk):
    code, said = on_disk("locked", "ro")
    assert code == 1
    assert said.strip().startswith("train.py: ")
    assert said.strip().endswith("locked cannot be written: choose another --output")
