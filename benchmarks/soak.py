"""Trains a tiny model for an hour and kills it every minute: what is lost, and what piles up?

`train.py` is started, killed with SIGKILL after `--interval` seconds and started again with `--resume`, as a supervisor
would. Reported are restarts, the steps done twice because of them, the process' memory and open files over time, and
what is left in the run's folder. At the end metrics.jsonl must be gapless and without duplicates.

    python benchmarks/soak.py --minutes 60 --interval 60
"""

import argparse
import itertools
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

TRAIN = Path(__file__).parents[1] / "train.py"
STEPS = 100_000_000  # it is killed long before
MODEL = [
    "--preset", "tiny", "--num-hidden-layers", "1", "--hidden-size", "64", "--num-attention-heads", "2",
    "--intermediate-size", "128", "--max-length", "32", "--batch-size", "16", "--vocab-size", "500",
    "--steps", str(STEPS), "--decay-steps", str(STEPS), "--warmup-steps", "100", "--learning-rate", "1e-4",
    "--log-every", "10", "--eval-every", "500", "--eval-rows", "64", "--checkpoint-every", "100", "--quiet",
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


def saved(run: Path) -> int:
    return max((int(path.name) for path in (run / "checkpoints").glob("*") if path.name.isdigit()), default=0)


def live(command: list[str], run: Path, seconds: float) -> Life:
    """Starts the run, watches it, and kills it."""
    life = Life(saved(run))
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    end = time.monotonic() + seconds
    try:
        while time.monotonic() < end or not life.memory:  # on a busy machine it may take long to import and compile
            time.sleep(1.0)
            if process.poll() is not None:
                raise SystemExit(f"the run ended by itself: {process.returncode}")
            if max(steps_of(run), default=0) > life.began:
                sample(life, process.pid)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    life.reached = max(steps_of(run), default=0)
    return life


def growth(values: list[int]) -> float:
    """Returns how much the last third of a life's samples lies above the middle third, as a share."""
    third = len(values) // 3
    return statistics.median(values[-third:]) / statistics.median(values[third:-third]) - 1 if third else 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--interval", type=float, default=60.0, help="seconds between kills")
    parser.add_argument("--keep", type=Path, help="a folder for the run; default: one that is removed at the end")
    arguments = parser.parse_args()
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="soak-"))
    folder.mkdir(exist_ok=True)
    run, lives = folder / "run", []
    write_corpus(folder / "corpus.txt")
    texts = ["--corpus", str(folder / "corpus.txt"), "--cache-dir", str(folder / "cache")]
    command = [sys.executable, str(TRAIN), *MODEL, *texts, "--output", str(run), "--resume"]
    end = time.monotonic() + 60 * arguments.minutes
    while time.monotonic() < end:
        lives.append(live(command, run, arguments.interval))
        life = lives[-1]
        print(
            f"{len(lives):>3}: steps {life.began:,} to {life.reached:,}, {life.reached - saved(run):,} to do again; "
            f"memory {life.memory[-1] / 2**20:,.0f} MiB, {life.files[-1]} open files",
            flush=True,
        )
    report(run, lives)
    if not arguments.keep:
        shutil.rmtree(folder)


def report(run: Path, lives: list[Life]) -> None:
    """Prints what came of it; exits with 1 where a step is missing or there twice."""
    steps = steps_of(run)
    again = [before.reached - after.began for before, after in itertools.pairwise(lives)]
    peaks = [max(life.memory) for life in lives]
    print(f"restarts        {len(lives) - 1}, to step {steps[-1]:,}")
    print(f"done again      {sum(again):,} steps, {max(again, default=0):,} at most after one kill")
    print(
        f"memory          {peaks[0] / 2**20:,.0f} MiB at most in the first life, {peaks[-1] / 2**20:,.0f} in the last; "
    )
    print(f"                within a life it grows by {statistics.median(growth(life.memory) for life in lives):+.1%}")
    files = statistics.median(growth(life.files) for life in lives)
    print(f"open files      {max(max(life.files) for life in lives)} at most, growth within a life {files:+.1%}")
    left = sorted(path.name for path in (run / "checkpoints").iterdir())
    print(f"checkpoints     {', '.join(left)}; damaged: {len(list((run / 'damaged').glob('*')))}")
    whole = steps == list(range(10, steps[-1] + 1, 10))
    print(f"metrics.jsonl   {'gapless, no duplicates' if whole else 'NOT gapless'}, {len(steps):,} rows")
    sys.exit(not whole)


if __name__ == "__main__":
    main()
