"""`bert-jax doctor`: prints what `bert_jax.doctor` finds. It imports nothing heavy until there is work to do."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from tyro.conf import Positional, arg

from bert_jax.cli.flags import as_flags
from bert_jax.cli.lines import as_json
from bert_jax.messages import counted

if TYPE_CHECKING:
    from bert_jax.doctor import Finding

MARKS = {"fact": "  ", "warning": "! ", "problem": "x "}


@dataclass(frozen=True)
class Doctor:
    """Examine this machine, or a run, a model, data or a prepared corpus.

    Without a name: versions, devices, memory, caches, and whether the Hugging Face hub can be reached. Otherwise:
    missing and damaged files, labels that look like mistakes, lengths, duplicates. Lines with ! are warnings, lines
    with x are problems, which also give exit code 1."""

    source: Annotated[Positional[str | None], arg(metavar="[RUN|MODEL|DATA|STORE]")] = None
    """Folder of a run, of a model or of a prepared corpus, a data file, or a name on the Hugging Face hub."""
    task: Literal["classification", "tokens", "squad", "multiple-choice", "corpus"] | None = None
    """What the data are for. Default: guessed from the columns or the first lines."""
    problem_type: Literal["single_label_classification", "multi_label_classification", "regression"] = (
        "single_label_classification"
    )
    """Of data for classification: one class per text, any number of labels per text, or scores."""
    model: str | None = None
    """Model or tokenizer folder that is to read the data: counts its tokens and [UNK]."""
    split: str = "train"
    """Split of a dataset on the hub."""
    encoding: str = "utf-8"
    """Encoding of a text file."""
    remove_stale: bool = False
    """Remove what killed processes have left in the cache."""
    network: bool = True
    """Whether to ask the Hugging Face hub for a file."""
    json: bool = False
    """Write JSON lines."""

    def run(self) -> None:
        problems = 0
        for finding in self.findings():
            problems += finding.severity == "problem"
            text = as_flags(finding.text, self.__dataclass_fields__)
            line = as_json({"severity": finding.severity, "text": text})
            print(line if self.json else f"{MARKS[finding.severity]}{text}")
        if problems:
            raise ValueError(f"{counted(problems, 'problem')} found")

    def findings(self) -> "Iterator[Finding]":
        """Yields what is found."""
        from bert_jax import doctor
        from bert_jax.data.preparation.store import is_store

        if self.source is None:
            if self.remove_stale:
                self.remove()
            yield from doctor.examine_machine(network=self.network)
        elif is_store(Path(self.source).expanduser()):
            yield from doctor.examine_store(self.source)
        elif self.task is None and doctor.is_model(self.source):
            yield from doctor.examine_model(self.source)
        else:
            yield from doctor.examine_data(
                self.source,
                kind=self.task,
                problem_type=self.problem_type,
                model=self.model,
                split=self.split,
                encoding=self.encoding,
            )

    def remove(self) -> None:
        """Removes what killed processes have left in the cache."""
        from bert_jax.data.readers.cache import CACHE_DIR, abandoned_folders

        for path in abandoned_folders(Path(CACHE_DIR)):
            shutil.rmtree(path)
            print(f"removed {path}")
