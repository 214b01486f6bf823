"""The manifest of a store: its inputs, cut into parts, and every setting that decides a token; it is written first."""

import json
import os
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bert_jax.data.preparation.inputs import Input, Piece, find_inputs, make_parts
from bert_jax.data.preparation.sealed import Content, digest, make_once, write_whole
from bert_jax.data.preparation.settings import Preparation
from bert_jax.data.pretraining import token_store
from bert_jax.text.tokenizer import Tokenizer

FORMAT = 1  # increase it when the same manifest gives other tokens
MANIFEST = "manifest.json"
STORE = "store.json"
SIDES = ("train", "held_out")


def versions() -> dict[str, Any]:
    """Returns the versions that decide tokens: of formats, of libraries, of Unicode."""
    libraries = {name: version(name) for name in ("tokenizers", "sentencex")}
    return {"format": FORMAT, "tokens": token_store.FORMAT, **libraries, "unicode": unicodedata.unidata_version}


@dataclass(frozen=True)
class Manifest:
    """What is prepared.

    Attributes:
        tokenizer: fingerprint of the given tokenizer; None if one is to be trained.
        versions: see `versions`.
        parts: the pieces of each part.
    """

    settings: Preparation
    tokenizer: str | None
    versions: dict[str, Any]
    inputs: list[Input]
    parts: list[list[Piece]]
    digest: str

    @property
    def has_survey(self) -> bool:
        """Whether the text is read once before it is tokenized."""
        return self.tokenizer is None or self.settings.drop_duplicates

    @classmethod
    def load(cls, store: Path) -> "Manifest":
        """Loads the manifest of a store.

        Raises:
            ValueError: there is none, or it is damaged, or other versions than those here wrote it.
        """
        path = store / MANIFEST
        try:
            found = _load(path, path.stat().st_mtime_ns)
        except FileNotFoundError:
            raise ValueError(f"{store} has no {MANIFEST}: it is no store of `bert-jax prepare`") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path}: not a manifest ({error!r:.200})") from None
        here = versions()
        for name, wanted in found.versions.items():
            if here.get(name) != wanted:
                raise ValueError(
                    f"{path} was written with {name} {wanted}, here is {here.get(name)}: tokens could differ"
                )
        return found


@lru_cache(maxsize=2)
def _load(path: Path, _changed_at: int) -> Manifest:
    content = json.loads(path.read_text(encoding="utf-8"))
    return Manifest(
        Preparation.of(str(path.parent), content["settings"]),
        content["tokenizer"],
        content["versions"],
        [Input(source, kind, name, tuple(seen)) for source, kind, name, seen in content["inputs"]],
        [[Piece(*piece) for piece in part] for part in content["parts"]],
        digest(content),
    )


def begin_store(settings: Preparation) -> Manifest:
    """Writes the manifest and the given tokenizer, or loads those of a store that was begun.

    Raises:
        ValueError: settings that cannot be used, or others than those of the store; inputs that have changed.
        OSError, ImportError: an input that cannot be found.
    """
    store = Path(settings.output)
    tokenizer = None if settings.tokenizer is None else Tokenizer.load(settings.tokenizer)
    content = None if (store / MANIFEST).exists() else _plan(store, settings, tokenizer)
    if content is None:
        _require_same(Manifest.load(store), settings, tokenizer)
    if tokenizer is not None:

        def save(folder: Path) -> Content:
            tokenizer.save(folder)
            return {}

        make_once(store / "tokenizer", tokenizer.fingerprint, save)
    if content is not None:
        write_whole(store / MANIFEST, json.dumps(content, ensure_ascii=False))
    return Manifest.load(store)


def _plan(store: Path, settings: Preparation, tokenizer: Tokenizer | None) -> dict[str, Any] | None:
    """Returns the manifest to be written; None if another process was quicker."""
    settings.check()
    inputs, parts = make_parts(find_inputs(settings.corpus), settings)
    store.mkdir(parents=True, exist_ok=True)
    names = {path.name for path in store.iterdir() if not path.name.startswith(".")}
    if MANIFEST in names:
        return None
    if names - {"tokenizer"}:
        raise ValueError(f"{store} is not empty, and is no store of `bert-jax prepare`: choose another `output`")
    return {
        "settings": settings.deciding(),
        "tokenizer": None if tokenizer is None else tokenizer.fingerprint,
        "versions": versions(),
        "inputs": inputs,
        "parts": parts,
    }


def _require_same(manifest: Manifest, settings: Preparation, tokenizer: Tokenizer | None) -> None:
    """Raises ValueError unless the settings, those that are given, are those of the manifest, and the inputs too."""
    wanted = settings.deciding()
    default = Preparation("").deciding()
    kept = manifest.settings.deciding()
    for name, value in wanted.items():
        if value != kept[name] and (settings.corpus or value != default[name]):
            raise ValueError(
                f"{settings.output} was begun with `{name}={kept[name]}`, not {value}: choose another `output`"
            )
    if tokenizer is not None and tokenizer.fingerprint != manifest.tokenizer:
        raise ValueError(f"{settings.output} was begun with another tokenizer than {settings.tokenizer}")
    if settings.corpus:
        known = {one.name: one for one in manifest.inputs}
        found = {one.name: one for one, _ in find_inputs(settings.corpus)}
        for name in sorted(known.keys() | found.keys()):
            if known.get(name) != found.get(name):
                what = "changed" if name in known and name in found else "vanished" if name in known else "appeared"
                raise ValueError(f"{name} has {what} since {settings.output} was begun: choose another `output`")


@contextmanager
def naming_part(number: int) -> Iterator[None]:
    """Puts the number of a part in front of the message of an error, which names the file."""
    try:
        yield
    except (OSError, ValueError, ImportError) as error:
        raise ValueError(f"part {number}: {reason(error)}") from None


def reason(error: Exception) -> str:
    """Returns an error as `FILE: what went wrong` where a system call failed."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else os.strerror(error.errno or 0)
    return str(error)


def part_name(number: int) -> str:
    """Returns the name of a part's folder."""
    return f"part-{number:05d}"
