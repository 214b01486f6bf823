"""A run that is killed or interrupted at any moment, and resumed, ends as one that was not."""

import os
import pickle
import signal
import threading
import time
from functools import partial

import numpy as np
import pytest
from resumable import (
    STEPS,
    alive_in,
    count_steps,
    endless_step,
    fit,
    fit_as_a_program,
    fit_in_a_group,
    free_address,
    kill,
    rows,
    saving,
    start,
    wait_until,
)

from bert_jax.cli.programs import parse_pretraining
from bert_jax.pretraining.presets import make_settings
from bert_jax.training.runs.interruption import STOPPED, STOPPING, Interrupted, Interruption
from bert_jax.training.runs.saved_steps import newest_step

KILLS = 20


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run that was not killed."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    process = start(fit, run)
    process.join()
    assert process.exitcode == 0
    return run


def assert_same_run(run, whole):
    assert [row["step"] for row in rows(run) if "loss" in row] == list(range(1, STEPS + 1))
    assert rows(run) == rows(whole)
    found, wanted = (np.load(folder / "end.npz") for folder in (run, whole))
    for name in wanted:
        np.testing.assert_array_equal(found[name], wanted[name])


@pytest.mark.slow
def test_a_run_killed_at_many_moments_ends_as_one_that_was_not(tmp_path, whole):
    """Every second kill comes while a checkpoint is being written, the others at random moments."""
    run, random, while_saving, reached = tmp_path / "run", np.random.default_rng(0), 0, []
    for number in range(KILLS):
        process = start(fit, run, 0.02)
        if number % 2:
            before = newest_step(run / "checkpoints")
            wait_until(lambda before=before: newest_step(run / "checkpoints") != before, process)
            wait_until(lambda: saving(run), process)
            time.sleep(random.uniform(0, 0.03))
        elif number % 4:
            before = len(rows(run))
            wait_until(lambda before=before: len(rows(run)) > before, process)
            time.sleep(random.uniform(0, 0.1))
        else:
            time.sleep(random.uniform(0, 0.5))
        kill(process)
        while_saving += saving(run)
        reached.append(newest_step(run / "checkpoints"))
    assert while_saving >= KILLS // 4, "too few of the kills came while a checkpoint was being written"
    assert reached[-1] < STEPS, f"the run was over before the last kill: {reached}"
    process = start(fit, run)
    process.join()
    assert process.exitcode == 0
    assert_same_run(run, whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_saves_and_loses_nothing(tmp_path, whole, number):
    run = tmp_path / "run"
    process = start(fit, run, 0.05, log=tmp_path / "log")
    wait_until(lambda: (run / "metrics.jsonl").exists() and len(rows(run)) > 1, process)
    os.kill(process.pid, number)
    process.join()
    assert f"{number.name}: saved at step {newest_step(run / 'checkpoints')}" in (tmp_path / "log").read_text()
    assert rows(run)[-1]["step"] == newest_step(run / "checkpoints")
    process = start(fit, run)
    process.join()
    assert_same_run(run, whole)


def at_work(process, run, taken):
    """Returns whether a run has logged more than `taken` steps, if that is above 0, and has two workers.

    It reads the state of every process of the machine, so it is not to be called without a pause.
    """
    return (not taken or len(rows(run)) > taken) and len(alive_in(process.pid)) == 3


@pytest.mark.slow
def test_workers_survive_a_signal_to_their_group_but_not_the_end_of_their_run(tmp_path, whole):
    """The signal comes while the workers start, then while batches are taken. At last the run gets SIGKILL."""
    run = tmp_path / "run"
    for number, taken in ((signal.SIGINT, 0), (signal.SIGTERM, 3), (signal.SIGUSR1, 6)):
        process = start(fit_in_a_group, run, 0.05, log=tmp_path / "log")
        wait_until(partial(at_work, process, run, taken), process, every=0.05)
        os.killpg(process.pid, number)
        process.join()
        assert f"{number.name}: saved at step {newest_step(run / 'checkpoints')}" in (tmp_path / "log").read_text()
        assert alive_in(process.pid) == []

    process = start(fit_in_a_group, run, 0.05)
    reached = len(rows(run))
    wait_until(lambda: len(rows(run)) > reached, process)
    kill(process)
    end = time.monotonic() + 10
    while alive_in(process.pid) and time.monotonic() < end:
        time.sleep(0.05)
    assert alive_in(process.pid) == []

    start(fit, run).join()
    assert_same_run(run, whole)


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_interrupt_ends_a_program_at_once(tmp_path, first):
    run = tmp_path / "run"
    process = start(fit_as_a_program, run, 3.0, log=tmp_path / "log")
    wait_until(lambda: any(run.glob("tensorboard/*")), process)
    time.sleep(0.5)
    began = time.monotonic()
    for number in (first, signal.SIGINT):
        os.kill(process.pid, number)
        time.sleep(0.2)
    process.join()
    assert time.monotonic() - began < 2.0
    assert process.exitcode == 128 + signal.SIGINT
    assert (tmp_path / "log").read_text().splitlines()[-1] == STOPPED
    assert newest_step(run / "checkpoints") is None


def test_a_second_interrupt_ends_a_program_inside_a_step(tmp_path):
    """The main thread is in a compiled step, and Python would handle both signals as one."""
    process = start(endless_step, tmp_path / "entered")
    wait_until((tmp_path / "entered").exists, process)
    for wait in (0.5, 2.0):
        time.sleep(0.5)
        os.kill(process.pid, signal.SIGINT)
        process.join(wait)
        assert process.is_alive() == (wait < 1), "the first is a request, the second an end"
    assert process.exitcode == 128 + signal.SIGINT


def receive(*numbers, also=()):
    """Receives signals during a run in this process."""
    with Interruption(also) as interruption:
        for number in numbers:
            os.kill(os.getpid(), number)
            time.sleep(0.05)
        return interruption.received


@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGTERM])
def test_a_second_interrupt_raises_in_a_library_call(first):
    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        receive(first, signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is handler
    time.sleep(0.05)  # no second KeyboardInterrupt arrives later


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGXCPU])
def test_a_run_saves_at_signals_that_the_settings_name(number):
    settings = parse_pretraining(["--save-on-signal", number.name, "SIGHUP"])
    assert settings.run.save_on_signal == (number.name, "SIGHUP")
    before = signal.getsignal(number)
    assert receive(number, also=settings.run.save_on_signal) == number
    assert signal.getsignal(number) == before
    error = pickle.loads(pickle.dumps(Interrupted(number, 3)))  # Ray sends it from a worker
    assert error.exit_code == 128 + number
    assert str(error) == f"{number.name}: saved at step 3"


@pytest.mark.parametrize("name", ["USR1", "SIGKILL", "SIGTERM"])
def test_other_names_of_signals_are_refused(name):
    with pytest.raises(ValueError, match=r"`save_on_signal` must be .*SIGUSR1"):
        make_settings("tiny", save_on_signal=(name,))


@pytest.mark.parametrize(("number", "announced"), [(signal.SIGINT, f"{STOPPING}\n"), (signal.SIGTERM, "")])
def test_the_first_interrupt_says_how_to_stop_now(capfd, number, announced):
    assert receive(number) == number
    assert capfd.readouterr().err == announced


@pytest.mark.parametrize("closed", [True, False])
def test_interrupts_are_received_without_standard_error(monkeypatch, tmp_path, closed):
    with (tmp_path / "closed").open("w") as file:
        monkeypatch.setattr("sys.stderr", file if closed else None)
    with pytest.raises(KeyboardInterrupt):
        receive(signal.SIGINT, signal.SIGINT)


def test_signal_handlers_are_restored():
    def state():
        writer = signal.set_wakeup_fd(-1)
        signal.set_wakeup_fd(writer)
        return (
            writer,
            [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)],
            threading.active_count(),
        )

    before = state()
    with Interruption() as interruption:
        assert state() != before
        os.kill(os.getpid(), signal.SIGTERM)
        assert interruption.requested()
    assert state() == before


@pytest.mark.parametrize(
    ("receivers", "number", "in_thread"),
    [
        ([1], signal.SIGTERM, True), ([0, 1], signal.SIGTERM, False), ([0, 1], signal.SIGINT, False),
        ([1], signal.SIGUSR1, False),
    ],
)  # fmt: skip
def test_processes_end_at_the_same_step_whichever_gets_the_signal(tmp_path, receivers, number, in_thread):
    """With `in_thread` the steps are computed in another thread than the main one, which receives signals."""
    address = free_address()
    processes = [
        start(count_steps, address, index, tmp_path, in_thread, log=tmp_path / f"log{index}") for index in range(2)
    ]
    for index, process in enumerate(processes):
        wait_until((tmp_path / f"{index}.step").exists, process)
    for index in receivers:
        os.kill(processes[index].pid, number)
    for process in processes:
        process.join()
    ends = [(tmp_path / f"{index}.end").read_text().split() for index in range(2)]
    assert ends[0] == ends[1]
    assert ends[0][1] == str(int(signal.SIGTERM))
