"""Disks of a few hundred kilobytes, which only the process that mounts them sees."""

import ctypes
import os
from pathlib import Path

import pytest

REMOUNT = 32
NO_DISK = 77  # exit code of a process that could not mount one


def mount_disk(disk: Path, options: str, flags: int = 0) -> bool:
    """Mounts a tmpfs in this process; returns whether that is possible here.

    Args:
        options: of the tmpfs, such as size=600k or ro.
        flags: REMOUNT changes the options of a disk that is mounted.
    """
    user, group, libc = os.getuid(), os.getgid(), ctypes.CDLL(None)
    if not flags:
        if libc.unshare(0x10000000 | 0x00020000):  # new user, new mounts
            return False
        for name, line in (("uid_map", f"0 {user} 1"), ("setgroups", "deny"), ("gid_map", f"0 {group} 1")):
            Path("/proc/self", name).write_text(line)
    flags |= options == "ro"
    return not libc.mount(b"tmpfs", bytes(disk), b"tmpfs", flags, options.removeprefix("ro").encode())


def no_disk() -> None:
    """Skips the test; fails it where a disk is known to be possible."""
    give_up = pytest.fail if os.environ.get("BERT_JAX_REQUIRE_NAMESPACES") == "1" else pytest.skip
    give_up("processes cannot mount a disk on this system")
