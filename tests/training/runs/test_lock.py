"""One process at a time writes to the folder of a run; the lock of a process that has ended is taken over."""

import json
import os
import re
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from bert_jax.process_start import start_time
from bert_jax.training.runs import lock as module
from bert_jax.training.runs.lock import LOCK, STALE_AFTER, Owner, RunInUse, RunLock, holder, lock_run, require_free

NO_PROCESS = 2**31 - 1  # above any process id
CONTENDERS = 6


def leave_lock(folder: Path, *, age: float = 0.0, **changes) -> Owner:
    """Writes the lock of another owner, as if it was touched `age` seconds ago."""
    folder.mkdir(exist_ok=True)
    owner = replace(Owner.this_process(folder), **{"host": "node7", **changes})
    (folder / LOCK).write_text(json.dumps(asdict(owner)))
    touched = time.time() - age
    os.utime(folder / LOCK, (touched, touched))
    return owner


def contend(folder: Path) -> list[RunLock]:
    """Lets several threads try to take one lock at the same time; returns the locks that they got."""
    ready = threading.Barrier(CONTENDERS)

    def take(_):
        ready.wait()
        try:
            return RunLock(folder)
        except RunInUse:
            return None

    with ThreadPoolExecutor(CONTENDERS) as pool:
        return [lock for lock in pool.map(take, range(CONTENDERS)) if lock is not None]


@pytest.mark.parametrize("hard_links", [True, False], ids=["link", "without hard links"])
@pytest.mark.parametrize("stale", [False, True], ids=["new", "stale"])
def test_of_several_that_try_at_once_exactly_one_gets_the_lock(tmp_path, monkeypatch, stale, hard_links):
    if not hard_links:
        monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(PermissionError(1, "Operation not permitted")))
    for number in range(8):
        folder = tmp_path / str(number)
        folder.mkdir()
        before = leave_lock(folder, process=NO_PROCESS) if stale else None
        (lock,) = contend(folder)
        assert lock.previous == before
        assert json.loads((folder / LOCK).read_text()) == asdict(lock.owner)
        lock.release()
        assert list(folder.iterdir()) == []


def test_a_process_that_runs_is_named(tmp_path):
    with lock_run(tmp_path) as lock:
        os.utime(tmp_path / LOCK, (0, 0))  # it may be suspended, but it is on this machine: it runs
        with pytest.raises(
            RunInUse, match=rf"is in use by process {os.getpid()} on .*, since 2\d\d\d-\d\d-\d\d .*: wait"
        ):
            RunLock(tmp_path)
        assert lock is not None
        lock.check()


@pytest.mark.parametrize(
    "changes", [{"process": NO_PROCESS}, {"started": 1}], ids=["dead process", "process id that is used again"]
)
def test_the_lock_of_a_process_that_has_ended_is_taken_over(tmp_path, capsys, changes):
    owner = leave_lock(tmp_path, **changes)
    with lock_run(tmp_path):
        assert f"{tmp_path}: the lock of {owner} is taken over" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_a_process_that_waits_for_its_parent_has_ended(tmp_path):
    process = subprocess.Popen(["true"])
    owner = replace(Owner.this_process(tmp_path), process=process.pid, started=start_time(process.pid) or 7)
    while not Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].startswith(" Z"):
        time.sleep(0.001)
    assert owner.is_alive() is False
    process.wait()


@pytest.mark.parametrize("machine", ["another boot pid:[7]", ""], ids=["another machine", "unknown machine"])
def test_the_age_of_a_lock_of_another_machine_decides(tmp_path, machine):
    """Also that of this machine before it was restarted, or of another container on it."""
    owner = leave_lock(tmp_path, machine=machine, age=STALE_AFTER - 20)
    with pytest.raises(
        RunInUse,
        match=r"process \d+ on node7, since .*, last active 10\d s ago: .* again in (20|21) s, or delete .*\.lock",
    ):
        RunLock(tmp_path)
    assert json.loads((tmp_path / LOCK).read_text()) == asdict(owner)
    leave_lock(tmp_path, machine=machine, age=STALE_AFTER + 20)
    RunLock(tmp_path).release()


def test_a_job_that_starts_again_elsewhere_waits_until_the_lock_is_stale(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, "STALE_AFTER", 0.3)
    monkeypatch.setattr(module, "POLL", 0.02)
    owner = leave_lock(tmp_path, machine="another boot pid:[7]", age=0.1)
    with lock_run(tmp_path) as lock:
        assert lock is not None
        assert lock.previous == owner
        assert lock.path.stat().st_mtime - time.time() < 0.1
        waited, taken = capsys.readouterr().out.splitlines()
        assert re.search(rf"waiting until \d\d:\d\d:\d\d: process {owner.process} on node7, since", waited)
        assert "is taken over, because that process has ended" in taken


def test_a_job_that_finds_the_other_alive_is_refused_as_soon_as_it_knows(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "POLL", 0.005)
    leave_lock(tmp_path, machine="another boot pid:[7]", age=60)
    touch = threading.Timer(0.05, os.utime, [tmp_path / LOCK])
    touch.start()
    with pytest.raises(RunInUse, match="last active 0 s ago"), lock_run(tmp_path):
        pass
    touch.join()


@pytest.mark.parametrize("machine", [None, "another boot pid:[7]"], ids=["this machine", "another machine"])
def test_a_lock_that_was_copied_with_its_folder_is_none(tmp_path, capsys, machine):
    changes = {} if machine is None else {"machine": machine}
    owner = leave_lock(tmp_path / "run", **changes)
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    assert holder(tmp_path / "run") == owner
    assert holder(tmp_path / "copy") is None
    require_free(tmp_path / "copy")
    with lock_run(tmp_path / "copy"):
        assert f"is taken over, because it was copied from {tmp_path / 'run'}" in capsys.readouterr().out
    (tmp_path / "run").rename(tmp_path / "moved")
    assert holder(tmp_path / "moved") == owner
    with pytest.raises(RunInUse):
        RunLock(tmp_path / "moved")


def test_a_lock_of_an_older_version_names_no_folder(tmp_path):
    owner = leave_lock(tmp_path)
    record = {name: value for name, value in asdict(owner).items() if name not in ("folder", "inode")}
    (tmp_path / LOCK).write_text(json.dumps(record))
    with pytest.raises(RunInUse, match="is in use by process"):
        RunLock(tmp_path)


@pytest.mark.parametrize("content", ["", "\0" * 50, "{", "[]", '{"host": 3}', '{"process": "x"}'])
def test_a_damaged_lock_is_taken_over_once_it_is_old(tmp_path, content):
    (tmp_path / LOCK).write_text(content)
    with pytest.raises(RunInUse, match="in use by an unknown process, last active"):
        RunLock(tmp_path)
    os.utime(tmp_path / LOCK, (0, 0))
    RunLock(tmp_path).release()


def test_a_process_that_was_killed_while_it_took_a_lock_over_blocks_nobody(tmp_path):
    owner = leave_lock(tmp_path, process=NO_PROCESS)
    killed = replace(owner, token="a1", process=NO_PROCESS - 1)
    (tmp_path / f"{LOCK}.{owner.token}").write_text(json.dumps(asdict(killed)))
    lock = RunLock(tmp_path)
    assert lock.previous == owner
    lock.release()
    assert list(tmp_path.iterdir()) == []


def test_a_repeated_request_of_nfs_counts_once(tmp_path, monkeypatch):
    link = os.link

    def link_without_reply(*names):
        link(*names)
        raise FileExistsError

    monkeypatch.setattr(os, "link", link_without_reply)
    RunLock(tmp_path).release()


def test_a_lock_is_touched_while_it_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "HEARTBEAT", 0.005)
    with lock_run(tmp_path):
        os.utime(tmp_path / LOCK, (0, 0))
        end = time.monotonic() + 60
        while not (tmp_path / LOCK).stat().st_mtime:
            assert time.monotonic() < end
            time.sleep(0.005)


def test_a_lock_that_was_lost_is_noticed_and_left_to_its_new_owner(tmp_path):
    lock = RunLock(tmp_path)
    other = leave_lock(tmp_path, token="b2")
    with pytest.raises(RunInUse, match=r"did not touch its lock in time; now process \d+ on node7"):
        lock.check()
    lock.release()
    assert json.loads((tmp_path / LOCK).read_text()) == asdict(other)


def test_a_lock_that_was_deleted_is_taken_again(tmp_path):
    lock = RunLock(tmp_path)
    (tmp_path / LOCK).unlink()
    lock.check()
    with pytest.raises(RunInUse):
        RunLock(tmp_path)
    lock.release()


def test_a_folder_that_stays_empty_is_removed(tmp_path):
    with pytest.raises(KeyError), lock_run(tmp_path / "runs" / "one"):
        raise KeyError
    assert list(tmp_path.iterdir()) == []
    with lock_run(tmp_path / "runs" / "two"):
        (tmp_path / "runs" / "two" / "training.json").touch()
    assert [path.name for path in (tmp_path / "runs" / "two").iterdir()] == ["training.json"]
