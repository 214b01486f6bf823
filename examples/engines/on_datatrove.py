"""Filters a corpus with datatrove, and prepares what is left with its executor.

    python examples/engines/on_datatrove.py /shared/raw /shared/filtered /shared/store 8

The folders are those of JSON lines to read, of JSON lines that are kept, and of the store; the number is that of
processes. Other filters, and deduplication, go where GopherQualityFilter is; a SlurmPipelineExecutor in place of the
local one uses a cluster. Requires `pip install datatrove`.
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from datatrove.data import DocumentsPipeline
from datatrove.executor import LocalPipelineExecutor
from datatrove.pipeline.base import PipelineStep
from datatrove.pipeline.filters import GopherQualityFilter
from datatrove.pipeline.readers import JsonlReader
from datatrove.pipeline.writers import JsonlWriter

from bert_jax.data.preparation.program import prepare
from bert_jax.data.preparation.sealed import Content
from bert_jax.data.preparation.settings import Preparation
from bert_jax.data.preparation.stages import Engine, Work


class Parts(PipelineStep):
    """A step that does its rank's parts of a store: rank 2 of 8 does the parts 2, 10, 18, ..."""

    name = "bert-jax prepare"
    type = "TOKENIZER"

    def __init__(self, work: Work, store: Path, parts: Sequence[int]) -> None:
        super().__init__()
        self.work = work
        self.store = store
        self.parts = parts

    def run(self, data: DocumentsPipeline, rank: int = 0, world_size: int = 1) -> Iterator[object]:
        yield from data or ()
        for part in self.parts[rank::world_size]:
            with self.track_time():
                self.stat_update("documents", value=self.work(self.store, part)["documents"])


def on_datatrove(tasks: int) -> Engine:
    """Returns the engine. An executor returns nothing, so the whole parts are read again here."""

    def run(work: Work, store: Path, parts: Sequence[int]) -> Iterator[Content]:
        step = Parts(work, store.absolute(), parts)
        LocalPipelineExecutor([step], tasks=tasks, workers=tasks, skip_completed=False).run()
        yield from (work(store, part) for part in parts)

    return run


def keep(raw: str, kept: str, tasks: int) -> None:
    """Filters documents; a second call does the tasks that are not done."""
    steps = [JsonlReader(raw), GopherQualityFilter(), JsonlWriter(kept)]
    LocalPipelineExecutor(steps, tasks=tasks, workers=tasks, logging_dir=f"{kept}-logs").run()


if __name__ == "__main__":
    raw, kept, store, tasks = sys.argv[1:]
    keep(raw, kept, int(tasks))
    prepare(Preparation(store, (f"{kept}/*.jsonl.gz",)), on_datatrove(int(tasks)))
