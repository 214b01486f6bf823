"""`bert-jax prepare`: a large corpus as token ids."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from bert_jax.data.preparation.settings import Preparation


@dataclass(frozen=True)
class Prepare(Preparation):
    """Tokenize a large corpus in parts, on one machine or many; train.py --corpus STORE trains from it.

    The same command continues a store that was interrupted. Parts that are whole are not done again."""

    engine: Literal["local"] = "local"
    """What runs the parts: local, processes of this machine."""
    workers: int | None = None
    """Processes of the local engine; default: one per core."""
    part: int | None = None
    """Run this part alone, from 0, in the stage that is next; a scheduler calls this once for each part."""

    def run(self) -> None:
        from bert_jax.data.preparation.engines.local import local
        from bert_jax.data.preparation.manifest import begin_store
        from bert_jax.data.preparation.program import prepare
        from bert_jax.data.preparation.stages import next_work

        settings = Preparation(**{one.name: getattr(self, one.name) for one in fields(Preparation)})
        if self.part is None:
            prepare(settings, local(self.workers))
            return
        manifest = begin_store(settings)
        if not 0 <= self.part < len(manifest.parts):
            raise ValueError(f"`part` must be between 0 and {len(manifest.parts) - 1}, got {self.part}")
        work = next_work(Path(self.output))
        work(Path(self.output), self.part)
        print(f"{self.output}: part {self.part} is done ({work.__name__})")
