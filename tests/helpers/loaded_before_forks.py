"""What each run of train.py imports and loads, for the fork server alone: workers that make batches do without it."""

import tempfile
from pathlib import Path

import bert_jax.cli.programs  # noqa: F401 (imported by train.py when it runs)
from bert_jax.training.runs import reporting
from bert_jax.training.runs.events import EventFile

# Events and curves are written once. No array is made: JAX must not start before the fork.
with tempfile.TemporaryDirectory() as folder:
    EventFile(Path(folder), after_step=0).close()
    Path(folder, "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    reporting._draw_curves(folder, (("loss", "loss"),))
