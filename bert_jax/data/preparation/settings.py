"""The settings of `bert-jax prepare`; all but `output` decide tokens, and are kept in the manifest."""

from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

# Nothing heavy is imported here, so that --help is quick.

MEBI = 1 << 20


@dataclass(frozen=True)
class Preparation:
    """What to prepare, and how."""

    output: str
    """Folder of the store. Without --corpus the store that was begun there is continued."""
    corpus: tuple[str, ...] = ()
    """Text files (a blank line between documents), csv, tsv, jsonl, parquet, globs of them, URLs of these (s3://, gs://,
    hf://, https://), the name of a dataset on the Hugging Face hub, or practice:id and practice:en."""
    text_column: str = "text"
    """Column of the text in csv, jsonl, parquet and datasets."""
    encoding: str = "utf-8"
    """Encoding of text files."""
    document: Literal["paragraphs", "line"] = "paragraphs"
    """What a document of a text file is: the paragraphs between two blank lines, or a line."""
    drop_duplicates: bool = False
    """Drop documents that repeat an earlier one, of any source, but for case, white space and Unicode form."""
    skip_unreadable: bool = False
    """Skip files that cannot be read; they are named and counted. Default: the first one is an error."""
    language: str = "en"
    """Language (ISO 639-1) whose rules split text into sentences; unknown ones get general rules."""
    held_out: float = 0.02
    """Fraction of the documents held out for evaluation; a hash of the text decides."""
    seed: int = 0
    """Random seed of the held-out documents."""
    tokenizer: str | None = None
    """A tokenizer.json, vocab.txt, vocab.json with its merges.txt, or a folder of one. Default: train a vocabulary."""
    tokenizer_kind: Literal["wordpiece", "bpe", "unigram"] = "wordpiece"
    """Kind of vocabulary to train: wordpiece as BERT or unigram as XLM-R."""
    vocab_size: int = 30_522
    """Size of the vocabulary to train."""
    min_frequency: int = 2
    """Minimum frequency of a pair of pieces to be merged, or of a piece with unigram, when a vocabulary is trained."""
    lowercase: bool | None = None
    """Lower-case the text; None = as BERT does, but not where case has a meaning of its own (German, Turkish) or the
    script has none (Hindi, Thai, Chinese)."""
    strip_accents: bool | None = None
    """Strip accents; None = in lower-cased English, as BERT does. In other languages the marks belong to the words."""
    part_size: int = 256
    """Input per part, in MiB."""

    def check(self) -> None:
        """Raises ValueError for settings that cannot be used."""
        from bert_jax.data.readers.sources import codec
        from bert_jax.text.vocabulary import KINDS, smallest_vocabulary

        if not self.corpus:
            raise ValueError(f"{self.output} is not a store that was begun: name its text with `corpus`")
        if not 0 < self.held_out < 1:
            raise ValueError(f"`held_out` must be between 0 and 1, got {self.held_out}")
        if self.part_size < 1:
            raise ValueError(f"`part_size` must be at least 1, got {self.part_size}")
        if self.tokenizer_kind not in KINDS:
            raise ValueError(f"`tokenizer_kind` must be one of {', '.join(KINDS)}; got {self.tokenizer_kind!r:.60}")
        if self.tokenizer_kind == "bpe":
            raise ValueError("`tokenizer_kind=bpe` is not trained from counts of words: train it first, as `tokenizer`")
        for name in ("tokenizer_kind", "vocab_size", "min_frequency", "lowercase", "strip_accents"):
            value = getattr(self, name)
            if self.tokenizer is not None and value != getattr(Preparation, name):
                raise ValueError(
                    f"`{name}={value}` cannot be combined with `tokenizer`: {self.tokenizer} has a vocabulary"
                )
        if self.vocab_size < smallest_vocabulary(self.tokenizer_kind):
            raise ValueError(f"`vocab_size={self.vocab_size}` leaves no room beside the special tokens")
        if self.min_frequency < 0:
            raise ValueError(f"`min_frequency` must be at least 0, got {self.min_frequency}")
        if not -(2**63) <= self.seed < 2**63:
            raise ValueError(f"`seed` must fit in 64 bits, got {self.seed}")
        codec(self.encoding)

    @property
    def part_bytes(self) -> int:
        return self.part_size * MEBI

    def deciding(self) -> dict[str, Any]:
        """Returns the settings that decide tokens, as JSON."""
        return {name: value for name, value in asdict(self).items() if name not in ("output", "tokenizer")}

    @classmethod
    def of(cls, output: str, decided: dict[str, Any]) -> "Preparation":
        """Returns the settings of a store, given those that `deciding` returned."""
        known = {one.name for one in fields(cls)}
        values: dict[str, Any] = {name: value for name, value in decided.items() if name in known}
        values["corpus"] = tuple(values["corpus"])
        return cls(output, **values)
