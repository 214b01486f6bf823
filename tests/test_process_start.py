"""A process is known by its id and its start, also where the system hides one of them."""

import os
from pathlib import Path

import pytest

from bert_jax.process_start import is_running, start_time


def test_this_process_runs_and_one_with_another_start_does_not():
    started = start_time(os.getpid())
    assert started is not None
    assert is_running(os.getpid(), started)
    assert not started or not is_running(os.getpid(), started + 1)


@pytest.mark.parametrize(
    ("answer", "running"), [(None, True), (PermissionError(), True), (ProcessLookupError(), False)]
)
def test_a_process_whose_start_is_hidden_runs_if_it_can_get_signals(monkeypatch, answer, running):
    def refuse(path):
        raise PermissionError

    def kill(process, signal):
        if answer is not None:
            raise answer

    monkeypatch.setattr(Path, "read_text", refuse)
    monkeypatch.setattr(os, "kill", kill)
    assert is_running(4, 17) == running
