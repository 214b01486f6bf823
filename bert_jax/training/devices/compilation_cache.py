"""Compiled programs kept on disk, so that the same command need not compile twice.

They are machine code, which JAX loads and runs. So they are no part of `--cache-dir`, whose files are data and may be
shared; they lie in a folder that this user alone can write to, or are not kept. JAX keys them by the program, the
compiler and the device, but not by all that a CPU can do; so each kind of processor has a folder of its own.
"""

import hashlib
import os
import platform
import stat
from pathlib import Path

import jax

from bert_jax.training.settings import CACHE_DIR

COMPILED = Path(CACHE_DIR) / "compiled"
WORTH_KEEPING = 0.5  # seconds of compilation
MOST_BYTES = 2 << 30  # of all programs kept; the longest unused go first


def keep_compiled(home: Path = COMPILED) -> Path | None:
    """Has JAX keep its compiled programs below `home`; returns the folder, or None where they go elsewhere or nowhere.

    To be called before anything is compiled. A folder of JAX's own setting (`JAX_COMPILATION_CACHE_DIR`) comes first. A
    folder that cannot be made, or that others can write to, does no harm: one line says so, and JAX compiles.
    """
    if jax.config.jax_compilation_cache_dir is not None:  # pyright: ignore[reportAttributeAccessIssue]
        return None
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        require_private(home)
    except OSError as error:
        print(f"compiled programs are not kept: {error}")
        return None
    folder = home / hashlib.sha256(processor().encode()).hexdigest()[:12]
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", WORTH_KEEPING)
    jax.config.update("jax_compilation_cache_max_size", MOST_BYTES)
    return folder


def require_private(folder: Path) -> None:
    """Raises PermissionError unless a folder, itself and no link, is this user's and nobody else may write to it."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(f"{folder} must be a folder that you own and nobody else can write to")


def processor() -> str:
    """Returns what this machine's processor is and can do."""
    about = [platform.machine(), platform.processor()]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
        about += [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return "\n".join(about)
