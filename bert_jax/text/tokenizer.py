"""Encodes texts as token ids and decodes them, with WordPiece, byte-level BPE, Unigram or another fast tokenizer.

`tokenizers` does the work; this class configures it and returns arrays. Special tokens are found by their role
(`special_tokens.py`), at any id. A tokenizer is immutable, so several threads may share it.

References: Devlin et al., BERT, 2018, section 3 (input representation).
"""

from __future__ import annotations

import hashlib
import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import tokenizers

from bert_jax.text.inputs import padded, valid_input
from bert_jax.text.special_tokens import NAMES, find_roles, install_layout, require_roles
from bert_jax.text.tokenizer_files import (
    find_vocabulary,
    read_tokenizer,
    require_working,
    write_tokenizer,
)
from bert_jax.text.variants import Variants
from bert_jax.text.vocabulary import text_batches
from bert_jax.text.word_marks import continuing_pieces, is_wordpiece, kind_of, lacks_prefix_space, trimmed, word_starts

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import pyarrow as pa

    from bert_jax.text.vocabulary import Kind
    from bert_jax.text.word_cache import WordCache


class Tokenizer:
    """A tokenizer of BERT or its relatives, with the special tokens and the layout of sequences that it defines.

    Attributes:
        backend: the `tokenizers.Tokenizer`, without truncation and padding.
        tokens: the pieces, by id.
        continuation: bool [V], whether a piece continues a word; see `word_marks.py` for what a word is.
        roles: the special tokens by role, `pad`, `unk`, `cls`, `sep` and `mask`; `unk` and `mask` may be missing.
        layout: the special tokens around texts.
        pad_id, unk_id, cls_id, sep_id, mask_id: the ids of these; -1 for a missing one.
        special_ids: int32, the ids of all of these.
        fingerprint: SHA-256 of everything that decides the ids of a text.
        max_length: the sequence length that the model was trained with (`model_max_length`), or None. Texts are not
            truncated to it, but pipelines read longer texts in windows of this length.
        split_special_tokens: whether special tokens in a text, such as "[SEP]", are text. None: they are in
            `text_backend`, which pipelines and tasks use, and are not in the methods of this class.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        max_length: int | None = None,
        *,
        split_special_tokens: bool | None = None,
        roles: Mapping[str, str] | None = None,
    ) -> None:
        vocabulary = backend.get_vocab()
        self.roles = find_roles(backend, roles or {})
        require_roles(backend, self.roles, roles or {})
        if holes := set(range(len(vocabulary))).difference(vocabulary.values()):
            raise ValueError(
                f"the {len(vocabulary)} tokens of the vocabulary do not have the ids 0 to {len(vocabulary) - 1}: "
                f"no token has {min(holes)}"
            )
        known = {token.content for token in backend.get_added_tokens_decoder().values()}
        backend.add_special_tokens([token for token in self.roles.values() if token not in known])
        backend.no_truncation()
        backend.no_padding()
        self.layout = install_layout(backend, self.roles)
        self.backend = backend
        self.tokens: list[str] = sorted(vocabulary, key=vocabulary.__getitem__)
        self.continuation = continuing_pieces(backend, self.tokens, set(self.roles.values()))
        ids = {role: vocabulary[token] for role, token in self.roles.items()}
        self.special_ids = np.array(list(dict.fromkeys([*ids.values(), *self.layout.ids])), np.int32)
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = (ids.get(role, -1) for role in NAMES)
        content = backend.to_str()
        if self.roles != find_roles(backend, {}):
            content += json.dumps(self.roles)
        self.fingerprint = hashlib.sha256(content.encode()).hexdigest()
        self.max_length = max_length
        self.split_special_tokens = split_special_tokens
        self._adds_space = lacks_prefix_space(backend)
        self._variant = Variants(self.roles.values())
        self._words: WordCache | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        make = partial(Tokenizer, split_special_tokens=self.split_special_tokens, roles=self.roles)
        return make, (self.backend, self.max_length)

    def with_settings(self, backend: tokenizers.Tokenizer | None = None, **changes: Any) -> Tokenizer:
        """Returns the tokenizer with another backend, or with changes to `max_length` or `split_special_tokens`."""
        kept = {"max_length": self.max_length, "split_special_tokens": self.split_special_tokens, "roles": self.roles}
        return Tokenizer(self.backend if backend is None else backend, **{**kept, **changes})

    @property
    def vocab_size(self) -> int:
        return len(self.tokens)

    @property
    def kind(self) -> str:
        """The kind of vocabulary by its usual name, such as `WordPiece` or `byte-level BPE`."""
        return kind_of(self.backend)

    @classmethod
    def train(
        cls,
        corpus: Iterable[str] | pa.Table,
        vocab_size: int,
        *,
        kind: Kind = "wordpiece",
        lowercase: bool = True,
        strip_accents: bool | None = None,
        min_frequency: int = 2,
    ) -> Tokenizer:
        """Trains a vocabulary with BERT's special tokens and layout; the same texts give the same one everywhere.

        The special tokens come first, then pieces: by frequency (wordpiece), in the order of the merges (bpe) or by
        probability (unigram), ties by text. See `vocabulary_training.py`.

        Args:
            corpus: texts, which are read once, or their `count_words`, from which a BPE cannot be trained.
            vocab_size: maximum number of tokens; a small corpus gives fewer.
            kind: `wordpiece` as BERT, byte-level `bpe` as RoBERTa, or `unigram` as XLM-R.
            strip_accents: None strips them if `lowercase` is set, like BERT.
            min_frequency: minimum number of occurrences of a pair, or with unigram of a piece, that becomes a token.

        Raises:
            ValueError: no text, an unknown `kind`, counts for a BPE, or a `vocab_size` too small for special tokens and
                characters.
        """
        from bert_jax.text.vocabulary_training import train_vocabulary  # SciPy is slow to import

        options = {"kind": kind, "lowercase": lowercase, "strip_accents": strip_accents}
        return cls(train_vocabulary(corpus, vocab_size, min_frequency=min_frequency, **options))

    @property
    def mask_token(self) -> str:
        """The token that stands for a word to predict.

        Raises:
            ValueError: the tokenizer has none.
        """
        if "mask" not in self.roles:
            raise ValueError(
                f"the tokenizer has no mask token (`mask_token`, {' or '.join(NAMES['mask'])}): words cannot be masked"
            )
        return self.roles["mask"]

    @classmethod
    def of(cls, content: bytes, roles: Mapping[str, str] | None = None) -> Tokenizer:
        """Makes a tokenizer from `backend.to_str().encode()` and its `roles`, by default those with usual names."""
        return cls(tokenizers.Tokenizer.from_buffer(content), roles=roles)

    @classmethod
    def load(cls, source: str | Path) -> Tokenizer:
        """Loads a tokenizer.json, a vocab.txt (WordPiece), a vocab.json (BPE, with its merges.txt), or a folder of one.

        The options of a vocab.txt come from the tokenizer_config.json next to it. Without one, text is lowercased if
        the vocabulary has no capital letters. `tokenizer_settings.py` says which files are read besides these.

        Raises:
            FileNotFoundError, ValueError: no such file, or an invalid one; with its name and line number.
        """
        path = find_vocabulary(Path(source))
        try:
            backend, settings = read_tokenizer(path)
            require_working(backend)
            split = settings.split_special_tokens
            tokenizer = cls(backend, settings.max_length, split_special_tokens=split, roles=settings.roles)
            require_working(tokenizer.backend)
            return tokenizer
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None

    def save(self, folder: str | Path) -> None:
        """Writes tokenizer.json, tokenizer_config.json and, for WordPiece, vocab.txt, in the format of transformers."""
        options = {"max_length": self.max_length, "split_special_tokens": self.split_special_tokens}
        write_tokenizer(Path(folder), self.backend, self.roles, layout=self.layout, **options)

    def __call__(
        self,
        texts: Sequence[str] | Sequence[Sequence[str]],
        pairs: Sequence[str] | Sequence[Sequence[str]] | None = None,
        *,
        max_length: int | None = None,
        padding: Literal["longest", "max_length"] = "longest",
    ) -> dict[str, np.ndarray]:
        """Returns `input_ids`, `token_type_ids`, `attention_mask`, int32 [B, T].

        Args:
            texts, pairs, max_length: see `encode_batch`.
            padding: T is the length of the longest sequence, or `max_length`.
        """
        if padding == "max_length" and max_length is None:
            raise ValueError("`padding=max_length` needs a `max_length`")
        encodings = self.encode_batch(texts, pairs, max_length=max_length)
        longest = max(map(len, encodings), default=0)
        return padded(encodings, max_length if padding == "max_length" and max_length else longest, self.pad_id)

    def encode_batch(
        self,
        texts: Sequence[str] | Sequence[Sequence[str]],
        pairs: Sequence[str] | Sequence[Sequence[str]] | None = None,
        *,
        max_length: int | None = None,
        add_special_tokens: bool = True,
    ) -> list[tokenizers.Encoding]:
        """Encodes texts, or pairs of texts, with offsets, word ids and sequence ids.

        Args:
            texts: strings, or lists of words (word ids are then indices into the list).
            pairs: second texts, one per text, in the same form.
            max_length: of tokens, with special tokens; the longer of two texts is truncated first, at its end.

        Raises:
            ValueError: not texts, mixed forms, or too small a `max_length`.
        """
        if isinstance(texts, str) or isinstance(pairs, str):
            raise ValueError("texts must be a list, even for a single text")
        if pairs is not None and len(pairs) != len(texts):
            raise ValueError(f"{len(texts)} texts cannot be paired with {len(pairs)}")
        backend = self.text_backend() if self.split_special_tokens else self.backend
        if max_length is not None:
            special = backend.num_special_tokens_to_add(pairs is not None) if add_special_tokens else 0
            if max_length <= special:
                raise ValueError(f"`max_length` {max_length} has no room besides {special} special tokens")
            backend = self._variant(backend, max_length=max_length)
        words = len(texts) > 0 and not isinstance(texts[0], str)
        encode = partial(backend.encode_batch, is_pretokenized=words, add_special_tokens=add_special_tokens)
        columns = [texts] if pairs is None else [texts, pairs]
        try:
            return encode(list(texts) if pairs is None else list(zip(*columns, strict=True)))
        except TypeError:  # invalid input, which the library does not describe
            valid = [[valid_input(text, words=words) for text in column] for column in columns]
            return encode(valid[0] if pairs is None else list(zip(*valid, strict=True)))

    def encode_flat(self, texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        """Encodes the texts of a corpus without special tokens; a literal "[SEP]" is ordinary text.

        Returns:
            The ids of all texts, int32 [tokens], and the number of tokens of each text, int32 [texts].
        """
        from bert_jax.text.word_cache import WordCache  # Arrow is slow to import, and only a corpus needs it

        if self._words is None:
            self._words = WordCache(self._variant(self.backend, special=frozenset()))
        ids = [np.zeros(0, np.int32)]
        lengths = [np.zeros(0, np.int32)]
        for batch in text_batches(texts):
            encoded = self._words.encode(batch)
            ids.append(encoded[0])
            lengths.append(encoded[1])
        return np.concatenate(ids), np.concatenate(lengths)

    def decode(self, ids: Iterable[int], *, skip_special_tokens: bool = True) -> str:
        """Joins pieces into words, and words with spaces."""
        return self.backend.decode([int(i) for i in ids], skip_special_tokens=skip_special_tokens)

    def offsets(self, text: str, encoding: tokenizers.Encoding) -> np.ndarray:
        """Returns the start and the end character of each token without the space before it, int64 [n, 2]."""
        offsets = np.array(encoding.offsets, np.int64).reshape(-1, 2)
        return offsets if is_wordpiece(self.backend) else trimmed(text, offsets)

    def word_starts(self, text: str, ids: np.ndarray, offsets: np.ndarray) -> np.ndarray:
        """Returns whether each token of a text begins a word, bool [n].

        Args:
            ids: int [n], without special tokens around the text.
            offsets: the result of `offsets`.
        """
        if not is_wordpiece(self.backend):
            return word_starts(text, offsets)
        starts = ~self.continuation[ids]
        starts[:1] = True
        return starts

    def as_word(self, word: str) -> str:
        """Returns a word as it is in the middle of a text: with the space before it that some tokenizers mark."""
        return f" {word}" if self._adds_space and word.strip() else word

    def text_backend(self, *special: str) -> tokenizers.Tokenizer:
        """Returns the backend for the texts of users, where "[SEP]" is text unless the settings say otherwise.

        Other added tokens, such as markers of entities, are still found.

        Args:
            special: special tokens that stay special, such as "[MASK]".
        """
        if self.split_special_tokens is False:
            return self.backend
        return self._variant(self.backend, special=frozenset(special))
