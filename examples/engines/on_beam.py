r"""Prepares a corpus with Apache Beam, on Dataflow, Flink or this machine.

    BEAM_OPTIONS='--runner=FlinkRunner --flink_master=HOST:8081' \
        python examples/engines/on_beam.py --corpus '/shared/texts/*.txt' --output /shared/store

Requires `pip install apache-beam` and bert_jax on every worker, and a disk that all of them share.
"""

import os
import shlex
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import apache_beam as beam
import tyro
from apache_beam.options.pipeline_options import PipelineOptions

from bert_jax.data.preparation.program import prepare
from bert_jax.data.preparation.sealed import Content
from bert_jax.data.preparation.settings import Preparation
from bert_jax.data.preparation.stages import Work


def on_beam(work: Work, store: Path, parts: Sequence[int]) -> Iterator[Content]:
    """The engine: an element for each part. A pipeline returns nothing, so the whole parts are read again here."""
    do = partial(work, store.absolute())
    with beam.Pipeline(options=PipelineOptions(shlex.split(os.environ.get("BEAM_OPTIONS", "")))) as pipeline:
        _ = pipeline | beam.Create(parts) | beam.Reshuffle() | beam.Map(do)
    yield from map(do, parts)


if __name__ == "__main__":
    prepare(tyro.cli(Preparation), on_beam)
