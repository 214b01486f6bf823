"""Copies of a tokenizer that read a text otherwise: up to a length, or with special tokens as text.

The library has a switch for the latter, `encode_special_tokens`, which is for all tokens marked as special. It keeps
them from being cut out of a text, but a model that is given whole words would still find them in its vocabulary.
"""

import json
from collections.abc import Collection
from typing import Any

import tokenizers


class Variants:
    """The variants of one tokenizer, each made once."""

    def __init__(self, roles: Collection[str]) -> None:
        self._roles = {*roles}  # the special tokens
        self._made: dict[Any, tokenizers.Tokenizer] = {}

    def __call__(
        self, backend: tokenizers.Tokenizer, *, max_length: int | None = None, special: frozenset[str] | None = None
    ) -> tokenizers.Tokenizer:
        """Returns a copy of the backend, or of a variant, that truncates, or that reads special tokens as text.

        Args:
            special: special tokens that stay special.
        """
        key = (backend.encode_special_tokens, max_length, special)
        if key not in self._made:
            as_text = None if special is None else self._roles - special
            self._made[key] = make_variant(backend, max_length=max_length, as_text=as_text)
        return self._made[key]


def make_variant(
    backend: tokenizers.Tokenizer, *, max_length: int | None, as_text: Collection[str] | None
) -> tokenizers.Tokenizer:
    """Returns a copy of a tokenizer.

    Args:
        max_length: maximum number of tokens; longer texts are truncated.
        as_text: tokens that are text; other added tokens are found. None: as in `backend`.
    """
    content = json.loads(backend.to_str())
    if as_text is not None:
        for token in content["added_tokens"]:
            token["special"] = token["content"] in as_text
        hide_pieces(content, as_text)
    variant = tokenizers.Tokenizer.from_str(json.dumps(content))
    variant.encode_special_tokens = as_text is not None or backend.encode_special_tokens
    if max_length is not None:
        variant.enable_truncation(max_length)
    return variant


def hide_pieces(content: dict[str, Any], tokens: Collection[str]) -> None:
    """Keeps a model from finding special tokens in texts: as words, or as the pieces of a Unigram with the best scores.

    They get a text that no word has, because it contains a space. Their ids stay, and so does a token that the model
    needs for unknown words.

    Args:
        content: the tokenizer as JSON, which is changed.
    """
    model = content["model"]
    hidden = {*tokens} - {model.get("unk_token")}
    content["added_tokens"] = [token for token in content["added_tokens"] if token["content"] not in hidden]
    if model["type"] == "Unigram":
        for number, piece in enumerate(model["vocab"]):
            if piece[0] in hidden:
                piece[0] = f"{piece[0]} {number}"
    else:
        vocabulary = model["vocab"]
        model["vocab"] = {f"{token} {i}" if token in hidden else token: i for token, i in vocabulary.items()}
