"""The vocabulary of a store, trained on the words of all parts."""

from collections.abc import Sequence
from pathlib import Path

from pyarrow import feather

from bert_jax.data.preparation.manifest import Manifest
from bert_jax.data.preparation.sealed import Content, make_once
from bert_jax.data.preparation.survey import WORDS, survey_folder
from bert_jax.text.cleaning import default_lowercase, default_strip_accents
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.word_counts import merge_counts


def train_tokenizer(store: Path, surveys: Sequence[Content]) -> Content:
    """Trains the tokenizer of a store, unless that is done.

    Args:
        surveys: what `survey_part` returned for each part.
    """
    settings = Manifest.load(store).settings
    language = settings.language

    def write(folder: Path) -> Content:
        tables = (
            feather.read_table(str(survey_folder(store, number) / WORDS), memory_map=False)
            for number in range(len(surveys))
        )
        tokenizer = Tokenizer.train(
            merge_counts(tables),
            settings.vocab_size,
            kind=settings.tokenizer_kind,
            lowercase=default_lowercase(language) if settings.lowercase is None else settings.lowercase,
            strip_accents=default_strip_accents(language) if settings.strip_accents is None else settings.strip_accents,
            min_frequency=settings.min_frequency,
        )
        tokenizer.save(folder)
        return {"fingerprint": tokenizer.fingerprint, "vocab_size": tokenizer.vocab_size}

    return make_once(store / "tokenizer", [survey["files"] for survey in surveys], write)
