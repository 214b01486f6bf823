"""Keeps compiled programs on disk, so that the same command does not compile twice.

They are machine code, which JAX loads and runs. So they are not stored in `cache_dir`, whose files are data and may be
shared, but in a folder that only this user can write to. JAX's keys contain the program, the compiler and the device,
but not all features of a CPU; so each kind of processor gets a separate folder.
"""

import hashlib
import os
import platform
import stat
from pathlib import Path

import jax

MIN_SECONDS = 0.5  # of compilation; programs that compile faster are not kept
MAX_BYTES = 2 << 30  # of all programs; JAX deletes the least recently used


def keep_compiled(home: str | Path) -> Path | None:
    """Makes JAX keep compiled programs in a subfolder of `home`; must be called before anything is compiled.

    If JAX's own setting (`JAX_COMPILATION_CACHE_DIR`) names a folder, nothing changes. If `home` cannot be made, or
    others can write to it, a line says so and programs are compiled each time.

    Returns:
        The subfolder, or None if it is not used.
    """
    if jax.config.jax_compilation_cache_dir is not None:  # pyright: ignore[reportAttributeAccessIssue]
        return None
    home = Path(home)
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        _require_private(home)
    except OSError as error:
        print(f"compiled programs are not kept: {error}")
        return None
    folder = home / hashlib.sha256(_processor().encode()).hexdigest()[:12]
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", MIN_SECONDS)
    jax.config.update("jax_compilation_cache_max_size", MAX_BYTES)
    return folder


def _require_private(folder: Path) -> None:
    """Raises PermissionError unless a path is a folder, not a link, that only this user can write to."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"{folder} must be a folder that you own and nobody else can write to")


def _processor() -> str:
    """Returns the name and the features of this machine's processor."""
    about = [platform.machine(), platform.processor()]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
        about += [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return "\n".join(about)
