"""`bert-jax doctor STORE` names the files that are not as they were prepared."""

import shutil

import pytest
from small_stores import small_parts, small_preparation, write_corpus

from bert_jax.cli.doctor import Doctor
from bert_jax.data.preparation.engines.local import local
from bert_jax.data.preparation.program import prepare
from bert_jax.doctor import examine_store


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as monkeypatch:
        small_parts(monkeypatch)
        settings = small_preparation(folder, write_corpus(folder / "corpus")[1:3])
        prepare(settings, local(1), say=lambda _: None)
    return folder / "store"


@pytest.fixture
def store(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "store")


def problems(store) -> list[str]:
    return [finding.text for finding in examine_store(store) if finding.severity == "problem"]


def test_a_whole_store_is_described(store, capsys):
    Doctor(str(store)).run()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"  {store} is a prepared corpus: 2 inputs in ")
    assert any("tokens to train on" in line for line in lines)
    assert any("c.jsonl: 31 documents" in line for line in lines)
    assert not problems(store)


@pytest.mark.parametrize(
    "name",
    ["part-00001/train/ids.npy", "part-00000/complete.json", "held_out/counts.json", "train/document_offsets.npy"],
)
@pytest.mark.parametrize("is_flipped", [True, False], ids=["flipped", "missing"])
def test_a_damaged_file_is_named(store, name, is_flipped):
    path = store / name
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()
    if is_flipped:
        path.write_bytes(content)
    folder, _, file = name.partition("/")
    first, last = problems(store)
    assert first == f"{store / folder}: missing, or not the bytes that were prepared: {file}"
    assert last.endswith(f"run `bert-jax prepare --output {store}`")


def test_a_missing_part_and_a_changed_store_json_are_problems(store):
    path = store / "store.json"
    content = path.read_text()
    path.write_text(content.replace('"tokens": ', '"tokens": 1', 1))
    assert problems(store) == [f"{store} is damaged; run `bert-jax prepare --output {store}`"]
    path.write_text("{}")
    assert problems(store) == [f"{path} is damaged; run `bert-jax prepare --output {store}`"]
    path.unlink()
    shutil.rmtree(store / "part-00001")
    [found] = problems(store)
    assert "1 part of" in found
    (store / "manifest.json").write_text("{}")
    assert "not a manifest" in problems(store)[0]
