"""New words for a vocabulary: found in a corpus or read from a file, and what they change.

A vocabulary of another domain splits the words of a corpus into many pieces: "angiogram" into "ang ##io ##gram". A word
that occurs 1,000 times and has 3 pieces costs 2,000 tokens more than if it were in the vocabulary. The words that save
the most tokens are the ones to add (`with_tokens`).

References: Sachidananda et al., Efficient Domain Adaptation of Language Models via Adaptive Tokenization, 2021; Gee et
al., Fast Vocabulary Transfer for Language Model Compression, 2022.
"""

import unicodedata
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import tokenizers
from tokenizers import normalizers, pre_tokenizers

from bert_jax.messages import counted
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.vocabulary import CONTINUATION, SPECIAL_TOKENS, is_word, split_words, text_batches
from bert_jax.text.word_counts import SCHEMA, count_words, merge_counts, normalized_counts
from bert_jax.text.word_marks import is_wordpiece

MIN_FREQUENCY = 5  # a row that is seen less often is hardly trained
SAMPLE_CHARACTERS = 1 << 22  # of the corpus, for a `VocabularyReport`


def find_new_words(
    texts: Iterable[str], tokenizer: Tokenizer, count: int, *, min_frequency: int = MIN_FREQUENCY
) -> list[str]:
    """Returns the words that would save the most tokens of a corpus, best first, ties by text.

    A word with p pieces that occurs f times saves f * (p - 1) tokens. A word that is [UNK] counts as its characters and
    one more, f * characters: it hides all of them, although it is a single token. Saved tokens are those of each word
    alone: if "quokka" and "quokkas" are both added, the second saves fewer than its score.

    Words are as the tokenizer normalizes them. Digits and punctuation alone are no words; letters and symbols such as
    emoji are. The corpus is read once.

    Args:
        count: maximum number of words; a corpus with fewer words that qualify gives fewer.
        min_frequency: minimum number of occurrences of a word.

    Raises:
        ValueError: `count` is not positive, or the vocabulary is not WordPiece.
    """
    if count < 1:
        raise ValueError(f"`count` of new words must be at least 1, got {count}")
    require_wordpiece(tokenizer)
    backend = tokenizer.backend
    frequent = _count_words(texts, backend).filter(pc.field("count") >= min_frequency)
    counts = dict(zip(*frequent.to_pydict().values(), strict=True))
    words = list(filter(_has_letters, counts))
    ids, lengths = tokenizer.encode_flat(words)
    first = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)[:-1]])
    scores = {}
    for word, start, length in zip(words, first.tolist(), lengths.tolist(), strict=True):
        saved = len(word) if length == 1 and ids[start] == tokenizer.unk_id else length - 1
        if saved > 0:
            scores[word] = counts[word] * saved
    ranked = sorted(scores, key=lambda word: (-scores[word], word))
    found: list[str] = []
    for word in ranked:
        if len(found) == count:
            break
        if is_word(backend, word) and backend.token_to_id(word) is None:
            found.append(word)
    return found


def _count_words(texts: Iterable[str], backend: tokenizers.Tokenizer) -> pa.Table:
    """Counts the words of a corpus, as the tokenizer splits and normalizes it."""
    splits_at_spaces = isinstance(
        backend.pre_tokenizer, pre_tokenizers.BertPreTokenizer | pre_tokenizers.WhitespaceSplit
    ) and isinstance(backend.normalizer, normalizers.BertNormalizer | None)
    if splits_at_spaces:
        split_chinese = getattr(backend.normalizer, "handle_chinese_chars", False)
        return normalized_counts(count_words(texts, split_chinese=split_chinese), backend)
    batches = (pa.table([batch, [1] * len(batch)], schema=SCHEMA) for batch in text_batches(texts))
    return merge_counts(normalized_counts(batch, backend) for batch in batches)


def _has_letters(word: str) -> bool:
    """Returns whether a word has a letter or a symbol; the symbols of ASCII, such as $, are punctuation for BERT."""
    return any(
        unicodedata.category(character)[0] in "LS" for character in word if character.isalnum() or character > "~"
    )


@dataclass(frozen=True)
class NewWords:
    """The words of a file, as a tokenizer normalizes them.

    Attributes:
        blank_lines, repeated: numbers of lines that are skipped.
        normalized: number of words that are written in another way, such as "Quokka" for "quokka".
    """

    file: str
    words: tuple[str, ...]
    blank_lines: int
    repeated: int
    normalized: int

    def lines(self) -> list[str]:
        """Returns one line about the file."""
        counts = {
            ("blank line", "skipped"): self.blank_lines,
            ("repeated word", "skipped"): self.repeated,
            ("word", "normalized as in texts"): self.normalized,
        }
        notes = "".join(f", {counted(number, noun)} {what}" for (noun, what), number in counts.items() if number)
        return [f"{self.file}: {counted(len(self.words), 'new word')}{notes}"]

    def as_dict(self) -> dict[str, Any]:
        """Returns the numbers as JSON."""
        return {**asdict(self), "words": len(self.words)}


def read_new_words(path: str | Path, tokenizer: Tokenizer) -> NewWords:
    """Reads words to add to a vocabulary, one per line, UTF-8; blank lines and repeated words are skipped.

    Words are normalized like texts: "Quokka" becomes "quokka" if the tokenizer lower-cases.

    Raises:
        ValueError: a vocabulary that is not WordPiece, no words, a known word, or a line that cannot be one word.
        OSError: the file cannot be read.
    """
    require_wordpiece(tokenizer)
    places: dict[str, int] = {}  # word -> number of its line
    known: dict[str, int] = {}
    blank_lines = 0
    repeated = 0
    normalized = 0
    for number, line in enumerate(_decoded(path).split("\n"), start=1):
        text = line.strip()
        if not text:
            blank_lines += 1
            continue
        word = _one_word(text, tokenizer.backend, f"{path}:{number}")
        if word in places or word in known:
            repeated += 1
        elif tokenizer.backend.token_to_id(word) is not None:
            known[word] = number
        else:
            places[word] = number
            normalized += word != text
    if known:
        word, number = next(iter(known.items()))
        others = ", ".join(f"{word!r:.60} (line {number})" for word, number in [*known.items()][1:6])
        more = f"; so are {others}{' and others' if len(known) > 6 else ''}" if others else ""
        raise ValueError(f"{path}:{number}: {word!r:.60} is in the vocabulary already{more}")
    if not places:
        raise ValueError(f"{path}: no words; one word per line is expected")
    return NewWords(str(path), tuple(places), blank_lines, repeated, normalized)


def require_wordpiece(tokenizer: Tokenizer) -> None:
    """Raises ValueError for other vocabularies: merges of a BPE would change other words, as would Unigram's scores."""
    if not is_wordpiece(tokenizer.backend):
        raise ValueError(f"new words can be added to a WordPiece vocabulary only; the tokenizer is a {tokenizer.kind}")


def _decoded(path: str | Path) -> str:
    """Returns the text of a file, without a last line feed."""
    content = Path(path).read_bytes()
    try:
        return content.decode("utf-8-sig").removesuffix("\n")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}:{line}: not UTF-8: {error.reason}") from None


def _one_word(text: str, backend: tokenizers.Tokenizer, where: str) -> str:
    """Returns the normalized word that a text is, or raises ValueError."""
    if text in SPECIAL_TOKENS:
        raise ValueError(f"{where}: {text} is a special token")
    if len(text.split()) > 1:
        raise ValueError(f"{where}: {text!r:.60} holds white space; a new word must be one word")
    words = split_words(backend, text)
    if not words:
        raise ValueError(f"{where}: nothing is left of {text!r:.60} when the tokenizer normalizes it")
    if len(words) > 1:
        parts = " ".join(words)
        raise ValueError(f"{where}: the tokenizer splits {text!r:.60} into {parts!r:.60}; a new word must be one word")
    (word,) = words
    if word.startswith(CONTINUATION):
        raise ValueError(f"{where}: {text!r:.60} begins with {CONTINUATION}, which marks a piece, not a word")
    if not is_word(backend, word):
        limit = backend.model.max_input_chars_per_word
        raise ValueError(
            f"{where}: {text!r:.60} has {len(word)} characters; the tokenizer reads words of up to {limit}"
        )
    return word


@dataclass(frozen=True)
class VocabularyReport:
    """What new words change on a sample of a corpus.

    Attributes:
        new_words: number of tokens that the second vocabulary has more than the first.
        words: number of words of the sample.
        tokens_before, tokens_after: number of its tokens.
        unknown_before, unknown_after: number of [UNK] among them.
    """

    new_words: int
    words: int
    tokens_before: int
    tokens_after: int
    unknown_before: int
    unknown_after: int

    @classmethod
    def of(cls, texts: Iterable[str], before: Tokenizer, after: Tokenizer) -> Self:
        """Encodes the first SAMPLE_CHARACTERS of a corpus, to the end of a text, with both vocabularies."""
        sample = []
        seen = 0
        for text in texts:
            if seen >= SAMPLE_CHARACTERS:
                break
            sample.append(text)
            seen += len(text)
        old, _ = before.encode_flat(sample)
        new, _ = after.encode_flat(sample)
        return cls(
            new_words=after.vocab_size - before.vocab_size,
            words=int(np.count_nonzero(~before.continuation[old])),
            tokens_before=len(old),
            tokens_after=len(new),
            unknown_before=int(np.count_nonzero(old == before.unk_id)),
            unknown_after=int(np.count_nonzero(new == after.unk_id)),
        )

    def line(self) -> str:
        """Returns the report as one line."""
        words = max(self.words, 1)
        unknown_before = self.unknown_before / max(self.tokens_before, 1)
        unknown_after = self.unknown_after / max(self.tokens_after, 1)
        return (
            f"vocabulary: {counted(self.new_words, 'new word')}: "
            f"{self.tokens_before / words:.2f} -> {self.tokens_after / words:.2f} pieces per word, "
            f"[UNK] {unknown_before:.2%} -> {unknown_after:.2%} of the tokens"
        )

    def as_dict(self) -> dict[str, Any]:
        """Returns the numbers as JSON."""
        return asdict(self)
