"""Corpora of unusual shapes, prepared by `bert-jax prepare`: one huge line, and many small files."""

import itertools
import time
from pathlib import Path

from bert_jax.data.preparation.engines.local import local
from bert_jax.data.preparation.program import prepare
from bert_jax.data.preparation.settings import Preparation
from bert_jax.data.readers.movie_reviews import movie_reviews
from bert_jax.data.readers.sources import Texts
from common.inputs import CACHE
from common.processes import MEBI, PrivatePeak

SMALL_FILES = 100_000
SMALL_SIZE = 500  # characters
SHAPES = {"line": "one line", "files": f"{SMALL_FILES:,} files"}


def write_shape(folder: Path, shape: str, size: int) -> None:
    """Writes film reviews as a file of one line with `size` bytes, or as many small files, to `folder`/`shape`."""
    target = folder / shape
    target.mkdir()
    reviews = itertools.chain.from_iterable(itertools.repeat(Texts(movie_reviews(CACHE))))
    if shape == "line":
        with (target / "line.txt").open("w", encoding="utf-8") as file:
            while file.tell() < size:
                file.write(next(reviews).replace("\n", " ") + " ")
        return
    for number in range(SMALL_FILES):
        (target / f"{number:06d}.txt").write_text(next(reviews)[:SMALL_SIZE], encoding="utf-8")


def prepare_shape(folder: Path, shape: str) -> str:
    """Prepares a corpus of `write_shape` in this process; returns a row of a table."""
    settings = Preparation(
        str(folder / f"{shape}-store"), (f"{folder / shape}/*.txt",), tokenizer=str(folder / "tokenizer")
    )
    start = time.perf_counter()
    with PrivatePeak() as peak:
        prepared = prepare(settings, local(1))
    seconds = time.perf_counter() - start
    [source] = prepared.content["sources"]
    tokens = prepared.train.num_tokens + prepared.held_out.num_tokens
    return (
        f"| {SHAPES[shape]} | {source['bytes'] / MEBI:,.0f} MiB | {tokens:,} | {peak.bytes / MEBI:,.0f} MiB "
        f"| {seconds:,.0f} s |"
    )
