"""Models from the Hugging Face hub, through `huggingface_hub`: its cache, its tokens, its offline mode.

Only the files that are needed are downloaded, all from one commit. Without network the cache is used.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import huggingface_hub as hub
from huggingface_hub.errors import EntryNotFoundError

from bert_jax.data.readers.hub import request_file
from bert_jax.interop.formats.weights import INDEX, READERS, shard_names
from bert_jax.messages import first_line


def fetch(name: str, revision: str | None = None, *, files: Sequence[str], beside: Mapping[str, Sequence[str]]) -> Path:
    """Returns the cache folder of a model on the hub, after downloading its config, its weights and `files`.

    Args:
        name: `bert-base-uncased`, `owner/model`.
        revision: a branch, tag or commit; default: the newest commit.
        files: further files, downloaded if they exist.
        beside: files that are asked for only if another one exists, by the name of that one.

    Raises:
        FileNotFoundError: no such model, or neither network nor a copy in the cache.
    """
    unavailable = request_file(name, "config.json", revision=revision)
    reason = f"{type(unavailable).__name__}: {first_line(unavailable)}" if unavailable else None
    download = partial(hub.hf_hub_download, name, local_files_only=unavailable is not None)
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
    for file, others in beside.items():
        if try_download(file):
            for other in others:
                try_download(other)
    for weights in READERS:
        if try_download(weights):
            return folder
        if try_download(weights + INDEX):
            for shard in shard_names(folder / (weights + INDEX)):
                download(shard, revision=folder.name)
            return folder
    raise FileNotFoundError(f"{name}: has none of {', '.join(READERS)} ({reason or 'on the hub'})")
