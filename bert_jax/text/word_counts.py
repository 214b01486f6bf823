"""Counts of the words of a corpus, which are all that the training of a vocabulary needs of it.

A word here is a chunk between spaces, tabs and line breaks, such as "movie,". Every tokenizer that is trained here
splits texts there, so the chunks serve them all, whatever they make of the characters within. Arrow counts them.

Counts of parts of a corpus, made anywhere and in any order, add up to those of the whole:

    a b a    ->  a 2, b 1
    b c      ->  b 1, c 1    merged: a 2, b 2, c 1
"""

import sys
from collections.abc import Callable, Iterable
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tokenizers
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer

from bert_jax.text.inputs import valid_text
from bert_jax.text.vocabulary import split_words, text_batches
from bert_jax.text.word_cache import ASCII_WORD

SCHEMA = pa.schema([("word", pa.string()), ("count", pa.int64())])
PENDING_ROWS = 1 << 20  # of tables that wait to be summed; about 30 MB
SPLIT_ROWS = 1 << 14  # words that are split or encoded at a time
# A web corpus has 20,000 different characters, most of them very rare; they would fill a vocabulary.
CHARACTER_COVERAGE = 0.99999
# Other white space stays in the chunks: BERT's tokenizer deletes some of it, as \v, and splits at some, as U+00A0.
SPACES = bytes.maketrans(b"\t\n\r", b"   ")


def count_words(texts: Iterable[str]) -> pa.Table:
    """Counts the words of texts, which are read once: a table like those of `merge_counts`."""
    return merge_counts(map(_count_batch, text_batches(texts)))


def merge_counts(tables: Iterable[pa.Table]) -> pa.Table:
    """Sums tables of counts, which are read one after the other.

    Memory holds the distinct words, about three times while they are summed.

    Returns:
        `word` (string, sorted by code points) and `count` (int64); the order of the tables does not matter.
    """
    summed = SCHEMA.empty_table()
    pending: list[pa.Table] = []
    rows = 0
    for table in tables:
        pending.append(table)
        rows += table.num_rows
        if rows > max(PENDING_ROWS, summed.num_rows):
            summed = _sum([summed, *pending])
            pending = []
            rows = 0
    return _sum([summed, *pending]).sort_by("word").combine_chunks()


def split_counts(counts: pa.Table, split: Callable[[str], list[str]]) -> pa.Table:
    """Returns the counts of the words that `split` makes of each word, such as "movie" and "," of "movie,"."""
    return merge_counts(_split_batch(batch, split) for batch in counts.to_batches(SPLIT_ROWS))


def normalized_counts(counts: pa.Table, backend: tokenizers.Tokenizer) -> pa.Table:
    """Returns the counts of the words that a tokenizer makes of each word, such as "movie" and "," of "Movie,"."""
    normalizer = backend.normalizer
    is_berts = isinstance(normalizer, BertNormalizer) and isinstance(backend.pre_tokenizer, BertPreTokenizer)

    def split(word: str) -> list[str]:
        if is_berts and word.isascii() and word.isprintable():  # most words; the tokenizer takes ten times as long
            return ASCII_WORD.findall(word.lower() if normalizer.lowercase else word)
        return split_words(backend, word)

    return split_counts(counts, split)


def count_ids(
    counts: pa.Table, encode: Callable[[list[str]], tuple[np.ndarray, np.ndarray]], num_ids: int
) -> np.ndarray:
    """Returns how often each id occurs in the words, int64 [num_ids].

    Args:
        encode: of a list of words, the ids of all and the number of ids of each, int.
    """
    totals = np.zeros(num_ids, np.int64)
    for batch in counts.to_batches(SPLIT_ROWS):
        ids, lengths = encode(batch["word"].to_pylist())
        weights = np.repeat(batch["count"].to_numpy(), lengths)
        totals += np.bincount(ids, weights, num_ids).astype(np.int64)  # sums of float64 are exact up to 2^53
    return totals


def frequent_characters(counts: pa.Table) -> list[str]:
    """Returns the most frequent characters, which cover CHARACTER_COVERAGE of the words, ties by code point."""
    totals = count_ids(counts, _code_points, sys.maxunicode + 1)
    order = np.argsort(-totals, kind="stable")
    covered = np.cumsum(totals[order])
    before = covered - totals[order]
    return [chr(code) for code in order[before < CHARACTER_COVERAGE * covered[-1]].tolist()]


def _sum(tables: list[pa.Table]) -> pa.Table:
    sums = pa.concat_tables(tables).group_by("word").aggregate([("count", "sum")])
    return sums.select(["word", "count_sum"]).rename_columns(SCHEMA.names)


def _count_batch(texts: list[str]) -> pa.Table:
    try:
        joined = " ".join(texts).encode()
    except (TypeError, UnicodeEncodeError):  # no strings, or lone surrogates
        joined = " ".join(map(valid_text, texts)).encode()
    data = pa.py_buffer(joined.translate(SPACES))
    text = pa.LargeStringArray.from_buffers(1, pa.py_buffer(np.array([0, data.size])), data)
    chunks = pc.call_function("split_pattern", [text], pc.SplitPatternOptions(" "))
    words, counts = chunks.values.value_counts().flatten()
    table = pa.table([words.cast(pa.string()), counts], schema=SCHEMA)
    return table.filter(pc.field("word") != "")


def _split_batch(batch: pa.RecordBatch, split: Callable[[str], list[str]]) -> pa.Table:
    parts = list(map(split, batch["word"].to_pylist()))
    counts = np.repeat(batch["count"].to_numpy(), list(map(len, parts)))
    return pa.table([pa.array(chain.from_iterable(parts), pa.string()), counts], schema=SCHEMA)


def _code_points(words: list[str]) -> tuple[np.ndarray, np.ndarray]:
    codes = np.frombuffer("".join(words).encode("utf-32-le"), np.uint32)
    return codes, np.array(list(map(len, words)))
