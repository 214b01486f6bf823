"""Reads a tokenizer from its files, and writes them: a vocabulary, and the settings beside it.

A tokenizer.json defines everything; a vocab.txt is a WordPiece vocabulary, and a vocab.json with a merges.txt a
byte-level BPE, as RoBERTa has it.

The number of a line of a vocab.txt is the id of its token. Of equal tokens the last one is used, as in transformers;
the lines before it keep their ids, which no text gets.
"""

import json
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, processors

from bert_jax.files import write_file
from bert_jax.text.layout import Layout
from bert_jax.text.special_tokens import find_roles, require_roles
from bert_jax.text.tokenizer_settings import CONFIG, Added, TokenizerSettings, read_settings
from bert_jax.text.vocabulary import SPECIAL_TOKENS, wordpiece

VOCABULARY = ("tokenizer.json", "vocab.txt", "vocab.json")  # the first that is there is read
MERGES = "merges.txt"  # beside vocab.json
SENTENCEPIECE = "*.model"  # sentencepiece.bpe.model, spiece.model
PROBE = "an owl, \u00e9\U0002a6a5"  # the last letter is in no vocabulary and gives [UNK]


def find_vocabulary(path: Path) -> Path:
    """Returns the vocabulary of a folder, or the file itself.

    Raises:
        FileNotFoundError: there is none.
    """
    if path.is_dir():
        found = [path / name for name in VOCABULARY if (path / name).is_file()]
        if not found:
            raise FileNotFoundError(no_vocabulary(path))
        return found[0]
    if not path.is_file():
        raise FileNotFoundError(f"no such vocabulary: {path}")
    return path


def no_vocabulary(folder: Path | None) -> str:
    """Returns the error about a folder without a vocabulary; it names SentencePiece's file if that is there."""
    files = [] if folder is None else sorted(folder.glob(SENTENCEPIECE))
    remedy = "its tokenizer, saved by transformers, has a tokenizer.json"
    return (
        f"{folder or 'the folder of the model'} has no vocabulary: neither {' nor '.join(VOCABULARY)}"
        f"{f'; {files[0].name} alone is not read: {remedy}' if files else ''}"
    )


def read_tokenizer(path: Path) -> tuple[tokenizers.Tokenizer, TokenizerSettings]:
    """Reads a vocabulary, one of the files of `VOCABULARY`, with the settings in its folder.

    Raises:
        ValueError: an invalid file, a setting that is not supported, or added tokens whose ids do not fit.
    """
    known = "tokenizer.json" if path.suffix == ".json" else "vocab.txt"
    has_merges = (path.parent / MERGES).is_file()
    if path.name == "vocab.json" and not has_merges:
        raise ValueError(f"there is no {MERGES} beside it")
    if has_merges and path.name != "tokenizer.json" and path.suffix == ".json":
        known = "vocab.json"
    settings = read_settings(path.parent, file=known)
    if known == "tokenizer.json":
        backend = _read_json(path)
        _follow_config(backend, settings, path)
    elif known == "vocab.json":
        backend = _read_merges(path, settings)
    else:
        backend = _read_vocabulary(path, settings)
    _add_tokens(backend, settings.added, path.name)
    return backend, settings


def write_tokenizer(
    folder: Path,
    backend: tokenizers.Tokenizer,
    roles: Mapping[str, str],
    *,
    layout: Layout,
    max_length: int | None,
    split_special_tokens: bool | None,
) -> None:
    """Writes tokenizer.json, tokenizer_config.json and, for WordPiece, vocab.txt, in the format of transformers.

    Args:
        roles: the special tokens, by role.
        layout: the special tokens around texts.
    """
    folder.mkdir(parents=True, exist_ok=True)
    normalizer = backend.normalizer
    config: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast"}
    if layout.segments:  # the generic class has no token types otherwise
        config["model_input_names"] = ["input_ids", "token_type_ids", "attention_mask"]
    vocabulary = backend.get_vocab()
    like_bert = Layout.bert(vocabulary[roles["cls"]], vocabulary[roles["sep"]])
    wordpiece_model = isinstance(backend.model, models.WordPiece)
    splits_like_bert = isinstance(normalizer, normalizers.BertNormalizer) and isinstance(
        backend.pre_tokenizer, pre_tokenizers.BertPreTokenizer
    )
    if wordpiece_model and splits_like_bert and layout == like_bert:  # transformers makes all of these for this class
        config = {
            "tokenizer_class": "BertTokenizer",
            "do_lower_case": normalizer.lowercase,
            "strip_accents": normalizer.strip_accents,
            "tokenize_chinese_chars": normalizer.handle_chinese_chars,
        }
        if not normalizer.clean_text:
            config["clean_text"] = False
    elif normalizer is None and wordpiece_model and isinstance(backend.pre_tokenizer, pre_tokenizers.WhitespaceSplit):
        config["do_basic_tokenize"] = False
    if max_length is not None:
        config["model_max_length"] = max_length
    if split_special_tokens is not None:
        config["split_special_tokens"] = split_special_tokens
    config |= {f"{role}_token": token for role, token in roles.items()}
    flags = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    config["added_tokens_decoder"] = {
        str(number): {flag: getattr(token, flag) for flag in flags}
        for number, token in sorted(backend.get_added_tokens_decoder().items())
    }
    write_file(folder / "tokenizer.json", backend.to_str(pretty=True))
    if wordpiece_model:
        own = backend.get_vocab(with_added_tokens=False)
        if sorted(own.values()) != list(range(len(own))):  # special tokens in tokenizer.json alone, at lower ids
            own = backend.get_vocab()
        write_file(folder / "vocab.txt", "".join(f"{line}\n" for line in vocabulary_lines(own)))
    write_file(folder / CONFIG, json.dumps(config, indent=2) + "\n")


def require_working(backend: tokenizers.Tokenizer) -> None:
    """Raises ValueError if a tokenizer fails on a text or on its own tokens."""
    with _no_panic():
        backend.encode(PROBE)
        backend.decode([*range(backend.get_vocab_size())])


def number_lines(lines: Sequence[str]) -> dict[str, int]:
    """Returns the ids of the tokens of a vocab.txt; of equal tokens the last one keeps its text.

    The others get a text that no word has, because it contains a space:

    >>> number_lines(["a", "b", "a"])
    {'a 0': 0, 'b': 1, 'a': 2}
    """
    last = {token: number for number, token in enumerate(lines)}
    return {token if last[token] == number else f"{token} {number}": number for number, token in enumerate(lines)}


def vocabulary_lines(vocabulary: Mapping[str, int]) -> list[str]:
    """Returns the lines of a vocab.txt; the inverse of `number_lines`."""

    def line(token: str, number: int) -> str:
        before = token.removesuffix(f" {number}")
        return before if vocabulary.get(before, -1) > number else token

    return [line(*item) for item in sorted(vocabulary.items(), key=lambda item: item[1])]


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
        return tokenizers.Tokenizer.from_str(path.read_text(encoding="utf-8"))


def _read_merges(path: Path, settings: TokenizerSettings) -> tokenizers.Tokenizer:
    """Reads a vocab.json and the merges.txt beside it as RoBERTa's byte-level BPE."""
    with _no_panic():
        model = models.BPE.from_file(str(path), str(path.parent / MERGES))
    backend = tokenizers.Tokenizer(model)
    prefix_space = bool(settings.prefix_space)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    backend.decoder = decoders.ByteLevel()
    roles = find_roles(backend, settings.roles)
    require_roles(backend, roles, settings.roles)
    vocabulary = backend.get_vocab()
    sep, cls = ((roles[role], vocabulary[roles[role]]) for role in ("sep", "cls"))
    backend.post_processor = processors.RobertaProcessing(sep, cls, add_prefix_space=prefix_space)
    if "mask" in roles:  # a mask takes the space before it with it, as the word does that it stands for
        backend.add_special_tokens([tokenizers.AddedToken(roles["mask"], lstrip=True, special=True)])
    return backend


def _read_vocabulary(path: Path, settings: TokenizerSettings) -> tokenizers.Tokenizer:
    # Only a line feed ends a line: other Unicode line breaks may be tokens.
    lines = path.read_bytes().decode("utf-8-sig").removesuffix("\n").split("\n")
    lines = [line.removesuffix("\r") for line in lines]
    vocabulary = number_lines(lines)
    if repeated := [number for number, token in enumerate(lines) if vocabulary.get(token) != number]:
        token = lines[repeated[0]]
        more = f", and {len(repeated) - 1} more lines" if len(repeated) > 1 else ""
        places = f"lines {repeated[0] + 1} and {vocabulary[token] + 1} are {'empty' if not token else repr(token)}"
        warnings.warn(f"{path}: {places}{more}: of equal tokens the last one is used", stacklevel=2)
    capitals = any(token != token.lower() for token in vocabulary if token not in SPECIAL_TOKENS)
    cleaning = {"lowercase": not capitals, **settings.cleaning}
    backend = wordpiece(
        vocabulary,
        lowercase=bool(cleaning["lowercase"]),
        strip_accents=cleaning.get("strip_accents"),
        chinese=cleaning.get("handle_chinese_chars") is not False,
    )
    if cleaning.get("clean_text") is False:
        backend.normalizer.clean_text = False
    if settings.whole_words:
        backend.normalizer = None
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return backend


def _follow_config(backend: tokenizers.Tokenizer, settings: TokenizerSettings, path: Path) -> None:
    """Applies the settings that a tokenizer_config.json gives otherwise than the tokenizer.json, with a warning."""
    _follow_prefix_space(backend, settings, path)
    normalizer = backend.normalizer
    if not isinstance(normalizer, normalizers.BertNormalizer):
        return
    options = {name: getattr(normalizer, name) for name in settings.cleaning}
    merged = {"strip_accents": normalizer.strip_accents, "lowercase": normalizer.lowercase, **settings.cleaning}
    same = dict(settings.cleaning)
    if _strips(merged) == _strips({"strip_accents": normalizer.strip_accents, "lowercase": normalizer.lowercase}):
        options.pop("strip_accents", None)  # null and true say the same of a lowercasing tokenizer
        same.pop("strip_accents", None)
    if options == same:
        return
    which = next(name for name in options if options[name] != same[name])
    difference = f"{which} is {same[which]} in {CONFIG} and {options[which]} in {path.name}"
    if settings.json_decides:
        warnings.warn(f"{path}: {difference}, which is used", stacklevel=2)
        return
    for name, value in settings.cleaning.items():
        setattr(normalizer, name, value)
    warnings.warn(f"{path}: {difference}; the config is used, as in transformers", stacklevel=2)


def _follow_prefix_space(backend: tokenizers.Tokenizer, settings: TokenizerSettings, path: Path) -> None:
    """Puts a space before texts, or none, if the config gives it otherwise than the tokenizer.json, with a warning."""
    splitter = backend.pre_tokenizer
    wanted = settings.prefix_space
    if wanted is None or not isinstance(splitter, pre_tokenizers.ByteLevel) or splitter.add_prefix_space == wanted:
        return
    splitter.add_prefix_space = wanted
    if isinstance(backend.post_processor, processors.RobertaProcessing):
        backend.post_processor.add_prefix_space = wanted
    difference = f"add_prefix_space is {wanted} in {CONFIG} or for its class and {not wanted} in {path.name}"
    warnings.warn(f"{path}: {difference}; the config is used, as in transformers", stacklevel=2)


def _strips(options: Mapping[str, bool | None]) -> bool | None:
    """Returns whether a normalizer with these options strips accents."""
    return options["lowercase"] if options["strip_accents"] is None else options["strip_accents"]


def _add_tokens(backend: tokenizers.Tokenizer, added: Iterable[Added], name: str) -> None:
    """Adds tokens, with the ids that they have in their file.

    Raises:
        ValueError: another token has the id, or the ids leave a hole.
    """
    known = {token.content for token in backend.get_added_tokens_decoder().values()}
    for token, number, file in added:
        found = backend.token_to_id(token.content)
        following = backend.get_vocab_size()
        if number is not None and number != (following if found is None else found):
            if found is not None:
                reason = f"in {name} it has {found}"
            elif number < following:
                reason = f"in {name} that is the id of {backend.id_to_token(number)!r:.60}"
            else:
                reason = f"no token has the id {following}"
            raise ValueError(f"{file} gives the added token {token.content!r:.60} the id {number}, but {reason}")
        if token.content not in known and token.content not in SPECIAL_TOKENS:
            backend.add_special_tokens([token]) if token.special else backend.add_tokens([token])
