"""A run that is followed in an experiment tracker, besides metrics.jsonl, which stays the record of the run.

A tracker never stops or slows down the training: once it has begun its run, it is called in a thread, and after its
first error, which is one line of warning, no more. Passwords in URLs are not sent. RUN/tracker.json names the tracker's
run, so that a resumed run continues it. Rows that were sent before, as metrics.jsonl says, are not sent again.
"""

import io
import json
import queue
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax.files import write_file
from bert_jax.messages import first_line
from bert_jax.training.devices.processes import is_first
from bert_jax.training.runs.contents import TRACKER
from bert_jax.training.runs.metrics import METRICS, Row, known_rows, tags
from bert_jax.training.runs.trackers import BACKENDS, Backend, Config
from bert_jax.training.settings import map_texts, without_secrets

PROJECT = "bert_jax"  # the default
FINISH_SECONDS = 60.0  # how long the end of a run waits for a tracker


def parse_track(track: str) -> tuple[str, str]:
    """Returns tracker and project of the setting `track`.

    >>> parse_track("wandb:reviews"), parse_track("mlflow")
    (('wandb', 'reviews'), ('mlflow', 'bert_jax'))

    Raises:
        ValueError: no such tracker, or an empty project.
    """
    name, colon, project = track.partition(":")
    if name not in BACKENDS or (colon and not project.strip()):
        raise ValueError(f"`track` must be {', '.join(BACKENDS)}, or one of them and :PROJECT, got {track!r:.60}")
    return name, project.strip() or PROJECT


def check_track(track: str | None) -> None:
    """Raises ValueError for an impossible setting, and ImportError if the tracker is not installed."""
    if track is not None:
        name, _ = parse_track(track)
        if find_spec(name) is None:
            raise ImportError(f"`track={track}` needs the package {name}: pip install 'bert_jax[{name}]'")


@contextmanager
def open_tracker(track: str | None, folder: Path, config: Config) -> Iterator["Tracker | None"]:
    """Yields the tracker of the run in `folder`; None without `track`, and in all processes but the first."""
    if track is None or not is_first():
        yield None
        return
    tracker = Tracker(track, folder, config)
    try:
        yield tracker
    except BaseException:
        tracker.finish(failed=True)
        raise
    tracker.finish(failed=False)


class Tracker:
    """Sends the rows and pictures of a run to a tracker, in a thread.

    Args:
        track: see `parse_track`.
        config: the settings of the run.

    Attributes:
        log: prints a line; a `Reporter` puts in its own.
    """

    def __init__(self, track: str, folder: Path, config: Config) -> None:
        self.name, self.project = parse_track(track)
        self.folder = folder
        self.log: Callable[[str], None] = lambda line: print(line, flush=True)
        self.error: str | None = None
        self.warned = False
        self.last_step = 0
        self.sent: set[tuple[int, bool]] = set()
        self.jobs: queue.SimpleQueue[Callable[[Backend], None] | None] = queue.SimpleQueue()
        self.backend: Backend | None = None
        run_id = self._recorded_id()
        rows = known_rows(folder / METRICS)
        try:
            with redirect_stdout(io.StringIO()):  # one tracker prints a page
                backend = BACKENDS[self.name](self.project, folder, map_texts(without_secrets, config), run_id)
            record = {"tracker": self.name, "project": self.project, "run": backend.run_id}
            write_file(folder / TRACKER, json.dumps(record) + "\n")
        except (Exception, SystemExit) as error:
            self._fail(error)
            return
        self.backend = backend
        self.log(f"tracking: {self.name}, project {self.project}, run {backend.run_id}")
        self.thread = threading.Thread(target=self._work, args=(backend,), daemon=True)
        self.thread.start()
        if run_id is not None:
            self.sent = {_key(row) for row in rows}
        else:
            self.write(*rows)  # a run that was not tracked from its beginning

    def write(self, *rows: Mapping[str, Any]) -> None:
        """Sends rows of metrics.jsonl."""
        by_step: dict[int, Row] = {}
        for row in rows:
            if _key(row) not in self.sent:
                by_step.setdefault(row["step"], {}).update(tags(row))
        for step, metrics in by_step.items():
            self.last_step = step
            finite = {name: value for name, value in metrics.items() if value is not None and np.isfinite(value)}
            self._submit(lambda backend, finite=finite, step=step: backend.log(finite, step))

    def cut(self, after_step: int) -> None:
        """Sends later rows although such rows were sent before: they are other rows."""
        self.sent = {key for key in self.sent if key[0] <= after_step}

    def sync(self) -> None:
        """Does nothing: metrics.jsonl holds the same rows, and is synced."""

    def pictures(self, paths: Sequence[Path]) -> None:
        """Sends those of the pictures that exist."""
        for path in paths:
            if path.is_file():
                self._submit(lambda backend, path=path: backend.picture(path, self.last_step))

    def final(self, metrics: Mapping[str, float]) -> None:
        """Sends the metrics of the final model."""
        named = {f"final/{name}": value for name, value in metrics.items() if np.isfinite(value)}
        self._submit(lambda backend: backend.log(named, self.last_step))

    def close(self) -> None:
        """Does nothing: the metrics of the final model follow the training."""

    def finish(self, *, failed: bool) -> None:
        """Ends the tracker's run, and waits for it, but not for ever."""
        if self.backend is None:
            return
        self._submit(lambda backend: backend.finish(failed=failed))
        self.jobs.put(None)
        self.thread.join(FINISH_SECONDS)
        if self.thread.is_alive():
            self.error = self.error or f"no answer within {FINISH_SECONDS:g} seconds"
        self._warn()

    def _submit(self, job: Callable[[Backend], None]) -> None:
        self._warn()
        if self.error is None and self.backend is not None:
            self.jobs.put(job)

    def _work(self, backend: Backend) -> None:
        """Does the jobs, until there is an error."""
        while (job := self.jobs.get()) is not None:
            try:
                job(backend)
            except (Exception, SystemExit) as error:
                self.error = _describe(error)
                return

    def _fail(self, error: BaseException) -> None:
        self.error = _describe(error)
        self._warn()

    def _warn(self) -> None:
        """Prints the error, once."""
        if self.error is not None and not self.warned:
            self.warned = True
            self.log(f"warning: {self.name} failed, the run goes on without it ({self.error}); {METRICS} has all rows")

    def _recorded_id(self) -> str | None:
        """Returns the id of the tracker's run that an earlier process began, or None."""
        try:
            record = json.loads((self.folder / TRACKER).read_text(encoding="utf-8"))
            same = (record["tracker"], record["project"]) == (self.name, self.project)
            return str(record["run"]) if same else None
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _describe(error: BaseException) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


def _key(row: Mapping[str, Any]) -> tuple[int, bool]:
    """Returns what identifies a row: its step, and whether it is an evaluation."""
    return row["step"], any(name.startswith("eval_") for name in row)
