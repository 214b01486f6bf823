"""A store has the documents of its corpus, and the same bytes whatever prepares it."""

import shutil
from collections import Counter
from itertools import pairwise
from pathlib import Path

import fsspec
import pytest
from small_stores import files_of, random_texts, small_parts, small_preparation, write_corpus

from bert_jax.data.preparation import duplicates, inputs, vocabulary
from bert_jax.data.preparation import manifest as manifest_module
from bert_jax.data.preparation import parts as parts_module
from bert_jax.data.preparation.engines.local import local
from bert_jax.data.preparation.manifest import Manifest
from bert_jax.data.preparation.program import prepare
from bert_jax.data.preparation.reading import HeldOut
from bert_jax.data.preparation.store import PreparedCorpus
from bert_jax.data.preparation.vocabulary import merge_words
from bert_jax.data.pretraining.token_store import TokenStore, encode_documents
from bert_jax.data.readers.corpus import read_corpus
from bert_jax.text.cleaning import default_lowercase
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.text.word_counts import count_words, merge_counts


@pytest.fixture(autouse=True)
def parts(monkeypatch):
    small_parts(monkeypatch)


def documents_of(store: TokenStore) -> list[list[int]]:
    edges = store.sentence_offsets[store.document_offsets].tolist()
    return [store.span(first, last - first).tolist() for first, last in pairwise(edges)]


def encoded(texts: list[str], tokenizer: Tokenizer) -> list[list[int]]:
    return [encode_documents([text], tokenizer, "en").ids.tolist() for text in texts]


def quiet(_line: str) -> None:
    pass


def backwards(work, store, numbers):
    for number in reversed(numbers):
        yield work(store, number)


def interrupted(work, store, numbers):
    yield work(store, numbers[len(numbers) // 2])
    raise KeyboardInterrupt


@pytest.mark.parametrize("drop_duplicates", [False, True])
def test_a_store_has_the_documents_of_its_corpus(tmp_path, drop_duplicates):
    corpus = write_corpus(tmp_path / "corpus")
    settings = small_preparation(tmp_path, corpus, drop_duplicates=drop_duplicates)
    prepared = prepare(settings, local(1), say=quiet)
    texts = read_corpus(corpus, cache_dir=tmp_path / "cache", drop_duplicates=drop_duplicates)["text"][:]
    is_held_out = HeldOut(settings.held_out, settings.seed)
    for side, held_out in ((prepared.train, False), (prepared.held_out, True)):
        wanted = [text for text in texts if is_held_out(text) == held_out]
        assert documents_of(side) == encoded(wanted, prepared.tokenizer)
    manifest = Manifest.load(Path(settings.output))
    cut = Counter(piece.input for part in manifest.parts for piece in part)
    assert len(manifest.parts) > 20
    assert min(cut[number] for number, one in enumerate(manifest.inputs) if not one.name.endswith(".gz")) > 1


@pytest.mark.parametrize("engine", [backwards, local(2)], ids=["backwards", "two processes"])
def test_engines_orders_and_restarts_give_the_same_bytes(tmp_path, engine):
    corpus = write_corpus(tmp_path / "corpus")
    options = {"drop_duplicates": True, "vocab_size": 97}
    prepare(small_preparation(tmp_path, corpus, "one", **options), local(1), say=quiet)
    settings = small_preparation(tmp_path, corpus, "other", **options)
    if engine is backwards:
        with pytest.raises(KeyboardInterrupt):
            prepare(settings, interrupted, say=quiet)
    prepare(settings, engine, say=quiet)
    assert files_of(tmp_path / "one") == files_of(tmp_path / "other")


def test_what_is_done_is_not_done_again(tmp_path, monkeypatch):
    corpus = write_corpus(tmp_path / "corpus")
    settings = small_preparation(tmp_path, corpus, drop_duplicates=True, vocab_size=97)
    prepare(settings, local(1), say=quiet)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("part-*/**/*")}
    monkeypatch.setattr(parts_module, "encode_documents", lambda *_: pytest.fail("tokenized again"))
    prepare(small_preparation(tmp_path, (), vocab_size=97), local(1), say=quiet)
    assert before == {path: path.stat().st_mtime_ns for path in (tmp_path / "store").rglob("part-*/**/*")}


@pytest.mark.parametrize("moment", [(manifest_module, "make_parts"), (parts_module, "encode_documents")])
def test_two_processes_may_prepare_the_same_store(tmp_path, monkeypatch, moment):
    corpus = write_corpus(tmp_path / "corpus")
    settings = small_preparation(tmp_path, corpus)
    function = getattr(*moment)
    made = []

    def meanwhile(*arguments):
        monkeypatch.setattr(*moment, function)
        made.append(prepare(settings, local(1), say=quiet))  # all of it, while the other one waits
        return function(*arguments)

    monkeypatch.setattr(*moment, meanwhile)
    made.append(prepare(settings, local(1), say=quiet))
    assert made[0].content == made[1].content
    assert not list((tmp_path / "store").glob(".*"))


def test_a_store_is_continued_from_another_folder(tmp_path, monkeypatch):
    write_corpus(tmp_path / "corpus")
    monkeypatch.chdir(tmp_path / "corpus")
    prepared = prepare(small_preparation(tmp_path, ("a.txt", "f")), local(1), say=quiet)
    shutil.rmtree(tmp_path / "store" / f"part-{len(prepared.content['parts']) - 1:05d}")
    monkeypatch.chdir(tmp_path)
    inputs._open_dataset.cache_clear()  # another process has none
    assert prepare(small_preparation(tmp_path, ()), local(1), say=quiet).content == prepared.content


def test_a_corpus_by_url_is_cut_too_and_gives_the_same_tokens(tmp_path):
    names = ("a.txt", "c.jsonl", "d.txt.gz", "e.parquet")
    write_corpus(tmp_path / "corpus")
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "corpus"), "/texts", recursive=True)
    stores = [
        prepare(small_preparation(tmp_path, tuple(f"{folder}/{name}" for name in names), output), local(1), say=quiet)
        for folder, output in ((tmp_path / "corpus", "local"), ("memory://texts", "remote"))
    ]
    assert stores[0].content["fingerprint"] == stores[1].content["fingerprint"]
    memory.pipe_file("/texts/a.txt", b"another text")
    shutil.rmtree(tmp_path / "remote" / "part-00000")
    with pytest.raises(ValueError, match=r"^part 0: memory://.*texts/a\.txt has changed since"):
        prepare(small_preparation(tmp_path, (), "remote"), local(1), say=quiet)
    memory.rm("/texts", recursive=True)


def test_the_vocabulary_is_that_of_the_documents_to_train_on(tmp_path):
    corpus = write_corpus(tmp_path / "corpus")
    settings = small_preparation(tmp_path, corpus, vocab_size=113, language="de")
    prepared = prepare(settings, local(1), say=quiet)
    is_held_out = HeldOut(settings.held_out, settings.seed)
    texts = [text for text in read_corpus(corpus, cache_dir=tmp_path / "cache")["text"] if not is_held_out(text)]
    wanted = Tokenizer.train(texts, 113, lowercase=default_lowercase("de"), strip_accents=False)
    assert prepared.tokenizer.fingerprint == wanted.fingerprint


def test_words_are_added_in_ranges_and_the_rarest_of_a_huge_corpus_left_out(monkeypatch):
    tables = [count_words(random_texts(23, seed)) for seed in range(5)] + [
        count_words([]),
        count_words(["\U0001f989 a"]),
    ]
    whole = merge_words(tables)
    assert whole == merge_counts(tables)
    monkeypatch.setattr(vocabulary, "ROWS_AT_ONCE", 7)
    assert merge_words(tables) == merge_words(tables[::-1]) == whole
    monkeypatch.setattr(vocabulary, "MOST_WORDS", 100)
    fewest = -(-sum(whole["count"].to_pylist()) // 100)
    assert fewest > 3
    assert merge_words(tables).to_pylist() == [row for row in whole.to_pylist() if row["count"] >= fewest]


def test_duplicates_are_found_in_groups_of_bounded_size(tmp_path, monkeypatch):
    corpus = write_corpus(tmp_path / "corpus")
    stores = []
    for size in (1 << 20, 7):
        monkeypatch.setattr(duplicates, "HASHES_AT_ONCE", size)
        settings = small_preparation(tmp_path, corpus, str(size), drop_duplicates=True)
        stores.append(prepare(settings, local(1), say=quiet))
    assert stores[0].content["fingerprint"] == stores[1].content["fingerprint"]


def test_the_report_counts_each_source(tmp_path):
    folder = tmp_path / "corpus"
    folder.mkdir()
    (folder / "a.txt").write_text("An owl.\n\nan  OWL.\n\n\u0434\u043e\u043c \u0434\u043e\u043c.\n\n" + "x y. " * 7)
    (folder / "b.csv").write_text('text\nAn owl.\n" "\nA night.\n')
    Tokenizer.train(["an owl x y night a."], 61).save(tmp_path / "tokenizer")
    lines = []
    corpus = (f"{folder}/a.txt", f"{folder}/b.csv")
    options = {"drop_duplicates": True, "held_out": 0.4, "tokenizer": str(tmp_path / "tokenizer"), "seed": 2}
    prepared = prepare(small_preparation(tmp_path, corpus, **options), local(1), say=lines.append)
    first, second = prepared.content["sources"]
    assert (first["read"], first["used"], second["read"], second["used"]) == (4, 3, 3, 1)
    assert first["unknown_tokens"] == 2
    assert first["letters"] == {"Cyrillic": 6, "Latin": 19}
    assert second["skipped"]["duplicates of earlier documents"] == {"count": 1, "first": f"{folder}/b.csv:2"}
    assert any("3 documents" in line and "[UNK]; Latin 76.0%, Cyrillic 24.0%" in line for line in lines)
    assert any("skipped 1 of 4 documents: duplicates" in line for line in lines)
    tokens = prepared.train.num_tokens + prepared.held_out.num_tokens
    assert tokens == first["tokens"] + second["tokens"] == sum(map(sum, prepared.content["parts"]))


def test_settings_and_inputs_of_a_store_cannot_change(tmp_path):
    corpus = write_corpus(tmp_path / "corpus")
    prepare(small_preparation(tmp_path, corpus), local(1), say=quiet)
    with pytest.raises(ValueError, match="was begun with `language=en`, not de: choose another `output`"):
        prepare(small_preparation(tmp_path, corpus, language="de"), say=quiet)
    with pytest.raises(ValueError, match=r"`held_out=0\.2`"):
        prepare(small_preparation(tmp_path, (), held_out=0.3), say=quiet)
    (tmp_path / "corpus" / "c.txt").write_text("another")
    with pytest.raises(ValueError, match=r"c\.txt has appeared since"):
        prepare(small_preparation(tmp_path, corpus), say=quiet)
    with pytest.raises(ValueError, match="is not empty, and is no store"):
        prepare(small_preparation(tmp_path, corpus, "corpus"), say=quiet)
    with pytest.raises(
        ValueError, match=r"none: no document held out with `held_out=1e-09`: choose another one, and an"
    ):
        prepare(small_preparation(tmp_path, corpus[:1], "none", held_out=1e-9), local(1), say=quiet)
    (tmp_path / "corpus" / "\udcff.txt").touch()
    with pytest.raises(ValueError, match=r"udcff\.txt': the name of the file is not UTF-8; rename it"):
        prepare(small_preparation(tmp_path, corpus, "new"), say=quiet)
    with pytest.raises(ValueError, match="name its text with `corpus`"):
        prepare(small_preparation(tmp_path, (), "new"), say=quiet)


def test_an_incomplete_store_says_what_is_missing(tmp_path):
    corpus = write_corpus(tmp_path / "corpus")
    settings = small_preparation(tmp_path, corpus)
    with pytest.raises(KeyboardInterrupt):
        prepare(settings, interrupted, say=quiet)
    count = len(Manifest.load(tmp_path / "store").parts)
    done = count // 2
    with pytest.raises(ValueError, match="is not complete") as caught:
        PreparedCorpus.open(tmp_path / "store")
    missing = f"{count - 1} parts of {count} missing (0-{done - 1}, {done + 1}-{count - 1})"
    assert str(caught.value) == (
        f"{tmp_path}/store is not complete: {missing}; run `bert-jax prepare --output {tmp_path}/store`"
    )
