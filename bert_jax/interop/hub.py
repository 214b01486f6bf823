"""Models from the Hugging Face hub, through `huggingface_hub`: its cache, its tokens, its offline mode.

Only the files that are needed are downloaded, all from one commit. Without network the cache is used.
"""

import os
import queue
import threading
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import huggingface_hub as hub
from huggingface_hub.errors import EntryNotFoundError

from bert_jax.interop.formats.tensors import first_line
from bert_jax.interop.formats.weights import INDEX, READERS, shard_names

TIMEOUT = 5.0  # seconds to wait for the hub's first answer, unless HF_HUB_ETAG_TIMEOUT is set


def fetch(name: str, revision: str | None = None, *, files: Sequence[str]) -> Path:
    """Returns the cache folder of a model on the hub, after downloading its config, its weights and `files`.

    Args:
        name: `bert-base-uncased`, `owner/model`.
        revision: a branch, tag or commit; default: the newest commit.
        files: further files, downloaded if they exist.

    Raises:
        FileNotFoundError: no such model, or neither network nor a copy in the cache.
    """
    reason = _why_unavailable(name, revision)
    download = partial(hub.hf_hub_download, name, local_files_only=reason is not None)
    try:
        folder = Path(download("config.json", revision=revision)).parent
    except (EntryNotFoundError, ValueError) as error:
        raise FileNotFoundError(
            f"{name}: not a folder, and not a model in the cache of the Hugging Face hub or on the hub "
            f"({reason or first_line(error)})"
        ) from None

    def try_download(file: str) -> bool:
        # The commit that config.json came from, so that all files are of the same one.
        try:
            return bool(download(file, revision=folder.name))
        except EntryNotFoundError:
            return False

    for file in files:
        try_download(file)
    for weights in READERS:
        if try_download(weights):
            return folder
        if try_download(weights + INDEX):
            for shard in shard_names(folder / (weights + INDEX)):
                download(shard, revision=folder.name)
            return folder
    raise FileNotFoundError(f"{name}: has none of {', '.join(READERS)} ({reason or 'on the hub'})")


def _why_unavailable(name: str, revision: str | None) -> str | None:
    """Returns why the hub does not serve this model's config, or None if it does; in at most `TIMEOUT` seconds.

    `huggingface_hub` itself retries an unreachable hub for half a minute.
    """
    timeout = float(os.environ.get("HF_HUB_ETAG_TIMEOUT", TIMEOUT))
    answers: queue.SimpleQueue[str | None] = queue.SimpleQueue()

    def request() -> None:
        try:
            hub.get_hf_file_metadata(hub.hf_hub_url(name, "config.json", revision=revision), timeout=timeout)
            answers.put(None)
        except Exception as error:  # the HTTP library's exceptions are not part of huggingface_hub's interface
            answers.put(f"{type(error).__name__}: {first_line(error)}")

    # In a thread, because name resolution has no timeout and a host's addresses are tried one after the other. A
    # daemon, because the program must not wait for it at exit.
    threading.Thread(target=request, daemon=True).start()
    try:
        return answers.get(timeout=timeout)
    except queue.Empty:
        return f"no answer within {timeout:g} seconds; HF_HUB_ETAG_TIMEOUT changes that"
