"""An unreachable hub is given up within seconds, with one clear line."""

import socket
import time

import datasets
import pytest
from huggingface_hub import close_session, constants

from bert_jax.data.readers.corpus import read_corpus
from bert_jax.data.readers.hub import request_file

GIVE_UP = 10  # seconds; `datasets` alone tries for about 25


@pytest.fixture
def silent_hub(monkeypatch):
    """A hub that accepts connections and never answers."""
    monkeypatch.setenv("HF_HUB_ETAG_TIMEOUT", "0.2")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
        template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "ENDPOINT", address)
        monkeypatch.setattr(datasets.config, "HF_ENDPOINT", address)
        yield
    close_session()


def test_a_dataset_on_a_silent_hub_is_given_up_after_the_timeout(silent_hub, tmp_path):
    start = time.monotonic()
    with pytest.raises(OSError, match=r"no such dataset on the hub: .*(no answer within 0\.2 seconds|timed out)"):
        read_corpus(["owner/poems"], cache_dir=tmp_path)
    assert time.monotonic() - start < GIVE_UP
    assert not datasets.config.HF_HUB_OFFLINE


def test_a_request_that_cannot_be_made_returns_its_exception():
    assert isinstance(request_file("owner/owl", "config.json"), Exception)  # the tests run offline
    assert isinstance(request_file("a/b/c", "config.json"), ValueError)
