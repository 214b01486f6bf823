"""Cache folders: complete or absent, and what killed processes left is removed, but nothing of a process that runs."""

import os
import subprocess
import sys

import pytest

from bert_jax.data.readers import cache
from bert_jax.data.readers.cache import abandoned_folders, new_folder
from bert_jax.process_start import start_time


def leave(folder, *, pid=None, start=None, machine=None):
    """Leaves an unfinished folder with a file, like a killed process, of this process unless told otherwise."""
    pid = os.getpid() if pid is None else pid
    path = folder / f".abc@{machine or cache._machine()}@{pid}@{start_time(pid) if start is None else start}@0a1b"
    path.mkdir()
    (path / "ids.arrow").write_bytes(b"x")
    return path


def gone():
    """Returns the id of a process that has ended."""
    with subprocess.Popen([sys.executable, "-S", "-c", ""]) as process:
        pass
    return process.pid


def test_what_a_killed_process_left_is_removed_by_the_next(tmp_path):
    left = leave(tmp_path, pid=gone(), start="17")
    with new_folder(tmp_path / "abc") as unfinished:
        assert not left.exists()
        (unfinished / "ids.arrow").write_bytes(b"y")
    assert [path.name for path in tmp_path.iterdir()] == ["abc"]


@pytest.mark.skipif(not start_time(os.getpid()), reason="the start of a process is unknown")
def test_a_process_id_that_was_given_again_is_no_owner(tmp_path):
    left = leave(tmp_path, start="17")
    assert abandoned_folders(tmp_path) == [left]


def test_folders_of_processes_that_run_stay(tmp_path):
    with new_folder(tmp_path / "one") as one, new_folder(tmp_path / "two"):
        parent = leave(tmp_path, pid=os.getppid())
        assert abandoned_folders(tmp_path) == []
        with new_folder(tmp_path / "three"):
            assert one.exists()
            assert parent.exists()


@pytest.mark.parametrize("machine", ["elsewhere", "elsewhere-4026531836"])
def test_folders_of_other_machines_and_containers_stay(tmp_path, machine):
    left = leave(tmp_path, pid=gone(), machine=machine)
    with new_folder(tmp_path / "abc"):
        assert left.exists()


def test_other_names_stay(tmp_path):
    names = [".abc.0123456789abcdef", ".cache@home", ".a@b@c@d@e", "abc@host@1@2@3", "notes"]
    for name in names:
        (tmp_path / name).mkdir()
    with new_folder(tmp_path / "abc"):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*names, "abc"])
