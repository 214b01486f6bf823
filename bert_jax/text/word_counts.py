"""Counts of the words of a corpus, which are all that the training of a vocabulary needs of it.

A word here is a chunk between spaces, tabs and line breaks, such as "movie,". Every tokenizer that is trained here
splits texts there, so the chunks serve them all, whatever they make of the characters within. Arrow counts them.

Counts of parts of a corpus, made anywhere and in any order, add up to those of the whole:

    a b a    ->  a 2, b 1
    b c      ->  b 1, c 1    merged: a 2, b 2, c 1
"""

import sys
from collections.abc import Callable, Iterable
from functools import partial
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
MAX_SUMMED_BYTES = 1 << 30  # in one operation
SPLIT_ROWS = 1 << 14  # words that are split or encoded at a time
# A web corpus has 20,000 different characters, most of them very rare; they would fill a vocabulary.
CHARACTER_COVERAGE = 0.99999
# Other white space stays in the chunks: BERT's tokenizer deletes some of it, as \v, and splits at some, as U+00A0.
SPACES = bytes.maketrans(b"\t\n\r", b"   ")

# Most Chinese characters. Others stay in the chunks, and are split when a tokenizer splits those.
CHINESE = r"[\x{3400}-\x{4DBF}\x{4E00}-\x{9FFF}]"


def count_words(texts: Iterable[str], *, split_chinese: bool = False) -> pa.Table:
    """Counts the words of texts, which are read once: a table like those of `merge_counts`.

    Args:
        split_chinese: count Chinese characters one by one, as BERT's tokenizer splits them. Chinese has no spaces, so
            the counts would be as large as the text otherwise. A Unigram needs the words unsplit.
    """
    count = partial(_count_batch, split_chinese=split_chinese)
    return merge_counts(map(count, text_batches(texts)))


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
    return _sum([summed, *pending]).combine_chunks()


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
    """Returns the sum of tables, sorted; Arrow fails when the different words of a sum have more than 2 GiB of text."""
    if sum(table.nbytes for table in tables) > MAX_SUMMED_BYTES:
        largest = max(tables, key=lambda table: table.nbytes)
        rows = np.linspace(0, largest.num_rows - 1, 101).astype(int).tolist()
        words = sorted({largest["word"][row].as_py() for row in rows})
        if len(words) > 1:
            below = pc.field("word") < words[len(words) // 2]
            halves = [table.filter(below) for table in tables], [table.filter(~below) for table in tables]
            return pa.concat_tables(map(_sum, halves))
    sums = pa.concat_tables(tables).group_by("word").aggregate([("count", "sum")])
    return sums.select(["word", "count_sum"]).rename_columns(SCHEMA.names).sort_by("word")


def _count_batch(texts: list[str], *, split_chinese: bool) -> pa.Table:
    try:
        joined = " ".join(texts).encode()
    except (TypeError, UnicodeEncodeError):  # no strings, or lone surrogates
        joined = " ".join(map(valid_text, texts)).encode()
    data = pa.py_buffer(joined.translate(SPACES))
    text = pa.LargeStringArray.from_buffers(1, pa.py_buffer(np.array([0, data.size])), data)
    words, counts = _at_spaces(text).values.value_counts().flatten()
    table = pa.table([words.cast(pa.string()), counts], schema=SCHEMA).filter(pc.field("word") != "")
    return _split_chinese(table) if split_chinese else table


def _at_spaces(texts: pa.Array) -> pa.Array:
    return pc.call_function("split_pattern", [texts], pc.SplitPatternOptions(" "))


def _split_chinese(counts: pa.Table) -> pa.Table:
    """Returns counts of the Chinese characters of words, and of what is before, between and after them."""
    is_ascii = pc.call_function("string_is_ascii", [counts["word"]]).combine_chunks()
    spaced = pc.ReplaceSubstringOptions(CHINESE, r" \0 ")
    tables = []
    for batch in counts.filter(pc.call_function("invert", [is_ascii])).to_batches():
        parts = _at_spaces(pc.call_function("replace_substring_regex", [batch["word"]], spaced))
        lengths = parts.value_lengths().to_numpy()
        tables.append(pa.table([parts.flatten(), np.repeat(batch["count"].to_numpy(), lengths)], schema=SCHEMA))
    split = _sum([SCHEMA.empty_table(), *tables]).filter(pc.field("word") != "")
    return pa.concat_tables([counts.filter(is_ascii), split])


def _split_batch(batch: pa.RecordBatch, split: Callable[[str], list[str]]) -> pa.Table:
    parts = list(map(split, batch["word"].to_pylist()))
    counts = np.repeat(batch["count"].to_numpy(), list(map(len, parts)))
    return pa.table([pa.array(chain.from_iterable(parts), pa.string()), counts], schema=SCHEMA)


def _code_points(words: list[str]) -> tuple[np.ndarray, np.ndarray]:
    codes = np.frombuffer("".join(words).encode("utf-32-le"), np.uint32)
    return codes, np.array(list(map(len, words)))
