"""What --plan says of memory: a run fits if its training steps and its evaluations do."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bert_jax.training.devices.cost import largest_batch
from bert_jax.training.devices.plan import Programs, RunSpec, memory_lines

ROWS, PARTS = 24, 4


class Compiled:
    """A program that needs so many bytes per row of its batch."""

    def __init__(self, bytes_per_row: int, rows: int = 0) -> None:
        self.bytes_per_row = bytes_per_row
        self.rows = rows

    def lower(self, _, batch) -> "Compiled":
        return Compiled(self.bytes_per_row, len(batch["input_ids"]))

    def compile(self) -> "Compiled":
        return self

    def as_text(self) -> str:
        return ""

    def memory_analysis(self) -> Any:
        names = ("argument_size_in_bytes", "output_size_in_bytes", "alias_size_in_bytes")
        return SimpleNamespace(temp_size_in_bytes=self.bytes_per_row * self.rows, **dict.fromkeys(names, 0))


@pytest.mark.parametrize(
    ("training", "evaluation", "limit", "fits"),
    [(5, 7, 120, True), (5, 7, 119, False), (1, 21, 126, True), (1, 21, 125, False)],
)
def test_a_run_fits_if_training_and_evaluation_do(training, evaluation, limit, fits):
    """An evaluation has as many rows at once as a micro-batch: 24 / 4."""
    layout: Any = SimpleNamespace(
        compile_step=lambda *_: Compiled(training),
        compile_evaluation=lambda *_: Compiled(evaluation),
        shapes=lambda batch: batch,
        shardings=lambda tree: tree,
    )
    nothing: Any = SimpleNamespace(all_params={}, params={}, optimizer_state={})
    unused: Any = None

    def blank(rows):
        return {"input_ids": np.zeros((rows, 3), np.int32)}

    run = RunSpec(
        name="plan",
        model=unused,
        step=lambda model: unused,
        evaluation=unused,
        state=nothing,
        batch=blank,
        evaluated=blank,
        rows=ROWS,
        examples=ROWS,
        accumulate=PARTS,
        unit=PARTS,
        steps=1,
    )
    lines = list(memory_lines(Programs(run, layout), limit, largest_batch))
    assert f": {training * ROWS} B of {limit} B" in lines[0]
    assert lines[1].split()[:3] == ["evaluation", str(evaluation * ROWS // PARTS), "B"]
    assert lines[-1].endswith(f"{ROWS} {'fits' if fits else 'DOES NOT FIT'}")
