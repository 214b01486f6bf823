"""Two processes train as one does, over a real network: Gloo on this machine's loopback."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import resumable
from compiling import xla_flags
from resumable import free_address, receive, start
from small_runs import SMALL, write_corpus

from bert_jax.cli.programs import parse_pretraining
from bert_jax.pretraining.checks import check
from bert_jax.training.devices import parallel, processes
from bert_jax.training.runs.manifests import CHECKPOINTS
from bert_jax.training.runs.saved_steps import newest_step
from bert_jax.training.settings import as_record

SAME_LOSSES = 1e-5
ROOT = Path(__file__).parents[3]
STILL = [
    *SMALL, "--decay-steps", "10000", "--learning-rate", "1e-3", "--hidden-dropout-prob", "0",
    "--attention-probs-dropout-prob", "0",
]  # fmt: skip


@pytest.fixture(scope="module")
def pretrain(tmp_path_factory):
    """Runs train.py in `count` processes of `devices` devices each; returns what each printed.

    Several are started from scratch, because their exit is that of a whole interpreter; one is forked, which is faster.
    With `interrupt`, a run's folder, the last process gets SIGTERM after the second step of that run.
    """
    folder = tmp_path_factory.mktemp("text")
    here = ["--corpus", str(write_corpus(folder / "films.txt")), "--cache-dir", str(folder / "cache")]

    def run(count: int, devices: int, *flags: str, interrupt: Path | None = None) -> list[str]:
        if count == 1:
            log = folder / "log"
            log.unlink(missing_ok=True)
            process = start(resumable.pretrain, folder / "compiled", *STILL, *here, *flags, devices=devices, log=log)
            process.join(240)
            assert process.exitcode == 0, log.read_text()
            return [log.read_text()]
        environment = os.environ | {
            "XLA_FLAGS": xla_flags(devices),
            "PYTHONPATH": str(ROOT),
        }
        address = free_address()
        started = []
        for number in range(count):
            command = [sys.executable, str(ROOT / "train.py"), *STILL, *here, *flags]
            command += ["--distributed", "--coordinator", address]
            command += ["--num-processes", str(count), "--process-id", str(number)]
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
            started.append(subprocess.Popen(command, env=environment, text=True, **pipes))
        if interrupt is not None:
            wait_until(lambda: (interrupt / "metrics.jsonl").exists() and len(rows(interrupt)) > 1, started[-1])
            started[-1].send_signal(signal.SIGTERM)
        outputs = [process.communicate(timeout=240)[0] for process in started]
        code = 0 if interrupt is None else 128 + signal.SIGTERM
        assert [process.returncode for process in started] == [code] * count, "\n".join(outputs)
        return outputs

    return run


def wait_until(condition, process):
    while not condition() and process.poll() is None:
        time.sleep(0.01)


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_two_processes_train_as_one_and_read_its_checkpoints(pretrain, tmp_path):
    """Each run is started by one number of processes and resumed by the other, on another layout of devices.

    Of the two processes, the second gets a signal. Both save the same step, and the first prints how to resume.
    """
    one, two = tmp_path / "one", tmp_path / "two"
    outputs = pretrain(2, 2, "--output", str(two), "--steps", "10000", "--fsdp", "4", interrupt=two)
    reached = newest_step(two / CHECKPOINTS)
    assert reached is not None
    assert "on 4 cpu devices" in outputs[0]
    assert f"train.py: SIGTERM: saved at step {reached}; to resume: " in outputs[0]
    assert outputs[0].rstrip().endswith("--resume")

    steps = reached + 2
    pretrain(1, 4, "--output", str(one), "--steps", str(reached))
    outputs = pretrain(2, 2, "--output", str(one), "--steps", str(steps), "--resume", "--parallel", "pmap")
    assert f"resuming from step {reached} of {steps}" in outputs[0]
    assert "bert_jax.load" in outputs[0]
    for part in ("corpus: ", "model: ", "training: "):
        assert part in outputs[0]
        assert part not in outputs[1]
    outputs = pretrain(1, 4, "--output", str(two), "--steps", str(steps), "--resume")
    assert f"resuming from step {reached} of {steps}" in outputs[0]

    assert [row["step"] for row in rows(one) if "loss" in row] == list(range(1, steps + 1))
    ended = [
        row for row in rows(one) if row["step"] != reached or "loss" in row
    ]  # the run of one process ended there, with an evaluation
    for got, wanted in zip(rows(two), ended, strict=True):
        assert got.keys() == wanted.keys()
        for name in got.keys() - {"tokens_per_second"}:
            np.testing.assert_allclose(got[name], wanted[name], rtol=SAME_LOSSES, err_msg=name)


def test_every_process_gets_what_the_first_one_makes(tmp_path):
    address = free_address()
    started = [start(receive, address, index, tmp_path, log=tmp_path / f"log{index}") for index in range(2)]
    for process in started:
        process.join()
    received = [(tmp_path / f"{index}.received").read_bytes() for index in range(2)]
    assert received == [bytes(range(256)) * 5] * 2


def test_a_process_that_fails_does_not_wait_for_the_others():
    program = (
        "import sys; from bert_jax.training.devices import processes\n"
        "for _ in range(2): processes.join(sys.argv[1], 2, int(sys.argv[2]))\n"
        "if sys.argv[2] == '1': raise RuntimeError('of the second process')\n"
        "sys.stdin.read()"  # the first one keeps running
    )
    command = [sys.executable, "-c", program, free_address()]
    pipes = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    first, second = [subprocess.Popen([*command, number], env=environment, **pipes) for number in "01"]
    try:
        assert "RuntimeError: of the second process" in second.communicate(timeout=60)[1]
        assert second.returncode == 1
        assert first.poll() is None
    finally:
        for process in (first, second):
            process.kill()
            process.communicate()


def test_a_single_process_gets_what_it_makes():
    assert processes.broadcast_from_first("content", lambda: b"made") == b"made"


def held_by(*processes_of_rows: tuple[int, ...]):
    """A layout in which row-shard i is on a device of each of the i-th processes."""
    devices = [(process, shard) for shard, holders in enumerate(processes_of_rows) for process in holders]
    indices = {Device(process): (slice(shard, shard + 1),) for process, shard in devices}
    rows = SimpleNamespace(devices_indices_map=lambda shape: indices)
    return SimpleNamespace(shards=len(processes_of_rows), batch_sharding=rows)


class Device:
    def __init__(self, process_index):
        self.process_index = process_index


@pytest.mark.parametrize(
    ("holders", "slices"),
    [
        ([(0,), (0,), (1,), (1,)], [(0, 2), (1, 2)]),  # data
        ([(0, 1)], [(0, 1), (0, 1)]),  # tensor over both
        ([(0, 1), (2, 3)], [(0, 2), (0, 2), (1, 2), (1, 2)]),  # tensor over two of four
        ([(0,), (1,), (0,), (1,)], [(0, 2), (1, 2)]),  # a mesh that orders its devices otherwise
    ],
)
def test_a_process_reads_the_rows_of_its_devices(monkeypatch, holders, slices):
    for process, wanted in enumerate(slices):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        assert parallel.slice_to_read(held_by(*holders)) == wanted


def test_processes_that_share_only_some_rows_are_an_error():
    with pytest.raises(ValueError, match="hold partly overlapping rows: choose another `tensor`"):
        parallel.slice_to_read(held_by((0,), (0, 1), (1,)))


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--process-id", "0"], "`process_id` is only used with `distributed`"),
        (["--distributed", "--coordinator", "here"], "`coordinator` must be HOST:PORT, got 'here'"),
        (["--distributed", "--num-processes", "2", "--process-id", "2"], "`process_id` must be between 0 and 1, got 2"),
        (["--distributed", "--num-processes", "0"], "`num_processes` must be at least 1, got 0"),
    ],
)
def test_inconsistent_flags_are_an_error(flags, message):
    with pytest.raises(ValueError, match=message):
        check(parse_pretraining(flags))


def test_how_processes_connect_is_not_recorded():
    settings = parse_pretraining(["--distributed", "--coordinator", "here:1", "--process-id", "0"])
    assert "processes" not in as_record(settings)


def test_without_a_cluster_the_error_names_the_arguments(monkeypatch):
    def found_nothing(*arguments):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", found_nothing)
    with pytest.raises(ValueError, match=r"no Slurm, .* give `coordinator`, `num_processes` and `process_id`"):
        processes.join()


def test_a_single_process_waits_for_nobody():
    processes.barrier("a moment")
    with processes.first_process_first("a block"):
        assert processes.is_first()
