"""The examination of a machine names versions, devices, caches, stale folders and why no accelerator is used."""

import os

import jax
import pytest

from bert_jax.doctor import machine
from bert_jax.doctor.machine import examine_machine


def texts(*arguments, **options):
    return [(finding.severity, finding.text) for finding in examine_machine(*arguments, **options)]


def test_versions_devices_and_caches_are_facts(tmp_path):
    (tmp_path / "tokens").write_bytes(b"x" * 2**20)
    found = {text: severity for severity, text in texts(tmp_path, network=False)}
    assert any(f"jax {jax.__version__}" in text for text in found)
    assert any("JAX uses 8 cpu devices" in text for text in found)
    assert found[f"cache: 0.00 GiB in {tmp_path}"] == "fact"
    assert "problem" not in found.values()


def test_folders_of_killed_processes_are_warned_about(tmp_path, monkeypatch):
    ended = tmp_path / ".x@host@1@1@ab"
    ended.mkdir()
    monkeypatch.setattr(machine, "abandoned_folders", lambda folder: [ended])
    [warned] = [text for severity, text in texts(tmp_path, network=False) if "killed processes" in text]
    assert str(ended) in warned


@pytest.mark.parametrize(
    ("device", "plugins", "said"),
    [
        ("GPU_FILES", [], "pip install 'bert_jax[cuda]'"),
        ("GPU_FILES", ["cuda13"], "(cuda13) does not start"),
        ("TPU_FILES", [], "pip install 'bert_jax[tpu]'"),
    ],
)
def test_a_device_that_jax_does_not_use_is_a_problem(device, plugins, said, monkeypatch):
    class Plugin:
        def __init__(self, name):
            self.name = name

    monkeypatch.setattr(machine, "GPU_FILES", ())
    monkeypatch.setattr(machine, "TPU_FILES", ())
    monkeypatch.setattr(machine, device, (os.devnull,))
    monkeypatch.setattr(machine, "entry_points", lambda group: list(map(Plugin, plugins)))
    monkeypatch.setattr(machine, "requested_platforms", lambda: None)
    found = machine.no_accelerator()
    assert (found.severity, said in found.text) == ("problem", True)


@pytest.mark.parametrize(("failure", "severity"), [(None, "fact"), (TimeoutError("no answer"), "warning")])
def test_the_hub_is_asked_once(failure, severity, monkeypatch):
    asked = []
    monkeypatch.setattr(machine, "request_file", lambda *arguments: asked.append(arguments) or failure)
    assert machine.hub().severity == severity
    assert len(asked) == 1
