"""A plan for devices that are not there: here two of the CPU's take their place, with the data of H100s."""

import math
import re

import jax
import pytest

from bert_jax.pretraining import make_settings
from bert_jax.pretraining.checks import check
from bert_jax.pretraining.plan import plan
from bert_jax.training.devices.plan import Programs
from bert_jax.training.devices.targets import Target

SMALL = {
    "num_hidden_layers": 2, "hidden_size": 12, "num_attention_heads": 2, "intermediate_size": 20, "vocab_size": 50,
    "phases": (), "max_length": 16, "max_position_embeddings": 16, "batch_size": 8, "steps": 1000,
}  # fmt: skip


def settings_for(device, **changes):
    return make_settings("tiny", plan=True, device=device, **SMALL | changes)


@pytest.fixture(scope="module")
def lines():
    patch = pytest.MonkeyPatch()
    patch.setattr(Target, "devices", lambda self: jax.devices()[:2])
    yield list(plan(settings_for("h100:2")))
    patch.undo()


def line(lines, start):
    return next(text for text in lines if text.strip().startswith(start))


def test_the_plan_names_the_devices(lines):
    assert "8 rows of 16 tokens on 2 x H100 (data 2 x fsdp 1 x tensor 1)" in lines[0]


def test_the_plan_says_that_nothing_was_measured(lines):
    assert "not measured" in line(lines, "step")


def test_memory_is_that_of_the_device(lines):
    assert "B of 63.7 GB" in line(lines, "memory per device")
    assert line(lines, "largest batch").endswith("(by a line through two programs); 8 fits")


def test_gradients_are_sent(lines):
    """Each parameter's gradient once, in float32, and half of it to the other device and back."""
    parameters = int(re.search(r"([\d,]+) parameters", lines[0])[1].replace(",", ""))
    number, unit = re.search(r"([\d.]+) (k?B) sent", line(lines, "communication")).groups()
    sent = float(number) * {"B": 1, "kB": 1000}[unit]
    assert 4 * parameters <= sent < 4 * parameters * 1.3


def test_the_time_of_the_run_is_that_of_its_steps(lines):
    step = sum(float(number) for number in re.findall(r"([\d.e-]+) ms", line(lines, "step"))) / 1e3
    rate = float(re.search(r"about ([\d,]+) tokens/s", line(lines, "expected"))[1].replace(",", ""))
    assert rate == pytest.approx(8 * 16 / step, rel=0.01)
    number, unit = re.search(r"about ([\d.]+) (\w+) at that rate", line(lines, "1,000 steps")).groups()
    assert float(number) * {"seconds": 1, "minutes": 60}[unit] == pytest.approx(1000 * step, rel=0.01)


def test_a_tpu_gets_a_bound_instead_of_an_estimate(monkeypatch):
    monkeypatch.setattr(Target, "devices", lambda self: jax.devices()[:1])
    lines = list(plan(settings_for("v5e", num_hidden_layers=1)))
    assert "no TPU has been measured" in line(lines, "step")
    assert "at most" in line(lines, "expected")
    assert not any(text.strip().startswith("communication") for text in lines)


def test_there_is_no_total_without_a_phase_that_cannot_be_compiled(monkeypatch):
    monkeypatch.setattr(Target, "devices", lambda self: jax.devices()[:1])
    monkeypatch.setattr(Programs, "needed", lambda self, rows: math.inf)
    lines = list(plan(settings_for("h100", phases=("8:50%", "16:50%"))))
    assert line(lines, "largest batch").endswith("8 DOES NOT FIT")
    assert not any(text.strip().startswith("all phases") for text in lines)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"plan": False}, "`device` is only used with `plan`"),
        ({"device": "h1"}, "`device` must be one of"),
        ({"parallel": "pmap"}, "`device` cannot be combined with `parallel=pmap`"),
    ],
)
def test_settings_that_no_plan_can_have(changes, message):
    with pytest.raises(ValueError, match=message):
        check(settings_for("h100").replace(**changes))
