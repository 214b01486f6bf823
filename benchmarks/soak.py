"""Trains a tiny model for an hour and kills it every minute: what is lost, and what piles up?

`train.py` is started, killed with SIGKILL after `--interval` seconds and started again with `--resume`, as a supervisor
would. Told are restarts, the steps done twice because of them, the process' memory and open files over time, and what
is left in the run's folder. It ends with 1 where metrics.jsonl has a gap or a step twice, and where memory or open
files grow beyond the bounds below.

    python benchmarks/soak.py --minutes 60 --interval 60
"""

import argparse
import itertools
import json
import math
import os
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
from common.timing import record

TRAIN = Path(__file__).parents[1] / "train.py"
STEPS = 100_000_000  # it is killed long before
LOGGED = 10  # steps between rows of metrics.jsonl
ENOUGH = 15  # samples of a life that say whether it grows
MEMORY_IN_A_LIFE = 0.05  # its last third above its middle third, at most
FILES_IN_A_LIFE = 0.10
MEMORY_OVER_LIVES = 0.10  # the last life's peak above the first's, at most
MODEL = [
    "--preset", "tiny", "--num-hidden-layers", "1", "--hidden-size", "64", "--num-attention-heads", "2",
    "--intermediate-size", "128", "--max-length", "32", "--batch-size", "16", "--vocab-size", "500",
    "--steps", str(STEPS), "--decay-steps", str(STEPS), "--warmup-steps", "100", "--learning-rate", "1e-4",
    "--log-every", str(LOGGED), "--eval-every", "500", "--eval-rows", "64", "--checkpoint-every", "100", "--quiet",
]  # fmt: skip


@dataclass
class Life:
    """One process, from its start to its kill."""

    began: int  # step it went on from
    reached: int = 0  # step of the last row
    memory: list[int] = field(default_factory=list)  # resident bytes while it trains, a sample a second
    files: list[int] = field(default_factory=list)  # open file descriptors


def write_corpus(path: Path) -> None:
    random = np.random.default_rng(0)
    words = [f"word{number}" for number in range(400)]
    sentence = lambda: " ".join(random.choice(words, random.integers(4, 12))).capitalize() + "."  # noqa: E731
    path.write_text("\n\n".join("\n".join(sentence() for _ in range(8)) for _ in range(500)))


def sample(life: Life, process: int) -> None:
    """Adds what the system knows of a process."""
    pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
    life.memory.append(pages * os.sysconf("SC_PAGE_SIZE"))
    life.files.append(len(os.listdir(f"/proc/{process}/fd")))


def steps_of(run: Path) -> list[int]:
    path = run / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n")[:-1] if path.exists() else []
    return [row["step"] for row in map(json.loads, lines) if "loss" in row]


def which(run: Path) -> int | None:
    """Returns what tells one metrics.jsonl of a run from the next, which takes its place."""
    path = run / "metrics.jsonl"
    return path.stat().st_ino if path.exists() else None


def saved(run: Path) -> int:
    return max((int(path.name) for path in (run / "checkpoints").glob("*") if path.name.isdigit()), default=0)


def live(command: list[str], run: Path, seconds: float) -> Life:
    """Starts the run, watches it, and kills it."""
    life, before = Life(saved(run)), which(run)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end or not life.memory:  # on a busy machine it may take long to import and compile
            time.sleep(1.0)
            if process.poll() is not None:
                raise SystemExit(f"the run ended by itself: {process.returncode}")
            # It first cuts the file back to its checkpoint; until then there are steps of the life before.
            if which(run) != before and max(steps_of(run), default=0) > life.began:
                sample(life, process.pid)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    life.reached = max(steps_of(run), default=0)
    return life


def growth(lives: list[Life], samples: Callable[[Life], list[int]], of: Callable[[list[int]], float]) -> float:
    """Returns how much `of` the last third of a life's samples lies above that of the middle third, as a share.

    It is the median of the lives that were watched for long enough, or NaN.
    """
    shares = []
    for values in map(samples, lives):
        third = len(values) // 3
        if len(values) >= ENOUGH:
            shares.append(of(values[-third:]) / of(values[third:-third]) - 1)
    return statistics.median(shares) if shares else math.nan


@dataclass(frozen=True)
class Verdict:
    """What came of it.

    Attributes:
        steps: those of metrics.jsonl, in its order.
        memory, files: how they grow within a life, as shares; NaN where no life was long enough to tell.
        peaks: the most memory of the first life and of the last, in bytes.
    """

    steps: list[int]
    memory: float
    files: float
    peaks: tuple[int, int]

    @classmethod
    def of(cls, steps: list[int], lives: list[Life]) -> "Verdict":
        # A save that is under way has files open: the least of some samples is what stays open.
        memory = growth(lives, lambda life: life.memory, statistics.median)
        files = growth(lives, lambda life: life.files, min)
        return cls(steps, memory, files, (max(lives[0].memory), max(lives[-1].memory)))

    @property
    def whole(self) -> bool:
        return self.steps == list(range(LOGGED, self.steps[-1] + 1, LOGGED))

    def faults(self) -> list[str]:
        """Returns what must not be, a few words each."""
        first, last = self.peaks
        risen = last / first - 1
        found = {
            "metrics.jsonl has gaps or duplicates": not self.whole,
            f"memory grows by {self.memory:.1%} within a life": self.memory > MEMORY_IN_A_LIFE,
            f"open files grow by {self.files:.1%} within a life": self.files > FILES_IN_A_LIFE,
            f"memory grew by {risen:.1%} from the first life to the last": risen > MEMORY_OVER_LIVES,
        }
        return [fault for fault, there in found.items() if there]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--interval", type=float, default=60.0, help="seconds between kills")
    parser.add_argument("--keep", type=Path, help="a folder for the run; default: one that is removed at the end")
    parser.add_argument("--record", action="store_true", help="keep the results in RESULTS.md")
    arguments = parser.parse_args()
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="soak-"))
    try:
        faults = soak(folder, arguments.minutes, arguments.interval)
    finally:
        if not arguments.keep:
            shutil.rmtree(folder)
    sys.exit(1 if faults else 0)


def soak(folder: Path, minutes: float, interval: float) -> list[str]:
    """Lives one life after another, tells of them, and returns what must not be."""
    folder.mkdir(exist_ok=True)
    run, lives = folder / "run", []
    write_corpus(folder / "corpus.txt")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / "compiled")  # it goes with the run
    texts = ["--corpus", str(folder / "corpus.txt"), "--cache-dir", str(folder / "cache")]
    command = [sys.executable, str(TRAIN), *MODEL, *texts, "--output", str(run), "--resume"]
    end = time.monotonic() + 60 * minutes
    while time.monotonic() < end:
        life = live(command, run, interval)
        lives.append(life)
        print(
            f"{len(lives):>3}: steps {life.began:,} to {life.reached:,}, {life.reached - saved(run):,} to do again; "
            f"memory {life.memory[-1] / 2**20:,.0f} MiB, {life.files[-1]} open files",
            flush=True,
        )
    verdict = Verdict.of(steps_of(run), lives)
    record("A soak", report(run, lives, verdict))
    return verdict.faults()


def report(run: Path, lives: list[Life], verdict: Verdict) -> str:
    """Returns the table of a soak, and the verdict under it."""
    again = [before.reached - after.began for before, after in itertools.pairwise(lives)]
    first, last = (f"{peak / 2**20:,.0f}" for peak in verdict.peaks)
    kept = sum(path.name.isdigit() for path in (run / "checkpoints").iterdir())
    whole = "gapless, no duplicates" if verdict.whole else "NOT gapless"
    lines = [
        "| | |",
        "|---|---|",
        f"| restarts | {len(lives) - 1}, to step {verdict.steps[-1]:,} |",
        f"| steps done again | {sum(again):,}, {max(again, default=0):,} at most after one kill |",
        f"| memory, at most | {first} MiB in the first life, {last} in the last |",
        f"| memory, growth within a life | {told(verdict.memory)} |",
        f"| open files, at most | {max(max(life.files) for life in lives)} |",
        f"| open files, growth within a life | {told(verdict.files)} |",
        f"| checkpoints | {kept}; damaged: {len(list((run / 'damaged').glob('*')))} |",
        f"| metrics.jsonl | {whole}, {len(verdict.steps):,} rows |",
        "",
        "; ".join(verdict.faults()) or "Nothing is lost, and nothing piles up.",
    ]
    return "\n".join(lines)


def told(share: float) -> str:
    return "lives too short to tell" if math.isnan(share) else f"{share:+.1%}"


if __name__ == "__main__":
    main()
