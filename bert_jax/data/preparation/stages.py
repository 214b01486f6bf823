"""The stages of a store, in order, for whatever runs them."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Protocol

from bert_jax.data.preparation.duplicates import FOLDER, find_duplicates
from bert_jax.data.preparation.manifest import Manifest
from bert_jax.data.preparation.parts import prepare_part
from bert_jax.data.preparation.sealed import SEAL, Content
from bert_jax.data.preparation.survey import survey_part
from bert_jax.data.preparation.vocabulary import train_tokenizer

Work = Callable[[Path, int], Content]  # `survey_part` or `prepare_part`


class Engine(Protocol):
    """Calls a function for many parts, anywhere, in any order.

    A process that dies is replaced; an exception of the function ends all.
    """

    def __call__(self, work: Work, store: Path, parts: Sequence[int]) -> Iterator[Content]:
        """Yields `work(store, part)` for each of the parts, in any order."""
        ...


def next_work(store: Path) -> Work:
    """Returns what is to be called for each part next: `survey_part`, and after `combine`, `prepare_part`."""
    manifest = Manifest.load(store)
    folders = ["tokenizer"] * (manifest.tokenizer is None) + [FOLDER] * manifest.settings.drop_duplicates
    is_combined = all((store / folder / SEAL).exists() for folder in folders)
    return prepare_part if is_combined else survey_part


def combine(store: Path, surveys: Sequence[Content]) -> None:
    """Trains the tokenizer and finds the duplicates, if the manifest says so and they are not there.

    Args:
        surveys: what `survey_part` returned for each part, in their order.
    """
    manifest = Manifest.load(store)
    if manifest.tokenizer is None:
        train_tokenizer(store, surveys)
    if manifest.settings.drop_duplicates:
        find_duplicates(store, surveys)
