"""Workers get little through their pipe; one that dies at its start is an error, and never blocks this process."""

import multiprocessing.spawn
import pickle
import threading
from multiprocessing import resource_tracker
from pathlib import Path

import datasets
import numpy as np
import pytest
from token_stores import store_of

from bert_jax.data import prefetch
from bert_jax.data.prefetch import Batches
from bert_jax.data.pretraining.loader import BatchSettings, training_batches
from bert_jax.data.pretraining.masking import Vocabulary
from bert_jax.data.pretraining.token_store import tokenize_corpus
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.vocabulary import wordpiece

PIPE = 1 << 16  # bytes that a pipe holds
SECONDS = 60


def large_tokenizer() -> Tokenizer:
    pieces = [f"{prefix}w{number}" for number in range(PIPE) for prefix in ("", "##")][: PIPE + PIPE // 3]
    return Tokenizer(wordpiece(pieces, lowercase=True, strip_accents=None))


def make_batches() -> None:
    store = store_of([[[5, 7], [11]], [[13]]])
    vocabulary = Vocabulary.of(large_tokenizer())
    settings = BatchSettings(max_length=19)
    with training_batches(store, vocabulary, settings, batch_size=2, num_workers=2) as batches:
        next(batches)


def tokenize(folder: Path) -> None:
    documents = datasets.Dataset.from_dict({"text": ["w1 w2. w3."] * 7})
    tokenize_corpus(documents, large_tokenizer(), cache_dir=folder, num_proc=2)


def number(index: int) -> dict[str, np.ndarray]:
    return {"number": np.array(index)}


def error_of(function, *arguments) -> BaseException | None:
    """Returns the exception of a call; fails if the call does not return."""
    errors = []

    def call() -> None:
        try:
            function(*arguments)
        except RuntimeError as error:
            errors.append(error)

    thread = threading.Thread(target=call, daemon=True)
    thread.start()
    thread.join(SECONDS)
    assert not thread.is_alive()
    return errors[0] if errors else None


@pytest.fixture
def dying_workers(monkeypatch):
    """Starts worker processes that end before they read anything."""
    resource_tracker.ensure_running()
    monkeypatch.setattr(multiprocessing.spawn, "_python_exe", b"/bin/false")


def test_batches_of_workers_that_die_at_their_start_are_an_error(dying_workers):
    error = error_of(make_batches)
    assert "makes batches has died: memory ran out, or the script has no `if __name__" in str(error)
    assert "`num_workers=0` starts no process" in str(error)


def test_tokenizing_with_workers_that_die_at_their_start_is_an_error(dying_workers, tmp_path):
    error = error_of(tokenize, tmp_path)
    assert "a tokenizing process has died: memory ran out, or the script has no `if __name__" in str(error)
    assert list(tmp_path.iterdir()) == []


def test_a_vocabulary_of_any_usual_size_fits_in_a_pipe():
    vocabulary = Vocabulary.of(large_tokenizer())
    _ = vocabulary.ordinary_ids  # is not sent
    sent = pickle.dumps(vocabulary)
    assert len(sent) < PIPE / 4
    received = pickle.loads(sent)
    assert received.vocab_size == vocabulary.vocab_size
    np.testing.assert_array_equal(received.continuation, vocabulary.continuation)
    np.testing.assert_array_equal(received.special_ids, vocabulary.special_ids)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_only_batches_of_workers_end_with_a_collection(num_workers, monkeypatch):
    """It takes a few tenths of a second, after each evaluation."""
    collected = []
    monkeypatch.setattr(prefetch.gc, "collect", lambda: collected.append(True))
    with Batches(number, count=3, position=lambda returned: {}, num_workers=num_workers) as batches:
        assert [batch["number"].item() for batch in batches] == [0, 1, 2]
    assert len(collected) == num_workers
