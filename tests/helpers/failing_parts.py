"""Parts that are interrupted, in processes of their own."""

import os
import signal
import sys
import time
from pathlib import Path

from small_stores import small_preparation

from bert_jax.data.preparation import inputs, parts, settings
from bert_jax.data.preparation.engines.local import local
from bert_jax.data.preparation.parts import prepare_part
from bert_jax.data.preparation.program import prepare

PART = 3


def _die(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def dies(store: Path, number: int) -> dict:
    """`prepare_part` in a process that is killed in the middle of a part."""
    if number == PART:
        parts.TokenStoreWriter.append = _die
    return prepare_part(store, number)


def dies_once(store: Path, number: int) -> dict:
    """The same, the first time only."""
    marker = store.with_name(f"{store.name}.died")
    if number == PART and not marker.exists():
        marker.touch()
        return dies(store, number)
    return prepare_part(store, number)


def hangs(store: Path, number: int) -> dict:
    """`prepare_part` that does not end in the middle of a part."""
    if number == PART:
        parts.TokenStoreWriter.append = lambda *_: time.sleep(997)
    return prepare_part(store, number)


def driver(folder: Path, *corpus: str) -> None:
    """Prepares with two processes, one of which hangs."""
    settings.MEBI, inputs.SMALLEST_COST = 1 << 10, 97
    prepare(small_preparation(folder, corpus), lambda _, *rest: local(2)(hangs, *rest))


if __name__ == "__main__":
    driver(Path(sys.argv[1]), *sys.argv[2:])
