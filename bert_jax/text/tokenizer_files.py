"""Reads a tokenizer from its files: a tokenizer.json, or a vocab.txt with the tokenizer_config.json beside it."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import models

from bert_jax.text.vocabulary import SPECIAL_TOKENS, wordpiece

PROBE = "an owl, \u00e9\U0002a6a5"  # the last letter is in no vocabulary and gives [UNK]


def read_wordpiece(path: Path) -> tokenizers.Tokenizer:
    """Reads a tokenizer.json, or a vocab.txt with the tokenizer_config.json beside it.

    Raises:
        ValueError: an invalid file, with the line number if there is one.
    """
    return _read_json(path) if path.suffix == ".json" else _read_vocabulary(path)


def require_working(backend: tokenizers.Tokenizer) -> None:
    """Raises ValueError if a tokenizer fails on a text or on its own tokens."""
    with _no_panic():
        backend.encode(PROBE)
        backend.decode([*range(backend.get_vocab_size())])


@contextmanager
def _no_panic() -> Iterator[None]:
    """Turns the errors of `tokenizers` into ValueError: bare Exceptions, and Rust panics, which are BaseExceptions."""
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise ValueError(f"not a tokenizer ({error})") from None


def _read_json(path: Path) -> tokenizers.Tokenizer:
    with _no_panic():
        backend = tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))
    if not isinstance(backend.model, models.WordPiece):
        raise ValueError(f"has a {type(backend.model).__name__} model; BERT needs WordPiece")
    return backend


def _read_vocabulary(path: Path) -> tokenizers.Tokenizer:
    vocabulary: dict[str, int] = {}
    # Only a line feed ends a line: other Unicode line breaks may be tokens.
    lines = path.read_bytes().decode("utf-8-sig").removesuffix("\n").split("\n")
    for number, token in enumerate(line.removesuffix("\r") for line in lines):
        if token in vocabulary:
            raise ValueError(f"line {number + 1} repeats {token!r} of line {vocabulary[token] + 1}")
        vocabulary[token] = number
    cleaning = _read_cleaning(path.with_name("tokenizer_config.json"))
    capitals = any(token != token.lower() for token in vocabulary if token not in SPECIAL_TOKENS)
    return wordpiece(
        vocabulary,
        lowercase=cleaning.get("do_lower_case", not capitals),
        strip_accents=cleaning.get("strip_accents"),
        chinese=cleaning.get("tokenize_chinese_chars", True),
    )


def read_max_length(path: Path) -> int | None:
    """Returns `model_max_length` of a tokenizer_config.json; None if there is none."""
    length = _read_config(path).get("model_max_length")
    return length if isinstance(length, int) and length > 1 else None


def _read_config(path: Path) -> dict[str, Any]:
    """Returns the contents of a tokenizer_config.json; empty if there is none."""
    if not path.is_file():
        return {}
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the {path.name} beside it is no JSON ({error})") from None
    if not isinstance(config, dict):
        raise ValueError(f"the {path.name} beside it is not a JSON object but {type(config).__name__}")
    return config


def _read_cleaning(path: Path) -> dict[str, bool]:
    """Returns the options for cleaning text in a tokenizer_config.json; empty if there is none."""
    config = _read_config(path)
    names = ("do_lower_case", "strip_accents", "tokenize_chinese_chars")
    said = {name: config[name] for name in names if config.get(name) is not None}
    for name, value in said.items():
        if not isinstance(value, bool):
            raise ValueError(f"the {path.name} beside it has {name} {value!r:.60}; it must be true or false")
    return said
