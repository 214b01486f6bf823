"""`bert-jax prepare`: a large corpus as token ids."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from bert_jax.data.preparation.settings import Preparation


@dataclass(frozen=True)
class Prepare(Preparation):
    """Tokenize a large corpus in parts, on one machine or many; train.py --corpus STORE trains from it.

    The same command continues a store that was interrupted. Parts that are whole are not done again."""

    engine: Literal["local", "ray", "slurm"] = "local"
    """What runs the parts: local, processes of this machine; ray, a Ray cluster; slurm, jobs, whose script is printed.
    With ray and slurm, inputs and --output are on a disk that all machines share."""
    workers: int | None = None
    """Processes of the local engine; default: one per core."""
    address: str | None = None
    """Address of the Ray cluster; default: the cluster of this machine, or a new one on it."""
    submit: bool = False
    """With --engine slurm: submit the jobs."""
    part: int | None = None
    """Run this part alone, from 0, in the stage that is next; a scheduler calls this once for each part."""
    combine: bool = False
    """Do only what follows the first stage of all parts: train the vocabulary and find the duplicates."""

    def run(self) -> None:
        settings = Preparation(**{one.name: getattr(self, one.name) for one in fields(Preparation)})
        self._check_engine()
        if self.part is not None or self.combine:
            self._run_step(settings)
        elif self.engine == "slurm":
            self._run_on_slurm(settings)
        else:
            self._run_all(settings)

    def _check_engine(self) -> None:
        """Raises ValueError for options of another engine."""
        for name, engine in (("workers", "local"), ("address", "ray"), ("submit", "slurm")):
            if getattr(self, name) not in (None, False) and self.engine != engine:
                raise ValueError(f"`{name}` is only used with `engine={engine}`")
        if self.part is not None and self.combine:
            raise ValueError("`combine` cannot be combined with `part`: it is for all parts")

    def _run_all(self, settings: Preparation) -> None:
        from bert_jax.data.preparation.engines.local import local
        from bert_jax.data.preparation.engines.ray_cluster import on_ray
        from bert_jax.data.preparation.program import prepare

        prepare(settings, on_ray(self.address) if self.engine == "ray" else local(self.workers))

    def _run_on_slurm(self, settings: Preparation) -> None:
        from bert_jax.data.preparation.engines.slurm import make_script, submit
        from bert_jax.data.preparation.manifest import begin_store

        script = make_script(begin_store(settings))
        if self.submit:
            submit(script)
            print(f"{self.output}: submitted; squeue --name prepare lists the jobs")
        else:
            print(script, end="")

    def _run_step(self, settings: Preparation) -> None:
        from bert_jax.data.preparation.manifest import begin_store
        from bert_jax.data.preparation.stages import combine, next_work
        from bert_jax.data.preparation.survey import survey_part

        manifest = begin_store(settings)
        store = Path(self.output)
        if self.part is None:
            numbers = range(len(manifest.parts)) if manifest.has_survey else ()
            combine(store, [survey_part(store, part) for part in numbers])
            print(f"{store}: the first stage is combined")
            return
        if not 0 <= self.part < len(manifest.parts):
            raise ValueError(f"`part` must be between 0 and {len(manifest.parts) - 1}, got {self.part}")
        work = next_work(store)
        work(store, self.part)
        print(f"{store}: part {self.part} is done ({work.__name__})")
