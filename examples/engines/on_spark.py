"""Prepares a corpus on a Spark cluster.

    spark-submit --master yarn examples/engines/on_spark.py --corpus '/shared/texts/*.txt' --output /shared/store

Requires `pip install pyspark` and bert_jax on every executor, and a disk that all of them share.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import tyro
from pyspark.sql import SparkSession

from bert_jax.data.preparation.program import prepare
from bert_jax.data.preparation.sealed import Content
from bert_jax.data.preparation.settings import Preparation
from bert_jax.data.preparation.stages import Work


def on_spark(work: Work, store: Path, parts: Sequence[int]) -> Iterator[Content]:
    """The engine: a task for each part; Spark tries a task four times (`spark.task.maxFailures`)."""
    context = SparkSession.builder.appName("bert-jax prepare").getOrCreate().sparkContext
    yield from context.parallelize(parts, len(parts)).map(partial(work, store.absolute())).collect()


if __name__ == "__main__":
    prepare(tyro.cli(Preparation), on_spark)
