"""Targets by name and topology, and what is said if their compiler is missing."""

import re

import pytest

from bert_jax.training.devices import targets
from bert_jax.training.devices.accelerators import ACCELERATORS
from bert_jax.training.devices.targets import Target


@pytest.mark.parametrize(
    ("text", "shape"),
    [("h100", (1,)), ("h200:8", (8,)), ("b200:2x8", (2, 8)), ("v5e", (1, 1)), ("v5e:4x4", (4, 4)), ("v5p", (2, 2, 1))],
)
def test_a_target_is_parsed(text, shape):
    assert Target.parse(text) == Target(text.partition(":")[0], shape)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("h1000", r"`device` must be one of a100, h100, .*, v6e; got 'h1000'"),
        ("h100:0", "`device` must be NAME or NAME:TOPOLOGY, such as .*; got 'h100:0'"),
        ("h100:8x", "`device` must be NAME or NAME:TOPOLOGY"),
        ("h100:1x2x8", "the topology of h100 is GPUs, or machines x GPUs; `device` is 'h100:1x2x8'"),
        ("v5p:2x2", "the topology of v5p is 3 sides; `device` is 'v5p:2x2'"),
        ("v5e:8", "the topology of v5e is 2 sides"),
    ],
)
def test_a_wrong_target_is_one_clear_line(text, message):
    with pytest.raises(ValueError, match=message):
        Target.parse(text)


@pytest.mark.parametrize(("name", "extra"), [("h100:8", "cuda"), ("v5e:2x2", "tpu")])
def test_a_missing_compiler_names_the_extra(monkeypatch, name, extra):
    monkeypatch.setattr(targets, "find_spec", lambda module: None)
    wanted = f"the compiler for {name.partition(':')[0]} is not installed: pip install 'bert_jax[{extra}]'"
    with pytest.raises(ImportError, match=re.escape(wanted)):
        Target.parse(name).devices()


def test_descriptions_of_gpus_hold_their_data():
    for accelerator in ACCELERATORS.values():
        if accelerator.chip is None:
            continue
        text = targets.description(accelerator, accelerator.chip)
        assert text.count("{") == text.count("}")
        assert f"memory_bandwidth: {int(accelerator.bandwidth)}\n" in text
        assert f"core_count: {accelerator.chip.cores}\n" in text
