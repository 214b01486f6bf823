"""RESULTS.md: one section per benchmark and kind of processor, rewritten by `--record`; and the options for it."""

import argparse
import os
import platform
import sys
from datetime import date
from importlib import metadata
from pathlib import Path

from bert_jax.config import PRESETS

RESULTS = Path(__file__).parents[1] / "RESULTS.md"
PACKAGES = ("jax", "numpy", "tokenizers", "torch", "transformers", "onnxruntime")


def make_parser(
    description: str | None, *, preset: str | None = None, rows: int | None = None, length: int | None = None
) -> argparse.ArgumentParser:
    """Returns a parser with `--record` and, where a default is given, `--preset`, `--rows` and `--length`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if preset is not None:
        parser.add_argument("--preset", choices=PRESETS, default=preset, help=f"size of the model (default: {preset})")
    if rows is not None:
        parser.add_argument("--rows", type=int, default=rows, help=f"rows per batch (default: {rows})")
    if length is not None:
        parser.add_argument("--length", type=int, default=length, help=f"tokens per row (default: {length})")
    parser.add_argument("--record", action="store_true", help="write the results to RESULTS.md")
    return parser


def record(heading: str, text: str) -> None:
    """Prints `text`; with `--record` on the command line, also writes it to the section `heading` of RESULTS.md.

    Each kind of processor has its own section, which states the versions, the date and the command. A section that
    exists is replaced where it stands; a new one is appended.
    """
    print(text, flush=True)
    if "--record" not in sys.argv:
        return
    arguments = [argument for argument in sys.argv[1:] if argument != "--record"]
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *arguments])
    heading = f"{heading} ({processor()})"
    existing = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else "# Results\n"
    introduction, *sections = existing.split("\n## ")
    by_heading = {section.partition("\n")[0]: f"## {section.strip()}\n" for section in sections}
    by_heading[heading] = f"## {heading}\n\n{machine()}\n\n    {command}\n\n{text.strip()}\n"
    RESULTS.write_text("\n".join([introduction.strip() + "\n", *by_heading.values()]), encoding="utf-8")


def machine() -> str:
    """Returns one line: processor, number of cores, versions of the installed packages, date."""
    versions = [f"Python {platform.python_version()}"]
    for name in PACKAGES:
        try:
            versions.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{processor()}{_vector_extension()}, {cores} cores; {', '.join(versions)}; {date.today().isoformat()}"


def processor() -> str:
    """Returns the processor's name."""
    names = _cpuinfo("model name")
    return names[0].replace("(R)", "") if names else platform.processor() or platform.machine()


def _vector_extension() -> str:
    """Returns whether the processor has AVX-512, or nothing where the system does not list its features."""
    flags = _cpuinfo("flags")
    if not flags:
        return ""
    return " (AVX-512)" if "avx512f" in flags[0].split() else " (no AVX-512)"


def _cpuinfo(field: str) -> list[str]:
    """Returns a field of /proc/cpuinfo, one value per core; empty on other systems than Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    pairs = [line.partition(":") for line in lines]
    return [value.strip() for name, _, value in pairs if name.strip() == field]
