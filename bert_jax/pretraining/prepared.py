"""A store of `bert-jax prepare` as the corpus of a run: `train.py --corpus STORE`."""

from pathlib import Path

from bert_jax.data.preparation.remote import fetch_store, is_remote_store
from bert_jax.data.preparation.store import PreparedCorpus, is_store
from bert_jax.data.readers.remote import is_url
from bert_jax.data.readers.sources import find_files
from bert_jax.pretraining.settings import Settings, Text
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training.devices import processes

# Settings of the text that were decided when the store was prepared.
DECIDED = (
    "text_column", "encoding", "document", "drop_duplicates", "language", "held_out", "tokenizer_kind", "add_tokens",
    "min_frequency", "lowercase", "strip_accents",
)  # fmt: skip


def store_of(settings: Settings) -> str | None:
    """Returns the store that is the corpus, a folder or a URL; None if the corpus is text.

    Raises:
        ValueError: a store that is not the only source.
    """
    stores = [source for source in settings.text.corpus if _names_store(source)]
    if stores and len(settings.text.corpus) > 1:
        raise ValueError(f"{stores[0]} is a prepared corpus, which must be the only one in `corpus`")
    return stores[0] if stores else None


def _names_store(source: str) -> bool:
    return is_remote_store(source) if is_url(source) else is_store(Path(source).expanduser())


def check_store(settings: Settings) -> None:
    """Raises ValueError for settings of the text that belong to the preparation of the store."""
    store = store_of(settings)
    if store is None:
        return
    for name in DECIDED:
        value = getattr(settings.text, name)
        if value != getattr(Text(), name):
            raise ValueError(
                f"`{name}={value}` has no effect on {store}, whose tokens were made before: it belongs to "
                "`bert-jax prepare`"
            )


def open_prepared(settings: Settings, known: Tokenizer | None) -> PreparedCorpus | None:
    """Opens the store that is the corpus; None if the corpus is text.

    A remote store is copied to the cache once.

    Args:
        known: the tokenizer of the model that the run continues from, or the one that the settings name.

    Raises:
        ValueError: a store that is not complete or is damaged, or one of another tokenizer.
    """
    store = store_of(settings)
    if store is None:
        return None
    print(f"opening {store}")
    if is_url(store):
        with processes.first_process_first("the store is copied"):
            folder = fetch_store(store, Path(settings.text.cache_dir))
    else:
        folder = Path(store).expanduser()
    prepared = PreparedCorpus.open(folder)
    if known is not None and known.fingerprint != prepared.tokenizer.fingerprint:
        other = settings.run.output if settings.is_resumed else settings.run.model or settings.text.tokenizer
        raise ValueError(f"{store} was prepared with another tokenizer than that of {other}")
    return prepared


def tokenizer_source(settings: Settings) -> str | None:
    """Returns where the tokenizer of a run is before its text is read; None if it is unknown until then."""
    if settings.is_resumed:
        return settings.run.output
    store = store_of(settings)
    if settings.text.tokenizer is None and store is not None and not is_url(store):
        return str(Path(store).expanduser() / "tokenizer")
    return settings.text.tokenizer


def require_corpus(settings: Settings) -> None:
    """Raises OSError unless there are the files of the corpus; a dataset on the hub is not looked up."""
    if store_of(settings) is None:
        for source in settings.text.corpus:
            find_files(source)
