r"""Prepares a corpus on a Dask cluster; without an address it starts one on this machine.

    DASK_SCHEDULER=tcp://HOST:8786 \
        python examples/engines/on_dask.py --corpus '/shared/texts/*.txt' --output /shared/store

Requires `pip install distributed` and bert_jax on every worker, and a disk that all of them share.
"""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import tyro
from distributed import Client, as_completed

from bert_jax.data.preparation.program import prepare
from bert_jax.data.preparation.sealed import Content
from bert_jax.data.preparation.settings import Preparation
from bert_jax.data.preparation.stages import Work


def on_dask(work: Work, store: Path, parts: Sequence[int]) -> Iterator[Content]:
    """The engine: yields the result of each part; Dask runs the parts of a lost worker again."""
    with Client(os.environ.get("DASK_SCHEDULER")) as client:
        for future in as_completed(client.map(partial(work, store.absolute()), parts, pure=False)):
            yield future.result()


if __name__ == "__main__":
    prepare(tyro.cli(Preparation), on_dask)
