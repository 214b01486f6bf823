"""A store holds the tokens of its corpus, for any number of processes and after any interruption."""

import os
import pickle
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import datasets
import numpy as np
import pytest
from token_stores import store_of

from bert_jax.data.pretraining import token_store as store_module
from bert_jax.data.pretraining.token_store import TokenStore, tokenize_corpus, write_offsets
from bert_jax.data.readers.corpus import split_documents
from bert_jax.text import vocabulary
from bert_jax.text.sentences import split_sentences
from bert_jax.text.tokenizer import Tokenizer

ROOT = Path(__file__).parents[3]
WORDS = ["ab", "cd", "ef", "gh", "Dr.", "ij", "kl", "mn", "op", "qr", "st"]


def random_texts(count: int) -> list[str]:
    draw = random.Random(count)

    def sentence() -> str:
        return " ".join(draw.choices(WORDS, k=draw.randint(1, 13))).capitalize() + "."

    texts = [" ".join(sentence() for _ in range(draw.randint(1, 11))) for _ in range(count)]
    texts[3], texts[5], texts[-1] = "", "\u200b\n\u200b", " \n "
    return texts


def documents_of(texts: list[str | None]) -> datasets.Dataset:
    return datasets.Dataset.from_dict({"text": texts})


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.train(random_texts(31), 61)


@pytest.fixture
def documents() -> datasets.Dataset:
    return documents_of(random_texts(211))


def content(store: TokenStore) -> list[list[list[int]]]:
    """Returns the documents of a store as lists of sentences of ids."""
    tokens, sentences = store.sentence_offsets.tolist(), store.document_offsets.tolist()
    return [
        [store.span(tokens[s], tokens[s + 1] - tokens[s]).tolist() for s in range(first, last)]
        for first, last in pairwise(sentences)
    ]


def run(program: str, *arguments: object, **options) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-W", "error", "-c", program, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT, **options)


# What a store holds


def test_a_store_returns_the_documents_it_was_made_from():
    documents = [[[5, 7, 11], [13]], [[17, 19]], [[23], [29, 31, 37, 41], [43]]]
    store = store_of(documents)
    assert content(store) == documents
    assert (store.num_documents, store.num_sentences, store.num_tokens) == (3, 6, 12)
    assert store.sentence_offsets.dtype == store.document_offsets.dtype == np.int64
    assert store.span(3, 1).tolist() == [13]
    assert store.span(7, 4).tolist() == [29, 31, 37, 41]


def test_a_corpus_becomes_the_tokens_of_its_sentences(documents, tokenizer, tmp_path):
    store = tokenize_corpus(documents, tokenizer, cache_dir=tmp_path)
    expected = []
    for text in documents["text"]:
        encoded = [tokenizer.backend.encode(s, add_special_tokens=False).ids for s in split_sentences(text)]
        expected.append([ids for ids in encoded if ids])
    assert content(store) == [document for document in expected if document]
    assert store.num_documents == 208


@pytest.mark.parametrize("characters", [1, 997, 10_007])
def test_processes_and_batch_sizes_do_not_change_the_result(documents, tokenizer, tmp_path, monkeypatch, characters):
    whole = content(tokenize_corpus(documents, tokenizer, cache_dir=tmp_path / "whole", num_proc=1))
    monkeypatch.setattr(vocabulary, "BATCH_CHARACTERS", characters)
    parts = tokenize_corpus(documents, tokenizer, cache_dir=tmp_path / "parts", num_proc=1)
    assert content(parts) == whole
    if characters == 997:
        several = tokenize_corpus(documents, tokenizer, cache_dir=tmp_path / "several", num_proc=3)
        assert content(several) == whole
        assert several.fingerprint == parts.fingerprint


def test_a_store_of_parts_reads_like_one_store_and_maps_what_is_read(documents, tokenizer, tmp_path):
    whole = tokenize_corpus(documents, tokenizer, cache_dir=tmp_path)
    ids, edges = whole.span(0, whole.num_tokens), whole.sentence_offsets[whole.document_offsets][[0, 7, 7, 97, -1]]
    files = []
    for first, last in pairwise(edges.tolist()):
        np.save(tmp_path / f"{len(files)}.npy", ids[first:last])
        files.append([f"../{len(files)}.npy", last - first, (tmp_path / f"{len(files)}.npy").stat().st_size])
    lengths = [np.diff(offsets) for offsets in (whole.sentence_offsets, whole.document_offsets)]
    (tmp_path / "parts").mkdir()
    counts = {"unknown_tokens": 1, "split_sentences": 0, "fingerprint": "f", "ids": files}
    write_offsets(tmp_path / "parts", *([part[:11], part[11:]] for part in lengths), counts)
    parts = pickle.loads(pickle.dumps(TokenStore.open(tmp_path / "parts")))
    assert (parts.fingerprint, parts.unknown_tokens) == ("f", 1)
    assert content(parts) == content(whole)
    parts = TokenStore.open(tmp_path / "parts")
    parts.require_files()
    np.save(tmp_path / "3.npy", ids[:-1])
    with pytest.raises(ValueError, match=r"3\.npy: .* bytes expected, found"):
        parts.require_files()
    assert parts.span(0, 3).tolist() == ids[:3].tolist()
    with pytest.raises(ValueError, match=r"3\.npy: .* tokens expected, found"):
        parts.span(int(edges[3]), 1)


@pytest.mark.parametrize(("vocab_size", "dtype"), [(65_536, np.uint16), (65_537, np.int32)])
def test_ids_take_two_bytes_if_they_fit(tmp_path, vocab_size, dtype):
    pieces = [f"w{number}" for number in range(vocab_size - 5)]
    tokenizer = Tokenizer(vocabulary.wordpiece(pieces, lowercase=True, strip_accents=None))
    text = f"w0 w1 w{vocab_size - 6}"
    store = tokenize_corpus(documents_of([text]), tokenizer, cache_dir=tmp_path)
    assert store.span(0, 3).dtype == dtype
    assert store.span(0, 3).tolist() == [5, 6, vocab_size - 1]


def test_tokens_cannot_be_overwritten(documents, tokenizer, tmp_path):
    store = tokenize_corpus(documents, tokenizer, cache_dir=tmp_path)
    with pytest.raises(ValueError, match="read-only"):
        store.span(0, 1)[0] = 3


def test_the_language_decides_how_sentences_are_split(tokenizer, tmp_path):
    documents = documents_of(["Am 3. Oktober kam er. Er blieb."])
    for language, sentences in (("de", 2), ("en", 3)):
        store = tokenize_corpus(documents, tokenizer, cache_dir=tmp_path, language=language)
        assert store.num_sentences == sentences


def test_shuffled_splits_and_null_texts_are_read_in_the_order_of_the_dataset(documents, tokenizer, tmp_path):
    for side in split_documents(documents, 23, seed=0):
        store = tokenize_corpus(side, tokenizer, cache_dir=tmp_path)
        copy = tokenize_corpus(documents_of([*side["text"], None]), tokenizer, cache_dir=tmp_path)
        assert content(store) == content(copy)


# Where it is kept


def test_a_store_is_made_once(documents, tokenizer, tmp_path, monkeypatch):
    first = tokenize_corpus(documents, tokenizer, cache_dir=tmp_path)
    monkeypatch.setattr(store_module, "encode_documents", lambda *_, **__: pytest.fail("tokenized again"))
    again = tokenize_corpus(documents, tokenizer, cache_dir=tmp_path, num_proc=7)
    assert content(again) == content(first)
    assert again.fingerprint == first.fingerprint


def test_the_fingerprint_depends_on_documents_tokenizer_and_language(documents, tokenizer, tmp_path):
    other = Tokenizer.train(random_texts(29), 59)
    stores = [
        tokenize_corpus(documents, tokenizer, cache_dir=tmp_path),
        tokenize_corpus(documents.select(range(2, 101)), tokenizer, cache_dir=tmp_path),
        tokenize_corpus(documents, other, cache_dir=tmp_path),
        tokenize_corpus(documents, tokenizer, cache_dir=tmp_path, language="de"),
    ]
    assert len({store.fingerprint for store in stores}) == len(list(tmp_path.iterdir())) == 4
    copy = tokenize_corpus(documents, tokenizer, cache_dir=tmp_path / "elsewhere")
    assert copy.fingerprint == stores[0].fingerprint


def test_a_pickled_store_maps_the_files_again(documents, tokenizer, tmp_path):
    store = tokenize_corpus(documents, tokenizer, cache_dir=tmp_path)
    pickled = pickle.dumps(store)
    assert len(pickled) < 1009
    assert content(pickle.loads(pickled)) == content(store)
    in_memory = store_of([[[5, 7]], [[11]]])
    assert content(pickle.loads(pickle.dumps(in_memory))) == content(in_memory)


def test_a_failure_leaves_no_files(documents, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(vocabulary, "BATCH_CHARACTERS", 997)
    encode, calls = store_module.encode_documents, []

    def failing(*arguments: object, **options: object):
        calls.append(1)
        if len(calls) == 5:
            raise OSError("disk full")
        return encode(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(store_module, "encode_documents", failing)
        with pytest.raises(OSError, match="disk full"):
            tokenize_corpus(documents, tokenizer, cache_dir=tmp_path)
    assert list(tmp_path.iterdir()) == []
    assert tokenize_corpus(documents, tokenizer, cache_dir=tmp_path).num_documents == 208


TOKENIZE_FOREVER = """
import sys, time, datasets
from bert_jax.text import vocabulary
from bert_jax.data.pretraining import token_store as store
from bert_jax.text.tokenizer import Tokenizer
vocabulary.BATCH_CHARACTERS = 997
encode, calls = store.encode_documents, []
def stuck(*arguments, **options):
    calls.append(1)
    if len(calls) == 5:
        print("stuck", flush=True)
        time.sleep(997)
    return encode(*arguments, **options)
store.encode_documents = stuck
documents = datasets.Dataset.from_parquet(sys.argv[1], cache_dir=sys.argv[2] + "-read")
store.tokenize_corpus(documents, Tokenizer.load(sys.argv[3]), cache_dir=sys.argv[2])
"""


def test_a_killed_process_leaves_no_store_that_looks_complete(documents, tokenizer, tmp_path):
    tokenizer.save(tmp_path / "tokenizer")
    documents.to_parquet(str(tmp_path / "documents.parquet"))
    arguments = [tmp_path / "documents.parquet", tmp_path / "cache", tmp_path / "tokenizer"]
    command = [sys.executable, "-c", TOKENIZE_FOREVER, *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, cwd=ROOT) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    left = list((tmp_path / "cache").iterdir())
    assert [path.name[0] for path in left] == ["."]
    whole = tokenize_corpus(documents, tokenizer, cache_dir=tmp_path / "cache")
    assert not left[0].exists()
    assert content(whole) == content(tokenize_corpus(documents, tokenizer, cache_dir=tmp_path / "other"))


def test_two_processes_at_once_give_one_complete_store(documents, tokenizer, tmp_path, monkeypatch):
    encode = store_module.encode_documents
    slow = lambda *arguments, **options: (time.sleep(0.1), encode(*arguments, **options))[1]  # noqa: E731
    monkeypatch.setattr(store_module, "encode_documents", slow)
    with ThreadPoolExecutor(3) as pool:
        made = [pool.submit(tokenize_corpus, documents, tokenizer, cache_dir=tmp_path) for _ in range(3)]
        stores = [future.result() for future in made]
    assert len(list(tmp_path.iterdir())) == 1
    assert content(stores[0]) == content(stores[1]) == content(stores[2])


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({"body": ["x"]}, {}, "documents need a column 'text', got body"),
        ({"text": ["x"]}, {"num_proc": 0}, "`num_proc` must be at least 1, got 0"),
        ({"text": ["", " \n", "\u200b"]}, {}, "the corpus has no token"),
        ({"text": [""]}, {"num_proc": 2}, "the corpus has no token"),
    ],
)
def test_impossible_corpora_and_arguments_are_errors(tokenizer, tmp_path, columns, options, message):
    with pytest.raises(ValueError, match=message):
        tokenize_corpus(datasets.Dataset.from_dict(columns), tokenizer, cache_dir=tmp_path, **options)
    assert list(tmp_path.iterdir()) == []


# Processes and memory


def test_a_small_corpus_takes_one_process_and_a_large_one_one_per_core(documents, monkeypatch):
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    assert store_module._process_count(documents) == 1
    monkeypatch.setattr(store_module, "MIN_BYTES_FOR_PROCESSES", 10_007)
    assert store_module._process_count(documents) == cores
    assert store_module._process_count(documents.select([7, 101, 11])) == 1


WITH_JAX = """
import datasets, jax, sys
from bert_jax.data.pretraining.token_store import tokenize_corpus
from bert_jax.text.tokenizer import Tokenizer
if __name__ == "__main__":
    jax.jit(lambda x: x + 1)(jax.numpy.ones(3)).block_until_ready()
    texts = ["ab cd. ef gh."] * 97
    tokenizer = Tokenizer.train(texts, 61)
    tokenizer(texts)
    store = tokenize_corpus(datasets.Dataset.from_dict({"text": texts}), tokenizer, cache_dir=sys.argv[1], num_proc=2)
    print(store.num_documents)
"""


def test_processes_start_beside_jax_and_used_threads_without_output(tmp_path):
    result = run(WITH_JAX, tmp_path)
    assert (result.stdout, result.stderr) == ("97\n", "")


def test_a_script_without_a_main_guard_is_an_error(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(WITH_JAX.replace('if __name__ == "__main__":', "if True:").replace("jax.jit", "0 and jax.jit"))
    command = [sys.executable, script, tmp_path / "cache"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, timeout=60)
    assert result.returncode == 1
    assert "RuntimeError: a tokenizing process has died" in result.stderr


WITH_LITTLE_MEMORY = """
import resource, sys
from bert_jax.text import vocabulary
from bert_jax.data.readers.corpus import read_corpus
from bert_jax.data.pretraining.token_store import tokenize_corpus
from bert_jax.text.tokenizer import Tokenizer

folder, allowance, documents = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
vocabulary.BATCH_CHARACTERS = 1 << 16
text = "ab cd ef gh ij kl mn op qr st. " * 31
tokenizer = Tokenizer.train([text], 61)

def store_of(name, count):
    with open(f"{folder}/{name}.txt", "w") as file:
        for number in range(count):
            file.write(f"{number % 10} {text}\\n\\n")
    corpus = read_corpus(f"{folder}/{name}.txt", cache_dir=folder)
    return tokenize_corpus(corpus, tokenizer, cache_dir=folder, num_proc=1)

store_of("small", 101)  # what is loaded once is not counted
status = dict(line.split(":", 1) for line in open("/proc/self/status"))
limit = int(status["VmData"].split()[0]) * 1024 + allowance
resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
store = store_of("large", documents)
print(store.num_documents, store.num_tokens)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits what a process may allocate")
def test_a_corpus_larger_than_memory_is_read_and_tokenized(tmp_path):
    allowance, documents = 6 << 20, 16_001
    environment = {**os.environ, "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
    result = run(WITH_LITTLE_MEMORY, tmp_path, allowance, documents, env=environment)
    assert result.returncode == 0, result.stderr[-500:]
    count, tokens = map(int, result.stdout.split())
    assert count == documents
    # Neither the text nor its ids would have fitted.
    assert (tmp_path / "large.txt").stat().st_size > 2 * allowance
    assert 2 * tokens > allowance
