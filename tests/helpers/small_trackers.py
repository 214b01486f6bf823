"""A tracker that keeps what it is sent, in place of an installed one."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from bert_jax.training.runs import tracking


class Recorder:
    """A run of a tracker; `runs` holds all of them."""

    runs: ClassVar[list["Recorder"]] = []

    def __init__(self, project, folder: Path, config, run_id: str | None) -> None:
        self.project = project
        self.folder = folder
        self.config = config
        self.run_id = run_id or f"run {len(self.runs)}"
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.pictures: list[str] = []
        self.failed: bool | None = None
        self.runs.append(self)

    def log(self, metrics, step: int) -> None:
        self.rows.append((step, dict(metrics)))

    def picture(self, path: Path, step: int) -> None:
        assert path.read_bytes().startswith(b"\x89PNG")
        self.pictures.append(path.name)

    def finish(self, *, failed: bool) -> None:
        self.failed = failed


@contextmanager
def recorded_tracker(kind: type = Recorder) -> Iterator[None]:
    """Makes `--track trackio` use `kind`, as if the tracker were installed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tracking.BACKENDS, "trackio", kind)
        patch.setattr(tracking, "find_spec", lambda name: name)
        yield
