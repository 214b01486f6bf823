"""Token stores in memory."""

import hashlib
from collections.abc import Sequence

import numpy as np

from bert_jax.data.pretraining.token_store import TokenStore


def store_of(documents: Sequence[Sequence[Sequence[int]]]) -> TokenStore:
    """Returns a store of documents, lists of sentences of token ids; empty ones are dropped, as in a corpus."""
    kept = [[sentence for sentence in document if len(sentence)] for document in documents]
    kept = [document for document in kept if document]
    sentences = [np.asarray(sentence, np.int32) for document in kept for sentence in document]
    ids = np.concatenate([np.zeros(0, np.int32), *sentences])
    sentence_offsets = np.cumsum([0, *map(len, sentences)], dtype=np.int64)
    document_offsets = np.cumsum([0, *map(len, kept)], dtype=np.int64)
    content = b"".join(array.tobytes() for array in (ids, sentence_offsets, document_offsets))
    return TokenStore([ids], sentence_offsets, document_offsets, hashlib.sha256(content).hexdigest())
