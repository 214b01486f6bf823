"""Models load from the hub's cache without network; a missing model or an unreachable hub gives one clear line."""

import json
import shutil
import socket
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
import small_bert as small
from huggingface_hub import close_session, constants
from safetensors.numpy import load_file, save_file
from small_checkpoints import assert_same_bits, model, refusal

import bert_jax
from bert_jax.interop import hub

PRETRAINED = model("BertForPreTraining")
GIVE_UP = 10  # seconds; huggingface_hub alone tries for about 30
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(monkeypatch, tmp_path, folder, tokenizer):
    """A cache with one model, `owner/owl`, and no network."""
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
def test_a_cached_model_loads_without_network(cache, revision):
    loaded = bert_jax.load("owner/owl", revision=revision)
    assert_same_bits(loaded.params, PRETRAINED.params)
    assert loaded.tokenizer.vocab_size == small.V


def test_cached_shards_are_found(cache):
    tensors = load_file(cache / "model.safetensors")
    (cache / "model.safetensors").unlink()
    save_file(tensors, cache / "a.safetensors")
    index = {"weight_map": dict.fromkeys(tensors, "a.safetensors")}
    (cache / "model.safetensors.index.json").write_text(json.dumps(index))
    assert_same_bits(bert_jax.load("owner/owl").params, PRETRAINED.params)


@pytest.mark.parametrize("name", ["owner/unheard-of", "not a name", "a/b/c", "runs/demo", "owner/owl@v2"])
def test_an_unavailable_model_is_refused_with_a_reason(cache, name):
    line = refusal(name, FileNotFoundError)
    assert line.startswith(f"{name}: not a folder, and not a model")
    assert "offline" in line.lower() or "must" in line


def test_a_cached_model_without_weights_is_refused(cache):
    (cache / "model.safetensors").unlink()
    assert "has none of model.safetensors, pytorch_model.bin, flax_model.msgpack" in refusal(
        "owner/owl", FileNotFoundError
    )


class Hub(BaseHTTPRequestHandler):
    """A hub that serves the files of `folder` as the model `owner/owl`, and records which were downloaded."""

    folder: Path
    downloads: ClassVar[list[str]] = []

    def do_HEAD(self):
        owner, _, file = self.path.removeprefix("/").partition("/resolve/")
        path = self.folder / file.partition("/")[2]
        exists = owner == "owner/owl" and path.is_file()
        data = path.read_bytes() if exists else b""
        self.send_response(200 if exists else 404)
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("X-Error-Code", "EntryNotFound" if owner == "owner/owl" else "RepoNotFound")
        self.send_header("ETag", f'"{file.partition("/")[2].replace("/", "-")}"')
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if self.command == "GET":
            self.downloads.append(path.name)
            self.wfile.write(data)

    do_GET = do_HEAD

    def log_message(self, *arguments):
        pass


def point_to(address, monkeypatch):
    """Makes huggingface_hub use `address`, online."""
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def network(monkeypatch, tmp_path, folder, tokenizer):
    tokenizer.save(folder)
    Hub.folder = folder
    Hub.downloads.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    point_to(f"http://127.0.0.1:{server.server_port}", monkeypatch)
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
    assert sorted(name for name in Hub.downloads if "." in name) == wanted
    assert "RepositoryNotFoundError" in refusal("owner/unheard-of", FileNotFoundError)


def test_a_missing_format_falls_back_to_the_next_one(network, folder):
    (folder / "model.safetensors").rename(folder / "flax_model.msgpack")
    assert "not a file of Flax parameters" in refusal("owner/owl")


@pytest.fixture
def silent_hub(cache, monkeypatch):
    """A hub that accepts connections and never answers."""
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "0.2")
    with socket.create_server(("127.0.0.1", 0)) as server:
        point_to(f"http://127.0.0.1:{server.getsockname()[1]}", monkeypatch)
        yield
    close_session()


def test_a_silent_hub_is_given_up_after_the_timeout(silent_hub):
    start = time.monotonic()
    line = refusal("owner/unheard-of", FileNotFoundError)
    assert time.monotonic() - start < GIVE_UP
    assert line.startswith("owner/unheard-of: not a folder, and not a model")
    assert "no answer within 0.2 seconds" in line or "timed out" in line


def test_a_cached_model_loads_from_a_silent_hub(silent_hub):
    assert_same_bits(bert_jax.load("owner/owl").params, PRETRAINED.params)


def test_name_resolution_without_an_answer_is_given_up_after_the_timeout(silent_hub, monkeypatch):
    released = threading.Event()
    monkeypatch.setattr(hub.hub, "get_hf_file_metadata", lambda *_, **__: released.wait())
    start = time.monotonic()
    try:
        assert "no answer within 0.2 seconds" in refusal("owner/unheard-of", FileNotFoundError)
        assert time.monotonic() - start < GIVE_UP
    finally:
        released.set()


def test_settings_of_the_tokenizer_and_of_sentence_vectors_are_downloaded(network, folder):
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling/config.json").write_text('{"pooling_mode": "cls"}')
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    (folder / "modules.json").write_text(
        json.dumps([{"path": path, "type": f"x.{kind}"} for path, kind in kinds.items()])
    )
    for name in ("added_tokens.json", "special_tokens_map.json", "sentence_bert_config.json"):
        (folder / name).write_text('{"max_seq_length": 9}' if "bert" in name else "{}")
    (folder / "tokenizer_config.json").write_text("{}")
    loaded = bert_jax.load("owner/owl")
    assert loaded.sentence is not None
    assert (loaded.sentence.settings().mode, loaded.sentence.settings().max_length) == ("cls", 9)
    assert {"added_tokens.json", "special_tokens_map.json"} <= {*Hub.downloads}
