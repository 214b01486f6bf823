"""Compiled programs kept on disk, so that the same command need not compile twice.

JAX keys them by the program, the compiler and the device, but not by all that a CPU can do; so each kind of processor
has a folder of its own.
"""

import hashlib
import platform
from pathlib import Path

import jax

WORTH_KEEPING = 0.5  # seconds of compilation
MOST_BYTES = 2 << 30  # of all programs kept; the longest unused go first


def keep_compiled(cache_dir: str | Path) -> Path | None:
    """Has JAX keep its compiled programs below `cache_dir`; returns the folder, or None where JAX was told another.

    To be called before anything is compiled. A folder that cannot be written to does no harm: JAX then compiles.
    """
    if jax.config.jax_compilation_cache_dir is not None:  # pyright: ignore[reportAttributeAccessIssue]
        return None
    folder = Path(cache_dir).expanduser() / "compiled" / hashlib.sha256(processor().encode()).hexdigest()[:12]
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", WORTH_KEEPING)
    jax.config.update("jax_compilation_cache_max_size", MOST_BYTES)
    return folder


def processor() -> str:
    """Returns what this machine's processor is and can do."""
    about = [platform.machine(), platform.processor()]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").split("\n\n")[0].splitlines()
        about += [line for line in lines if line.startswith(("model name", "flags", "Features"))]
    return "\n".join(about)
