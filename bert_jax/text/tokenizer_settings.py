"""What the files beside a vocabulary say about its tokenizer; the one place where these settings are understood.

They are read from tokenizer_config.json, special_tokens_map.json, added_tokens.json and, for the name of the class
alone, config.json, with the meaning that transformers gives them. A setting that changes the ids and is not supported
is an error that names it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import tokenizers

from bert_jax.text.special_tokens import ROLES, STAND_INS
from bert_jax.text.vocabulary import SPECIAL_TOKENS

CONFIG = "tokenizer_config.json"
SPECIAL_MAP = "special_tokens_map.json"
ADDED = "added_tokens.json"
SETTINGS_FILES = (CONFIG, SPECIAL_MAP, ADDED)
CLEANING = {  # the key of the config, and the attribute of `BertNormalizer`
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
    "clean_text": "clean_text",
}
SUPPORTED: dict[str, Any] = {  # keys with only one supported value
    "word_tokenizer_type": "basic",
    "subword_tokenizer_type": "wordpiece",
    "do_word_tokenize": True,
    "do_subword_tokenize": True,
    "wordpieces_prefix": "##",
    "truncation_side": "right",
}
LISTS = ("extra_special_tokens", "additional_special_tokens")  # special tokens without ids
GENERIC = ("PreTrainedTokenizer", "TokenizersBackend")  # these classes only read a tokenizer.json
JAPANESE = "BertJapaneseTokenizer"
# Those that split text like BERT's. A class that is not listed may split it in another way.
LIKE_BERT = (*GENERIC, JAPANESE, *(f"{name}Tokenizer" for name in (
    "Bert", "ConvBert", "DistilBert", "DPRContextEncoder", "DPRQuestionEncoder", "DPRReader", "Electra", "LayoutLM",
    "Lxmert", "MobileBert", "Realm", "RetriBert", "Splinter", "SqueezeBert")))  # fmt: skip

LIKE_ROBERTA = ("RobertaTokenizer", "LongformerTokenizer")  # byte-level BPE


class Added(NamedTuple):
    """A token that is found whole in a text, before it is split; without an id it gets the next one."""

    token: tokenizers.AddedToken
    id: int | None
    file: str


@dataclass(frozen=True)
class TokenizerSettings:
    """The settings that the files name.

    Attributes:
        cleaning: those of the options of `BertNormalizer` that are named; None for `strip_accents` means: if
            lowercasing.
        whole_words: split at spaces only and change nothing (`do_basic_tokenize` false).
        json_decides: the class reads tokenizer.json alone, so `cleaning` does not change it.
        added: the added tokens, those with an id first, by their ids.
        max_length: `model_max_length`.
        split_special_tokens: whether special tokens in a text are text; None if it is not named.
        roles: the special tokens that are named, by role: `cls` for `cls_token`.
        prefix_space: whether a space is put before a text (`add_prefix_space`); None: as in tokenizer.json.
    """

    cleaning: Mapping[str, bool | None]
    whole_words: bool
    json_decides: bool
    added: tuple[Added, ...]
    max_length: int | None
    split_special_tokens: bool | None
    roles: Mapping[str, str]
    prefix_space: bool | None


def read_settings(folder: Path, *, file: str) -> TokenizerSettings:
    """Reads the settings in a folder.

    Args:
        file: the name of the vocabulary; a tokenizer.json defines how text is split, others do not.

    Raises:
        ValueError: a broken file, an invalid value, or a setting that is not supported.
    """
    config = _read_object(folder / CONFIG)
    special = {} if "added_tokens_decoder" in config else _read_object(folder / SPECIAL_MAP)
    name = config.get("tokenizer_class") or _read_object(folder / "config.json").get("tokenizer_class")
    name = name.removesuffix("Fast") if isinstance(name, str) else None
    _check_supported(config, name, file)
    cleaning = {CLEANING[key]: value for key, value in _booleans(config, *CLEANING)}
    if name == JAPANESE:  # its own defaults
        cleaning = {"lowercase": False, "handle_chinese_chars": False} | cleaning
    length = config.get("model_max_length", config.get("max_len"))
    split = dict(_booleans(config, "split_special_tokens"))
    return TokenizerSettings(
        cleaning=cleaning,
        whole_words=dict(_booleans(config, "do_basic_tokenize")).get("do_basic_tokenize") is False,
        json_decides=name in GENERIC,
        added=tuple(_added_tokens(folder, config, special)),
        max_length=length if type(length) is int and 1 < length < 10**9 else None,
        split_special_tokens=split.get("split_special_tokens"),
        roles=dict(_roles(special | config)),
        prefix_space=_prefix_space(config, name),
    )


def _read_object(path: Path) -> dict[str, Any]:
    """Returns the contents of a JSON file; empty if there is none."""
    if not path.is_file():
        return {}
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the {path.name} beside it is no JSON ({error})") from None
    if not isinstance(values, dict):
        raise ValueError(f"the {path.name} beside it is not a JSON object but {type(values).__name__}")
    return values


def _booleans(config: Mapping[str, Any], *keys: str) -> Iterator[tuple[str, bool | None]]:
    """Yields those of the keys that are set; `strip_accents` may be null."""
    for key in keys:
        value = config.get(key)
        if value is None and (key != "strip_accents" or key not in config):
            continue
        if value is not None and not isinstance(value, bool):
            raise ValueError(f"the {CONFIG} beside it has {key} {value!r:.60}; it must be true or false")
        yield key, value


def _prefix_space(config: Mapping[str, Any], name: str | None) -> bool | None:
    """Returns `add_prefix_space`; generic classes follow tokenizer.json, and RoBERTa's default is false."""
    said = dict(_booleans(config, "add_prefix_space")).get("add_prefix_space")
    if name in GENERIC:
        return None
    return bool(said) if name in LIKE_ROBERTA else said


def _roles(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yields the role and the text of each special token that is named."""
    for role in (*ROLES, *STAND_INS.values()):
        token = _content(config.get(f"{role}_token"))
        if token:
            yield role, token


def _check_supported(config: Mapping[str, Any], name: str | None, file: str) -> None:
    """Raises ValueError for a setting that would give other ids than the ones that the model was trained with."""
    for key, supported in SUPPORTED.items():
        value = config.get(key)
        if value is not None and value != supported:
            raise ValueError(f"{key} {value!r:.60} in {CONFIG} is not supported, only {supported!r}")
    if never := [token for token in _list(config, "never_split") if token not in SPECIAL_TOKENS]:
        raise ValueError(f"never_split {never!r:.60} in {CONFIG} is not supported: make them added tokens")
    readable = {"vocab.txt": LIKE_BERT, "vocab.json": (*GENERIC, *LIKE_ROBERTA)}.get(file)
    if readable is not None and name is not None and name not in readable:
        raise ValueError(f"tokenizer_class {name!r:.60} is not supported without a tokenizer.json: it may split words")


def _list(values: Mapping[str, Any], key: str) -> list[Any]:
    """Returns a list of tokens; transformers 5 also writes objects, whose values are the tokens."""
    found = values.get(key) or []
    if not isinstance(found, list | dict):
        raise ValueError(f"{key} beside it must be a list of tokens, got {found!r:.60}")
    return list(found.values()) if isinstance(found, dict) else found


def _content(value: Any) -> str | None:
    """Returns the text of a token in a config: a string, or an object with its `content`."""
    value = value.get("content") if isinstance(value, dict) else value
    return value if isinstance(value, str) else None


def _added_tokens(folder: Path, config: Mapping[str, Any], special: Mapping[str, Any]) -> Iterator[Added]:
    """Yields the added tokens of all files; added_tokens.json counts if the config has no `added_tokens_decoder`."""
    listed: dict[str, tuple[Any, str]] = {}
    for values, file in ((config, CONFIG), (special, SPECIAL_MAP)):
        for key in LISTS:
            for token in _list(values, key):
                listed.setdefault(_content(token) or "", (token, file))
    with_ids = []
    if "added_tokens_decoder" in config:
        for number, options in _items(config["added_tokens_decoder"], CONFIG):
            with_ids.append(Added(_token(options, CONFIG, special=False), _number(number, CONFIG), CONFIG))
    else:
        for content, number in _read_object(folder / ADDED).items():
            with_ids.append(Added(_token(content, ADDED, special=content in listed), _number(number, ADDED), ADDED))
    with_ids.sort(key=lambda added: added.id or 0)
    yield from with_ids
    known = {added.token.content for added in with_ids} | {*SPECIAL_TOKENS}
    for content, (token, file) in listed.items():
        if content not in known:
            yield Added(_token(token, file, special=True), None, file)


def _items(values: Any, file: str) -> Any:
    if not isinstance(values, dict):
        raise ValueError(f"the added tokens in the {file} beside it are not an object but {type(values).__name__}")
    return values.items()


def _number(value: Any, file: str) -> int:
    """Returns an id, which is a string where it is a key of JSON."""
    if type(value) is int or (isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 10):
        return int(value)
    raise ValueError(f"the {file} beside it gives an added token the id {value!r:.60}")


def _token(value: Any, file: str, *, special: bool) -> tokenizers.AddedToken:
    """Returns an added token from its text, or from an object with its options."""
    content = _content(value)
    if not content:
        raise ValueError(f"the {file} beside it has an added token without text: {value!r:.60}")
    options = value if isinstance(value, dict) else {}
    special = bool(options.get("special", special))
    flags = {name: bool(options.get(name, False)) for name in ("single_word", "lstrip", "rstrip")}
    normalized = bool(options.get("normalized", not special))
    return tokenizers.AddedToken(content, special=special, normalized=normalized, **flags)
