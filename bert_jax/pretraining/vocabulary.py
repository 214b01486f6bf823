"""The tokenizer of a pretraining run: its own when it is resumed, one that is given, or one trained on its text."""

import hashlib
import json
from functools import partial
from pathlib import Path

import tokenizers
from datasets import Dataset

from bert_jax.data.readers.cache import new_folder
from bert_jax.data.readers.sources import Texts
from bert_jax.pretraining.settings import TOKENIZER_HASH, Settings
from bert_jax.text.cleaning import letter_options
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training.devices import processes

VOCABULARY_FORMAT = 2  # increase it when the same documents and settings give another vocabulary


def make_tokenizer(settings: Settings, documents: Dataset) -> Tokenizer:
    """Returns the tokenizer: a resumed run's own, the one that the settings name, or one trained on the documents."""
    given = given_tokenizer(settings)
    if given is not None:
        return given

    # Only the first process trains a vocabulary; the others, which may run on other machines, receive its bytes.
    return Tokenizer.of(
        processes.broadcast_from_first("the vocabulary is trained", partial(_train_vocabulary, settings, documents))
    )


def given_tokenizer(settings: Settings) -> Tokenizer | None:
    """Returns the tokenizer of the resumed run, or the one that the settings name; None if it is to be trained."""
    # The embeddings of a resumed run belong to the token ids of the vocabulary that it began with.
    if settings.is_resumed:
        return Tokenizer.load(settings.run.output)
    return Tokenizer.load(settings.text.tokenizer) if settings.text.tokenizer else None


def tokenizer_hash(settings: Settings) -> dict[str, str]:
    """Returns a hash of the vocabulary that the settings name, by its name in training.json, if they name one."""
    given = settings.text.tokenizer
    if not given or not Path(given).exists():
        return {}
    return {TOKENIZER_HASH: Tokenizer.load(given).fingerprint[:16]}


def _train_vocabulary(settings: Settings, documents: Dataset) -> bytes:
    """Returns the tokenizer.json of a vocabulary trained on the documents; it is kept in the cache."""
    text = settings.text
    options = {
        "vocab_size": settings.model.vocab_size,
        "kind": text.tokenizer_kind,
        **letter_options(text.language, lowercase=text.lowercase, strip_accents=text.strip_accents),
        "min_frequency": text.min_frequency,
    }
    made_from = [VOCABULARY_FORMAT, tokenizers.__version__, documents._fingerprint, options]
    digest = hashlib.sha256(json.dumps(made_from).encode()).hexdigest()
    folder = Path(text.cache_dir) / f"vocabulary-{digest}"
    if not folder.is_dir():
        print(f"training a {text.tokenizer_kind} vocabulary of {settings.model.vocab_size:,} tokens")
        tokenizer = Tokenizer.train(Texts(documents), **options)
        with new_folder(folder) as unfinished:
            (unfinished / "tokenizer.json").write_text(tokenizer.backend.to_str(), encoding="utf-8")
    try:
        tokenizer = Tokenizer.load(folder)
    except (ValueError, OSError) as error:
        raise ValueError(f"{folder}: not a cached vocabulary ({error!r:.200}); delete it") from None
    return tokenizer.backend.to_str().encode()
