"""A store of parts: how it is finished, and how it is opened for training."""

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bert_jax.data.preparation.manifest import MANIFEST, SIDES, STORE, Manifest, part_name
from bert_jax.data.preparation.report import SourceReport, merge_reports
from bert_jax.data.preparation.sealed import SEAL, Content, digest, make_once, write_whole
from bert_jax.data.pretraining.array_files import map_array
from bert_jax.data.pretraining.token_store import TokenStore, write_offsets
from bert_jax.data.readers.cache import abandoned_folders
from bert_jax.messages import counted
from bert_jax.text.tokenizer import Tokenizer

COUNTS = ("documents", "sentences", "tokens", "unknown_tokens")
KEYS = {"fingerprint", "tokenizer", "settings", *SIDES, "sources", "parts"}  # of store.json


def finish(store: Path, parts: Sequence[Content]) -> list[SourceReport]:
    """Stage 3: joins the offsets of all parts and writes store.json; returns the report of each source.

    Args:
        parts: what `prepare_part` returned for each part, in their order.

    Raises:
        ValueError: no document on one side.
    """
    manifest = Manifest.load(store)
    for side, name in zip(SIDES, ("to train on", "held out"), strict=True):
        if not any(part[side]["tokens"] for part in parts):
            raise ValueError(
                f"{store}: no document {name} with `held_out={manifest.settings.held_out}`: choose another one, and "
                "another `output`"
            )
    fingerprint = digest([part["files"] for part in parts])
    sides = {side: _join(store, side, parts, fingerprint) for side in SIDES}
    content = describe_store(store, parts, sides)
    write_whole(store / STORE, json.dumps(content, ensure_ascii=False))
    for unfinished in abandoned_folders(store, other_machines=True):
        shutil.rmtree(unfinished, ignore_errors=True)
    return reports_of(content)


def describe_store(store: Path, parts: Sequence[Content], sides: Mapping[str, Content]) -> dict[str, Any]:
    """Returns what store.json says of the parts, what `prepare_part` returned for each, and of both sides."""
    reports = merge_reports(part["sources"] for part in parts)
    return {
        "fingerprint": digest([part["files"] for part in parts]),
        "tokenizer": Tokenizer.load(store / "tokenizer").fingerprint,
        "settings": Manifest.load(store).settings.deciding(),
        **{side: {name: sides[side][name] for name in COUNTS} for side in SIDES},
        "sources": [report.as_dict() for report in reports],
        "parts": [[part[side]["tokens"] for side in SIDES] for part in parts],
    }


def reports_of(content: Mapping[str, Any]) -> list[SourceReport]:
    """Returns the report of each source, given store.json."""
    return merge_reports({saved["source"]: saved} for saved in content["sources"])


def _join(store: Path, side: str, parts: Sequence[Content], fingerprint: str) -> Content:
    """Writes the offsets of one side of all parts, unless they are there; returns its counts."""
    folders = [store / part_name(part["number"]) / side for part in parts]
    counts = {name: sum(part[side][name] for part in parts) for name in COUNTS}

    def lengths(name: str) -> Iterator[np.ndarray]:
        return (np.diff(map_array(folder / f"{name}_offsets.npy")) for folder in folders)

    def write(folder: Path) -> Content:
        ids = [
            [f"../{path.parent.name}/{side}/ids.npy", part[side]["tokens"], (path / "ids.npy").stat().st_size]
            for path, part in zip(folders, parts, strict=True)
            if part[side]["tokens"]
        ]
        content = {
            "unknown_tokens": counts["unknown_tokens"],
            "split_sentences": 0,
            "fingerprint": digest([fingerprint, side]),
            "ids": ids,
        }
        write_offsets(folder, lengths("sentence"), lengths("document"), content)
        return counts

    return make_once(store / side, [fingerprint, side], write)


@dataclass(frozen=True)
class PreparedCorpus:
    """A complete store.

    Attributes:
        content: of store.json.
    """

    folder: Path
    content: dict[str, Any]
    tokenizer: Tokenizer
    train: TokenStore
    held_out: TokenStore

    @classmethod
    def open(cls, folder: Path) -> "PreparedCorpus":
        """Opens a store.

        Raises:
            ValueError: it is not complete, or a file is missing or has another size.
        """
        remedy = f"run `bert-jax prepare --output {folder}`"
        try:
            content = json.loads((folder / STORE).read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ValueError(f"{folder} is not complete: {_missing(folder)}; {remedy}") from None
        except ValueError as error:
            raise ValueError(f"{folder / STORE}: {error}; {remedy}") from None
        if not isinstance(content, dict) or not content.keys() >= KEYS:
            raise ValueError(f"{folder / STORE} is damaged; {remedy}")
        tokenizer = Tokenizer.load(folder / "tokenizer")
        if tokenizer.fingerprint != content["tokenizer"]:
            raise ValueError(f"{folder / 'tokenizer'} is not the tokenizer of the store; {remedy}")
        try:
            sides = [TokenStore.open(folder / side) for side in SIDES]
            for side in sides:
                side.require_files()
        except ValueError as error:
            raise ValueError(f"{str(error).removesuffix('; delete it')}; {remedy}") from None
        return cls(folder, content, tokenizer, *sides)

    def reports(self) -> list[SourceReport]:
        """Returns the report of each source."""
        return reports_of(self.content)


def is_store(folder: Path) -> bool:
    """Returns whether a folder is a store, complete or not."""
    return (folder / STORE).is_file() or (folder / MANIFEST).is_file()


def _missing(folder: Path) -> str:
    """Returns which parts of a store are missing: `parts 3, 5-7 of 10 are missing`."""
    number = len(Manifest.load(folder).parts)
    missing = [part for part in range(number) if not (folder / part_name(part) / SEAL).exists()]
    if not missing:
        return "its parts are not joined"
    ranges: list[list[int]] = []
    for part in missing:
        if ranges and part == ranges[-1][1] + 1:
            ranges[-1][1] = part
        else:
            ranges.append([part, part])
    named = ", ".join(f"{first}-{last}" if first < last else str(first) for first, last in ranges[:20])
    more = ", ..." if len(ranges) > 20 else ""
    return f"{counted(len(missing), 'part')} of {number:,} missing ({named}{more})"
