"""The lock on the folder of a run: one process at a time writes to it. Readers ignore it.

RUN/.lock names its owner: host, process, and since when. It is written under another name and then linked, because
link(2) is atomic on local disks and on NFS, where flock(2) is not reliable. The owner touches it every few seconds.

A lock whose owner has ended is taken over. On the same machine the owner's process id and start time decide: a process
id alone may be used again. On another machine, the age of the lock decides, and a new process waits until it does. Ages
are differences of two times of the same file system, so the clocks of the machines may differ.

A lock that was copied together with its folder is none: its owner writes to the folder that it names.

References: open(2), O_EXCL: the advice for NFS.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from pathlib import Path
from uuid import uuid4

from bert_jax.files import write_file
from bert_jax.process_start import is_running, start_time
from bert_jax.training.devices.processes import is_first

LOCK = ".lock"
HEARTBEAT = 10.0  # seconds between two touches of the lock
STALE_AFTER = 120.0  # seconds without a touch after which the owner on another machine has ended
POLL = 1.0  # seconds between two looks at a lock that may become stale
_ATTEMPTS = 100  # each fails only if the lock was released, or taken over, between two system calls


class RunInUse(OSError):
    """Another process writes to the folder of the run; the message names it."""


@dataclass(frozen=True)
class Owner:
    """The process that holds a lock.

    Attributes:
        machine: identifies the boot of a machine and the process namespace (container) on it; empty if unknown. Within
            it, `process` and `started` identify one process.
        started: when the process started, in clock ticks since the boot.
        since: when it took the lock.
        token: identifies this lock.
        folder: the real path of the folder that is locked.
        inode: the number of this folder in its file system, which it keeps when it is moved.
    """

    host: str
    machine: str
    process: int
    started: int
    since: str
    token: str
    folder: str = ""  # this and the next are empty in locks of older versions
    inode: int = 0

    @classmethod
    def this_process(cls, folder: Path) -> "Owner":
        """Returns this process as the owner of a new lock on a folder."""
        process = os.getpid()
        return cls(
            host=socket.gethostname(),
            machine=_machine(),
            process=process,
            started=start_time(process) or 0,
            since=datetime.now().astimezone().isoformat(" ", "seconds"),
            token=uuid4().hex,
            folder=os.path.realpath(folder),
            inode=folder.stat().st_ino,
        )

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since}"

    def is_alive(self) -> bool | None:
        """Returns whether the process still runs; None if this machine cannot know."""
        if not self.machine or self.machine != _machine():
            return None
        return is_running(self.process, self.started)

    def is_elsewhere(self, folder: Path) -> bool:
        """Returns whether the lock was copied to `folder` from another one, neither moved nor mounted under its name.

        Both path and inode must differ: a folder may have another path on each machine, and a file system may number
        its folders again each time it is mounted.
        """
        known = self.folder and self.inode
        return bool(known) and self.folder != os.path.realpath(folder) and self.inode != folder.stat().st_ino

    def may_write_to(self, folder: Path) -> bool | None:
        """Returns whether the process may still write to the folder; None if this machine cannot know."""
        return False if self.is_elsewhere(folder) else self.is_alive()


class RunLock:
    """A lock that this process holds.

    Attributes:
        previous: the owner whose lock was taken over, because it has ended or writes elsewhere.

    Args:
        folder: of the run.
        wait: if only the age of a lock can tell whether its owner has ended, wait until it does.
    """

    def __init__(self, folder: Path, *, wait: bool = False) -> None:
        self.path = folder / LOCK
        self.owner = Owner.this_process(folder)
        self.previous = self._take(wait=wait)
        self._released = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="lock of the run", daemon=True)
        self._heart.start()

    def check(self) -> None:
        """Raises RunInUse if another process has taken the lock over, because this one was suspended for too long."""
        found = _read(self.path)
        if found is None:  # deleted by hand
            self._take()
        elif found[0] != self.owner:
            writer = found[0] or "an unknown process"
            raise RunInUse(f"{self.path.parent}: this process did not touch its lock in time; now {writer} writes here")

    def release(self) -> None:
        """Removes the lock, unless another process has taken it over."""
        self._released.set()
        self._heart.join()
        if self._is_mine():
            self.path.unlink(missing_ok=True)

    def _take(self, *, wait: bool = False) -> Owner | None:
        part = self.path.with_name(f"{LOCK}.{self.owner.token}.new")
        write_file(part, json.dumps(asdict(self.owner)) + "\n")
        try:
            if wait:
                _wait_while_unknown(self.path, part)
            return _take(self.path, part)
        finally:
            part.unlink(missing_ok=True)

    def _is_mine(self) -> bool:
        found = _read(self.path)
        return found is not None and found[0] == self.owner

    def _beat(self) -> None:
        while not self._released.wait(HEARTBEAT):
            with suppress(OSError):  # the network is down: the next touch may succeed
                if self._is_mine():
                    os.utime(self.path)


@contextmanager
def lock_run(folder: str | Path) -> Iterator[RunLock | None]:
    """Holds the lock on a run's folder while the block runs; makes the folder, and removes it if it stays empty.

    Of several processes of a distributed run the first one takes the lock, and the others get None. A job that starts
    again on another machine waits until the lock of the killed one is stale, at most `STALE_AFTER` seconds.

    Raises:
        RunInUse: another process holds it.
    """
    if not is_first():
        yield None
        return
    folder = Path(folder)
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        lock = RunLock(folder, wait=True)
        if lock.previous is not None:
            elsewhere = lock.previous.is_elsewhere(folder)
            why = f"it was copied from {lock.previous.folder}" if elsewhere else "that process has ended"
            print(f"{folder}: the lock of {lock.previous} is taken over, because {why}", flush=True)
        try:
            yield lock
        finally:
            lock.release()
    finally:
        with suppress(OSError):  # not empty
            for path in made:
                path.rmdir()


def holder(folder: str | Path) -> Owner | None:
    """Returns the process that writes to the folder of a run; None if none does, as far as this machine knows.

    Unlike `lock_run` it writes nothing, and so measures the age of a lock by the clock of this machine.
    """
    found = _read(Path(folder) / LOCK)
    if found is None:
        return None
    owner, touched = found
    if owner is None:
        return None
    alive = owner.may_write_to(Path(folder))
    return owner if alive or (alive is None and time.time() - touched <= STALE_AFTER) else None


def require_free(folder: str | Path) -> None:
    """Raises RunInUse if another process than this one writes to the folder of a run."""
    owner = holder(folder)
    if owner is not None and (owner.machine, owner.process) != (_machine(), os.getpid()):
        raise _in_use(Path(folder), owner)


def is_lock(name: str) -> bool:
    """Returns whether a file of this name in a run's folder is its lock, or one that is being taken."""
    return name == LOCK or name.startswith((f"{LOCK}.", f".{LOCK}."))


def _take(path: Path, part: Path) -> Owner | None:
    """Makes `path` a lock with the content of `part`; returns the owner that it was taken over from, or None.

    Of several processes that find the same stale lock one may replace it: the one that creates a second lock, which is
    named after the stale one. That process looks at the lock again before it replaces it, because another process may
    have done all this in the meantime.

    Raises:
        RunInUse: the owner of the lock is alive.
    """
    for _ in range(_ATTEMPTS):
        if _create(path, part):
            return None
        found = _read(path)
        if found is None:
            continue  # released meanwhile
        owner, touched = found
        _require_stale(path, owner, _now(part) - touched)
        second = path.with_name(f"{path.name}.{owner.token if owner else 'unreadable'}")
        _take(second, part)
        again = _read(path)
        if again is not None and again[0] == owner:
            second.replace(path)
            return owner
        second.unlink()
    raise RunInUse(f"{path.parent}: several processes try to take {path}")


def _create(path: Path, part: Path) -> bool:
    """Creates a lock with the content of `part`; returns whether there was none."""
    try:
        os.link(part, path)
        return True
    except FileExistsError:
        with suppress(FileNotFoundError):
            return os.path.samefile(part, path)  # NFS repeats a request whose reply is lost
        return False
    except OSError:  # a file system without hard links
        try:
            with path.open("xb") as file:
                file.write(part.read_bytes())
            return True
        except FileExistsError:
            return False


def _wait_while_unknown(path: Path, part: Path) -> None:
    """Waits while the owner of a lock may have ended: until it touches or releases the lock, or the lock is stale.

    Example: a job was killed 30 s ago and starts again on another machine, which waits for 90 s. Had it not been
    killed, its next touch would come within `HEARTBEAT` seconds, and the new job would be refused.
    """
    found = _read(path)
    if found is None:
        return
    owner, touched = found
    if owner is not None and owner.may_write_to(path.parent) is not None:
        return
    left = STALE_AFTER - (_now(part) - touched)
    if left < 0:
        return
    left = min(left, STALE_AFTER)  # the time may lie in the future
    until = f"{datetime.now() + timedelta(seconds=left):%H:%M:%S}"
    print(f"{path.parent}: waiting until {until}: {owner or 'an unknown process'} may still write to it", flush=True)
    end = time.monotonic() + left + POLL  # surely stale then
    while time.monotonic() < end and _read(path) == found:
        time.sleep(POLL)


def _now(part: Path) -> float:
    """Returns the time by the clock of the file system on which `part` is."""
    os.utime(part)
    return part.stat().st_mtime


def _require_stale(path: Path, owner: Owner | None, age: float) -> None:
    """Raises RunInUse unless the owner of a lock that was touched `age` seconds ago has ended or writes elsewhere."""
    alive = None if owner is None else owner.may_write_to(path.parent)
    if owner is not None and alive:
        raise _in_use(path.parent, owner)
    if alive is None and age <= STALE_AFTER:
        age = max(age, 0)
        raise RunInUse(
            f"{path.parent} is in use by {owner or 'an unknown process'}, last active {age:.0f} s ago: wait until it "
            f"ends. If it was killed, start again in {STALE_AFTER - age + 1:.0f} s, or delete {path}"
        )


def _in_use(folder: Path, owner: Owner) -> RunInUse:
    return RunInUse(f"{folder} is in use by {owner}: wait until it ends, or choose another `output`")


def _read(path: Path) -> tuple[Owner | None, float] | None:
    """Returns the owner of a lock, None if the file is damaged, and when it was touched; None if there is no lock."""
    try:
        with path.open("rb") as file:
            touched = os.fstat(file.fileno()).st_mtime
            content = file.read()
    except FileNotFoundError:
        return None
    try:
        owner = Owner(**json.loads(content))
        valid = type(owner.process) is int and 0 < owner.process < 2**31 and str(owner.token).isalnum()
        valid = valid and isinstance(owner.folder, str) and isinstance(owner.inode, int)
        return (owner if valid else None), touched
    except (ValueError, TypeError, RecursionError):
        return None, touched


def _machine() -> str:
    """Returns what identifies the boot of this machine and the process namespace; empty if the system has neither."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip() + " " + os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
