"""Models from the Hugging Face hub, by `huggingface_hub`: its cache, its tokens, its offline mode.

Only what is needed of a model is downloaded, and all of it from one state of the repository. Without network, what is
in the cache serves.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import huggingface_hub as hub
from huggingface_hub.errors import EntryNotFoundError

from bert_jax.interop.formats.tensors import one_line
from bert_jax.interop.formats.weights import INDEX, READERS, parts

VOCABULARY = ("tokenizer.json", "tokenizer_config.json", "vocab.txt")


def fetch(name: str, revision: str | None = None, *, also: Sequence[str] = ()) -> Path:
    """Returns the folder in the cache that holds a model of the hub.

    Args:
        name: `bert-base-uncased`, `owner/model`.
        revision: a branch, tag or commit; default: the newest state.
        also: files that are wanted beside config, vocabulary and weights, if they are there.

    Raises:
        FileNotFoundError: no such model, or neither network nor a copy in the cache.
    """
    reason = unreachable(name, revision)
    download = partial(hub.hf_hub_download, name, local_files_only=reason is not None)
    try:
        folder = Path(download("config.json", revision=revision)).parent
    except (EntryNotFoundError, ValueError) as error:
        raise FileNotFoundError(
            f"{name}: no such folder, and no such model in the cache of the Hugging Face hub or to be had from there "
            f"({reason or one_line(error)})"
        ) from None

    def obtain(file: str) -> bool:
        try:
            return bool(download(file, revision=folder.name))
        except EntryNotFoundError:
            return False

    for file in (*VOCABULARY, *also):
        obtain(file)
    for weights in READERS:
        if obtain(weights):
            return folder
        if obtain(weights + INDEX):
            for part in parts(folder / (weights + INDEX)):
                download(part, revision=folder.name)
            return folder
    raise FileNotFoundError(f"{name}: none of {', '.join(READERS)} there ({reason or 'on the hub'})")


def unreachable(name: str, revision: str | None) -> str | None:
    """Returns why the hub does not give out this model's config now, or None where it does.

    Asked once and not again: the library itself goes on trying for half a minute.
    """
    try:
        hub.get_hf_file_metadata(hub.hf_hub_url(name, "config.json", revision=revision))
    except Exception as error:  # of whichever HTTP package the library is built on
        return f"{type(error).__name__}: {one_line(error)}"
    return None
