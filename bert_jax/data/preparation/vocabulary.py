"""The vocabulary of a store, trained on the words of all parts.

The counts of all parts are added range by range of words, in memory for ROWS_AT_ONCE of them. A corpus of a terabyte
has billions of different words, nearly all of them very rare. Of a corpus of more than MOST_WORDS words, those that
occur less than once in MOST_WORDS are left out, after all parts are added: so the result does not depend on the parts.
Training would leave out words that are eight times as frequent (`wordpiece_training.py`). Smaller corpora are exact.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import feather

from bert_jax.data.preparation.manifest import Manifest
from bert_jax.data.preparation.sealed import Content, make_once
from bert_jax.data.preparation.survey import WORDS, survey_folder
from bert_jax.text.cleaning import letter_options
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.word_counts import SCHEMA, merge_counts

ROWS_AT_ONCE = 1 << 24  # of the tables of all parts; about 1 GB
MOST_WORDS = 1 << 30


def train_tokenizer(store: Path, surveys: Sequence[Content]) -> Content:
    """Trains the tokenizer of a store, unless that is done.

    Args:
        surveys: what `survey_part` returned for each part.
    """
    settings = Manifest.load(store).settings

    def write(folder: Path) -> Content:
        tables = [
            feather.read_table(str(survey_folder(store, number) / WORDS), memory_map=True)
            for number in range(len(surveys))
        ]
        tokenizer = Tokenizer.train(
            merge_words(tables),
            settings.vocab_size,
            kind=settings.tokenizer_kind,
            **letter_options(settings.language, lowercase=settings.lowercase, strip_accents=settings.strip_accents),
            min_frequency=settings.min_frequency,
        )
        tokenizer.save(folder)
        return {"fingerprint": tokenizer.fingerprint, "vocab_size": tokenizer.vocab_size}

    return make_once(store / "tokenizer", [survey["files"] for survey in surveys], write)


def merge_words(tables: Sequence[pa.Table]) -> pa.Table:
    """Adds tables of `count_words`, sorted by word as they are; leaves out the rarest words of a very large corpus."""
    total = sum(pc.call_function("sum", [table["count"]]).as_py() or 0 for table in tables)
    fewest = -(-total // MOST_WORDS)
    merged = [merge_counts(slices).filter(pc.field("count") >= fewest) for slices in _ranges(tables)]
    return pa.concat_tables([SCHEMA.empty_table(), *merged]).combine_chunks()


def _ranges(tables: Sequence[pa.Table]) -> Iterator[list[pa.Table]]:
    """Yields the slices of all tables that hold a range of words, one range after the other."""
    number = -(-sum(table.num_rows for table in tables) // ROWS_AT_ONCE)
    largest = max(tables, key=lambda table: table.num_rows, default=None)
    if largest is None or number < 2:
        yield list(tables)
        return
    words = largest["word"]
    borders = [words[place * len(words) // number].as_py() for place in range(1, number)]
    starts = [[0, *(_first(table, border) for border in borders), table.num_rows] for table in tables]
    for index in range(number):
        yield [
            table.slice(start[index], start[index + 1] - start[index])
            for table, start in zip(tables, starts, strict=True)
        ]


def _first(table: pa.Table, word: str) -> int:
    """Returns the number of words before `word`."""
    return bisect_left(range(table.num_rows), word, key=lambda row: table["word"][row].as_py())
