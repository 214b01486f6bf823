"""Flags and a corpus for pretraining runs that take seconds."""

from pathlib import Path

import numpy as np

from bert_jax.pretraining.corpus import Corpus, Documents
from bert_jax.pretraining.settings import Settings
from bert_jax.pretraining.vocabulary import make_tokenizer

SMALL = [
    "--preset", "tiny", "--num-hidden-layers", "1", "--hidden-size", "16", "--num-attention-heads", "2",
    "--intermediate-size", "32", "--max-length", "24", "--batch-size", "8", "--vocab-size", "150", "--steps", "6",
    "--warmup-steps", "3", "--decay-steps", "50", "--learning-rate", "1e-2", "--log-every", "1", "--quiet",
]  # fmt: skip
WORDS = ["the", "a", "film", "story", "scene", "was", "is", "good", "bad", "long", "loved", "never", "watched", "again"]


def write_corpus(path: Path) -> Path:
    """Writes 60 documents of random sentences."""
    random = np.random.default_rng(0)
    documents = []
    for _ in range(60):
        sentences = [" ".join(random.choice(WORDS, random.integers(4, 9))) + "." for _ in range(random.integers(3, 8))]
        documents.append("\n".join(sentence.capitalize() for sentence in sentences))
    path.write_text("\n\n".join(documents))
    return path


def tokenized_corpus(settings: Settings) -> Corpus:
    """Returns the corpus that a new run with these settings trains on."""
    documents = Documents.read(settings)
    return Corpus.of(settings, documents, make_tokenizer(settings, documents.train))
