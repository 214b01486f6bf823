"""A run trains from a store of `bert-jax prepare`, and says what is wrong with it before any work."""

import json
import shutil

import fsspec
import pytest
from small_runs import SMALL, write_corpus

import bert_jax
import train as script
from bert_jax.data.preparation.engines.local import local
from bert_jax.data.preparation.program import prepare
from bert_jax.data.preparation.remote import fetch_store
from bert_jax.data.preparation.settings import Preparation
from bert_jax.pretraining import make_settings
from bert_jax.pretraining.prepared import require_corpus, tokenizer_source
from bert_jax.text.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with text, a tokenizer, and a store of both."""
    folder = tmp_path_factory.mktemp("prepared")
    text = write_corpus(folder / "films.txt")
    Tokenizer.train([text.read_text()], 150).save(folder / "tokenizer")
    given = {"tokenizer": str(folder / "tokenizer"), "language": "de", "held_out": 0.2}
    prepare(Preparation(str(folder / "store"), (str(text),), **given), local(1), say=lambda _: None)
    return folder


@pytest.fixture
def pretrain(folder, tmp_path):
    def run(*flags, corpus=folder / "store"):
        flags = ["--corpus", str(corpus), "--cache-dir", str(folder / "cache"), *flags]
        script.main([*SMALL, *flags, "--output", str(tmp_path / "run")])
        return tmp_path / "run"

    return run


@pytest.mark.slow
def test_a_run_trains_from_a_store_and_is_resumed(folder, pretrain, tmp_path, capsys):
    run = pretrain("--steps", "2")
    assert "language de" in capsys.readouterr().out
    moved = shutil.copytree(folder / "store", tmp_path / "moved")
    assert pretrain("--steps", "3", "--resume", corpus=moved) == run
    [source] = json.loads((run / "data.json").read_text())["sources"]
    assert (source["source"], source["used"]) == (str(folder / "films.txt"), 60)
    assert bert_jax.load(run).tokenizer.fingerprint == Tokenizer.load(folder / "tokenizer").fingerprint
    other = tmp_path / "other"
    Tokenizer.train(["the film is a film"], 60).save(tmp_path / "vocabulary")
    given = {"tokenizer": str(tmp_path / "vocabulary"), "held_out": 0.2}
    prepare(Preparation(str(other), (str(folder / "films.txt"),), **given), local(1), say=lambda _: None)
    with pytest.raises(ValueError, match=f"{other} was prepared with another tokenizer than that of {run}"):
        pretrain("--steps", "4", "--resume", corpus=other)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--language", "fr"], "--language fr has no effect on .*store, .* it belongs to `bert-jax prepare`"),
        (["--drop-duplicates"], "--drop-duplicates has no effect"),
        (["--held-out", "0.3"], r"--held-out 0\.3 has no effect"),
        (["--corpus", "STORE", "more.txt"], "is a prepared corpus, which must be the only one in --corpus"),
        (["--tokenizer", "OTHER"], "store was prepared with another tokenizer than that of .*other"),
    ],
)
def test_settings_that_belong_to_the_store_are_errors(folder, pretrain, tmp_path, flags, message):
    Tokenizer.train(["the film"], 60).save(tmp_path / "other")
    names = {"STORE": str(folder / "store"), "OTHER": str(tmp_path / "other")}
    with pytest.raises(ValueError, match=message):
        pretrain(*(names.get(flag, flag) for flag in flags))
    assert not (tmp_path / "run" / "config.json").exists()


def test_a_store_that_is_not_complete_says_how_to_finish_it(folder, pretrain, tmp_path):
    store = shutil.copytree(folder / "store", tmp_path / "store")
    ids = store / "part-00000" / "train" / "ids.npy"
    ids.write_bytes(ids.read_bytes()[:-2])
    with pytest.raises(
        ValueError, match=r"part-00000/train/ids\.npy: .* bytes expected, found .*; run `bert-jax prepare"
    ):
        pretrain(corpus=store)
    (store / "store.json").unlink()
    shutil.rmtree(store / "part-00000")
    with pytest.raises(ValueError, match=r"is not complete: 1 part of 1 missing \(0\); run `bert-jax prepare --output"):
        pretrain(corpus=store)


def test_a_store_on_an_object_store_is_copied_once_and_checked(folder, tmp_path):
    memory = fsspec.filesystem("memory")
    memory.put(str(folder / "store"), "/bucket/store", recursive=True)
    url = "memory://bucket/store"
    copied = fetch_store(url, tmp_path)
    assert (copied / "train" / "counts.json").is_file()
    assert not (copied / "words").exists()
    memory.pipe_file("/bucket/store/part-00000/train/ids.npy", b"damaged")
    assert fetch_store(url, tmp_path) == copied
    shutil.rmtree(copied)
    with pytest.raises(ValueError, match="memory://bucket/store/part-00000: a file is missing or has other bytes"):
        fetch_store(url, tmp_path)
    assert not list(tmp_path.iterdir())
    memory.rm("/bucket", recursive=True)


def test_a_plan_reads_the_vocabulary_of_the_store(folder):
    settings = make_settings("tiny", corpus=(str(folder / "store"),))
    require_corpus(settings)
    assert tokenizer_source(settings) == str(folder / "store" / "tokenizer")
    assert tokenizer_source(settings.replace(tokenizer="other")) == "other"
