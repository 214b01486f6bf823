"""A model of the hub loads from its cache without network, and one that is not there says why."""

import json
import shutil
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import small_bert as small
from huggingface_hub import close_session, constants
from safetensors.numpy import load_file, save_file
from small_checkpoints import assert_same_bits, model, refusal

import bert_jax

PRETRAINED = model("BertForPreTraining")
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(monkeypatch, tmp_path, folder, tokenizer):
    """A cache of the hub with one model in it, `owner/owl`; there is no network."""
    tokenizer.save(folder)
    model = tmp_path / "hub" / "models--owner--owl"
    shutil.copytree(folder, model / "snapshots" / COMMIT)
    (model / "refs").mkdir()
    for name in ("main", "v1"):
        (model / "refs" / name).write_text(COMMIT)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return model / "snapshots" / COMMIT


@pytest.mark.parametrize("revision", [None, "v1"])
def test_a_model_in_the_cache_of_the_hub_loads_without_network(cache, revision):
    loaded = bert_jax.load("owner/owl", revision=revision)
    assert_same_bits(loaded.params, PRETRAINED.params)
    assert loaded.tokenizer.vocab_size == small.V


def test_parts_in_the_cache_of_the_hub_are_found(cache):
    tensors = load_file(cache / "model.safetensors")
    (cache / "model.safetensors").unlink()
    save_file(tensors, cache / "a.safetensors")
    index = {"weight_map": dict.fromkeys(tensors, "a.safetensors")}
    (cache / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_same_bits(bert_jax.load("owner/owl").params, PRETRAINED.params)


@pytest.mark.parametrize("name", ["owner/unheard-of", "not a name", "a/b/c", "runs/demo", "owner/owl@v2"])
def test_a_name_that_is_not_to_be_had_says_why(cache, name):
    line = refusal(name, FileNotFoundError)
    assert line.startswith(f"{name}: no such folder, and no such model")
    assert "offline" in line.lower() or "must" in line


def test_a_cache_without_weights_says_so(cache):
    (cache / "model.safetensors").unlink()
    assert "none of model.safetensors, pytorch_model.bin, flax_model.msgpack" in refusal("owner/owl", FileNotFoundError)


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as gives out the files of `folder` under the name `owner/owl`, and keeps a list of them."""

    folder: Path
    given: ClassVar[list[str]] = []

    def do_HEAD(self):
        owner, _, file = self.path.removeprefix("/").partition("/resolve/")
        path = self.folder / file.partition("/")[2]
        there = owner == "owner/owl" and path.is_file()
        data = path.read_bytes() if there else b""
        self.send_response(200 if there else 404)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("X-Error-Code", "EntryNotFound" if owner == "owner/owl" else "RepoNotFound")
        self.send_header("ETag", f'"{path.name}"')
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.given.append(path.name)
            self.wfile.write(data)

    do_GET = do_HEAD

    def log_message(self, *arguments):
        pass


@pytest.fixture
def network(monkeypatch, tmp_path, folder, tokenizer):
    tokenizer.save(folder)
    Hub.folder = folder
    Hub.given.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    address = f"http://127.0.0.1:{server.server_port}"
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.chdir(tmp_path)
    yield
    server.shutdown()
    thread.join()
    server.server_close()
    close_session()


def test_only_what_is_needed_is_downloaded_and_only_once(network, folder):
    shutil.copy(folder / "model.safetensors", folder / "pytorch_model.bin")
    for _ in range(2):
        assert_same_bits(bert_jax.load("owner/owl").params, PRETRAINED.params)
    wanted = ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "vocab.txt"]
    assert sorted(name for name in Hub.given if "." in name) == wanted
    assert "RepositoryNotFoundError" in refusal("owner/unheard-of", FileNotFoundError)


def test_the_next_format_is_asked_for_where_one_is_not_there(network, folder):
    (folder / "model.safetensors").rename(folder / "flax_model.msgpack")
    assert "not a file of Flax parameters" in refusal("owner/owl")
