"""Train a tiny model for an hour and kill it every minute: check that nothing is lost and nothing accumulates.

`train.py --resume --begin` is started, killed with SIGKILL after `--interval` seconds and started again, as a
supervisor would. The time from a start to its kill is called a segment. The report states restarts, steps repeated
because of them, the process's memory and open files over time, and the contents of the run's folder. The exit code
is 1 if metrics.jsonl has gaps or duplicates, if a checkpoint was not resumed from, or if memory or open files grow
beyond the limits below.

    python benchmarks/soak.py --minutes 60 --interval 60
"""

import itertools
import json
import math
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from common.processes import MEBI
from common.results import make_parser, record

TRAIN = Path(__file__).parents[1] / "train.py"
STEPS = 100_000_000  # more than any soak reaches
LOG_EVERY = 10  # steps between rows of metrics.jsonl
MIN_SAMPLES = 15  # of a segment, to tell whether it grows
MEMORY_GROWTH = 0.05  # limit: the last third of a segment against its middle third
FILES_GROWTH = 0.10
PEAK_GROWTH = 0.10  # limit: the peak of the last segment against that of the first
MODEL = [
    "--preset", "tiny", "--num-hidden-layers", "1", "--hidden-size", "64", "--num-attention-heads", "2",
    "--intermediate-size", "128", "--max-length", "32", "--batch-size", "16", "--vocab-size", "500",
    "--steps", str(STEPS), "--decay-steps", str(STEPS), "--warmup-steps", "100", "--learning-rate", "1e-4",
    "--log-every", str(LOG_EVERY), "--eval-every", "500", "--eval-rows", "64", "--checkpoint-every", "100", "--quiet",
]  # fmt: skip


@dataclass
class Segment:
    """One process of the run, from its start to its kill.

    Attributes:
        first_step: step from which it says that it resumes; 0 if it says nothing of the kind.
        checkpoint: step of the newest checkpoint at its start; 0 if there was none.
        last_step: step of the last row that it logged.
        memory: resident bytes while it trains, one sample per second.
        files: number of open file descriptors, one sample per second.
    """

    first_step: int = 0
    checkpoint: int = 0
    last_step: int = 0
    memory: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def sample(self, process: int) -> None:
        """Appends a sample of a process."""
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        self.memory.append(pages * os.sysconf("SC_PAGE_SIZE"))
        self.files.append(len(os.listdir(f"/proc/{process}/fd")))


def write_corpus(path: Path) -> None:
    random = np.random.default_rng(0)
    words = [f"word{number}" for number in range(400)]

    def sentence() -> str:
        return " ".join(random.choice(words, random.integers(4, 12))).capitalize() + "."

    path.write_text("\n\n".join("\n".join(sentence() for _ in range(8)) for _ in range(500)))


def logged_steps(run: Path) -> list[int]:
    """Returns the steps of the training rows of metrics.jsonl, in the order of the file."""
    path = run / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [row["step"] for row in map(json.loads, lines) if "loss" in row]


def metrics_inode(run: Path) -> int | None:
    """Returns what identifies the present metrics.jsonl; a resumed run replaces the file."""
    path = run / "metrics.jsonl"
    return path.stat().st_ino if path.exists() else None


def newest_checkpoint(run: Path) -> int:
    return max((int(path.name) for path in (run / "checkpoints").glob("*") if path.name.isdigit()), default=0)


def resumed_step(log: Path) -> int:
    """Returns the step from which a run says that it resumes, or 0."""
    found = re.search(r"^resuming from step ([\d,]+) of ", log.read_text(), re.MULTILINE)
    return int(found[1].replace(",", "")) if found else 0


def run_segment(command: list[str], run: Path, seconds: float) -> Segment:
    """Starts the run, samples it every second, and kills it."""
    segment = Segment(checkpoint=newest_checkpoint(run))
    old_metrics = metrics_inode(run)
    log = run.with_suffix(".log")
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output)
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end or not segment.memory:  # imports and compilation may be slow on a busy machine
            time.sleep(1.0)
            if process.poll() is not None:
                raise SystemExit(f"the run ended by itself: {process.returncode}")
            # A resumed run truncates the file to its checkpoint; before that, the rows are those of the last segment.
            if metrics_inode(run) != old_metrics:
                segment.first_step = resumed_step(log)
                if max(logged_steps(run), default=0) > segment.first_step:
                    segment.sample(process.pid)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    segment.last_step = max(logged_steps(run), default=0)
    return segment


def growth(
    segments: list[Segment], samples: Callable[[Segment], list[int]], reduce: Callable[[list[int]], float]
) -> float:
    """Returns the relative growth within a segment: its last third of samples against its middle third.

    Each third is reduced to one number. The result is the median over the segments that are long enough, or NaN.
    """
    ratios = []
    for values in map(samples, segments):
        third = len(values) // 3
        if len(values) >= MIN_SAMPLES:
            ratios.append(reduce(values[-third:]) / reduce(values[third:-third]) - 1)
    return statistics.median(ratios) if ratios else math.nan


@dataclass(frozen=True)
class SoakResult:
    """The result of a soak test.

    Attributes:
        steps: steps of metrics.jsonl, in the order of the file.
        restarts_at_zero: number of segments that began at step 0 beside a checkpoint.
        memory_growth: relative growth within a segment; NaN if no segment was long enough.
        files_growth: the same, of open files.
        first_peak: largest memory of the first segment, in bytes.
        last_peak: largest memory of the last segment, in bytes.
    """

    steps: list[int]
    restarts_at_zero: int
    memory_growth: float
    files_growth: float
    first_peak: int
    last_peak: int

    @classmethod
    def of(cls, steps: list[int], segments: list[Segment]) -> "SoakResult":
        memory_growth = growth(segments, lambda segment: segment.memory, statistics.median)
        # While a checkpoint is saved, its files are open too; the minimum ignores them.
        files_growth = growth(segments, lambda segment: segment.files, min)
        at_zero = sum(segment.first_step == 0 < segment.checkpoint for segment in segments)
        return cls(steps, at_zero, memory_growth, files_growth, max(segments[0].memory), max(segments[-1].memory))

    @property
    def complete(self) -> bool:
        """Whether metrics.jsonl has every logged step exactly once, in order."""
        return self.steps == list(range(LOG_EVERY, self.steps[-1] + 1, LOG_EVERY))

    def failures(self) -> list[str]:
        """Returns what failed, a few words each."""
        peak_growth = self.last_peak / self.first_peak - 1
        checks = {
            "metrics.jsonl has gaps or duplicates": not self.complete,
            f"{self.restarts_at_zero} segments began at step 0 beside a checkpoint": self.restarts_at_zero > 0,
            f"memory grows by {self.memory_growth:.1%} within a segment": self.memory_growth > MEMORY_GROWTH,
            f"open files grow by {self.files_growth:.1%} within a segment": self.files_growth > FILES_GROWTH,
            f"memory grew by {peak_growth:.1%} from the first segment to the last": peak_growth > PEAK_GROWTH,
        }
        return [failure for failure, failed in checks.items() if failed]


def soak(folder: Path, minutes: float, interval: float) -> list[str]:
    """Runs one segment after another, records the report, and returns the failures."""
    folder.mkdir(exist_ok=True)
    run = folder / "run"
    segments = []
    write_corpus(folder / "corpus.txt")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / "compiled")  # removed together with the run
    corpus = ["--corpus", str(folder / "corpus.txt"), "--cache-dir", str(folder / "cache")]
    command = [sys.executable, str(TRAIN), *MODEL, *corpus, "--output", str(run), "--resume", "--begin"]
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        segment = run_segment(command, run, interval)
        segments.append(segment)
        print(
            f"{len(segments):>3}: steps {segment.first_step:,} to {segment.last_step:,}, "
            f"{segment.last_step - newest_checkpoint(run):,} to repeat; "
            f"memory {segment.memory[-1] / MEBI:,.0f} MiB, {segment.files[-1]} open files",
            flush=True,
        )
    result = SoakResult.of(logged_steps(run), segments)
    record("Soak test", report(run, segments, result))
    return result.failures()


def report(run: Path, segments: list[Segment], result: SoakResult) -> str:
    """Returns the table of a soak test and its conclusion."""
    repeated = [before.last_step - after.first_step for before, after in itertools.pairwise(segments)]
    checkpoints = sum(path.name.isdigit() for path in (run / "checkpoints").iterdir())
    damaged = len(list((run / "damaged").glob("*")))
    complete = "no gaps, no duplicates" if result.complete else "GAPS OR DUPLICATES"
    lines = [
        "| | |",
        "|---|---|",
        f"| restarts | {len(segments) - 1}, to step {result.steps[-1]:,} |",
        f"| repeated steps | {sum(repeated):,}, at most {max(repeated, default=0):,} after one kill |",
        f"| peak memory | {result.first_peak / MEBI:,.0f} MiB in the first segment, "
        f"{result.last_peak / MEBI:,.0f} in the last |",
        f"| memory growth within a segment | {format_growth(result.memory_growth)} |",
        f"| open files, at most | {max(max(segment.files) for segment in segments)} |",
        f"| open files, growth within a segment | {format_growth(result.files_growth)} |",
        f"| checkpoints | {checkpoints}; damaged: {damaged} |",
        f"| metrics.jsonl | {complete}, {len(result.steps):,} rows |",
        "",
        "; ".join(result.failures()) or "Passed: nothing is lost, and nothing accumulates.",
    ]
    return "\n".join(lines)


def format_growth(growth: float) -> str:
    return "segments too short" if math.isnan(growth) else f"{growth:+.1%}"


def main() -> None:
    parser = make_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=60.0, help="length of the test (default: 60)")
    parser.add_argument("--interval", type=float, default=60.0, help="seconds between kills (default: 60)")
    parser.add_argument("--keep", type=Path, help="keep the run in this folder; default: a temporary one")
    options = parser.parse_args()
    folder = options.keep or Path(tempfile.mkdtemp(prefix="soak-"))
    try:
        failures = soak(folder, options.minutes, options.interval)
    finally:
        if not options.keep:
            shutil.rmtree(folder)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
