"""What a soak takes for a fault; and two lives of one, seconds long."""

import math
import sys

import numpy as np
import pytest
import soak

LOGGED = list(range(10, 210, 10))
MEBI = 2**20


def lives(memory=lambda life, second: 700, files=lambda life, second: 16, *, count=5, seconds=30):
    """Lives with so much memory, in MiB, and so many open files a second."""
    return [
        soak.Life(
            began=0,
            memory=[round(memory(life, second) * MEBI) for second in range(seconds)],
            files=[files(life, second) for second in range(seconds)],
        )
        for life in range(count)
    ]


def faults(lives, steps=LOGGED):
    return soak.Verdict.of(steps, lives).faults()


def test_what_stays_as_it_is_has_no_fault():
    random = np.random.default_rng(0)
    noisy = lives(lambda life, second: 700 + random.uniform(-20, 20), lambda life, second: 16 + 9 * (second % 3))
    assert faults(noisy) == []


def test_warming_up_and_one_life_that_is_odd_are_no_growth():
    def memory(life, second):
        return 700 + 300 * (life == 2) * (second > 20) - 200 * (second < 8)

    assert faults(lives(memory)) == []


def test_what_grows_in_every_life_is_named():
    assert faults(lives(memory=lambda life, second: 500 + 10 * second)) == ["memory grows by 15.5% within a life"]
    assert faults(lives(files=lambda life, second: 16 + second)) == ["open files grow by 38.5% within a life"]


def test_what_grows_from_life_to_life_is_named():
    grown = ["memory grew by 20.0% from the first life to the last"]
    assert faults(lives(memory=lambda life, second: 500 + 25 * life)) == grown
    assert faults(lives(memory=lambda life, second: 600 - 25 * life)) == []


@pytest.mark.parametrize("steps", [LOGGED[:7] + LOGGED[8:], LOGGED[:7] + LOGGED[6:], LOGGED[1:]])
def test_a_step_that_is_missing_or_there_twice_is_a_fault(steps):
    assert faults(lives(), steps) == ["metrics.jsonl has gaps or duplicates"]


def test_lives_too_short_to_tell_are_not_judged():
    verdict = soak.Verdict.of(LOGGED, lives(memory=lambda life, second: 500 + 100 * second, seconds=7))
    assert math.isnan(verdict.memory)
    assert verdict.faults() == []


def test_a_fault_is_the_exit_code_and_the_folder_goes_either_way(monkeypatch, tmp_path):
    monkeypatch.setattr(soak.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["soak.py"])

    def ends_by_itself(*given):
        raise SystemExit("the run ended by itself: 1")

    for soaked, code in ((lambda *given: [], 0), (lambda *given: ["memory"], 1), (ends_by_itself, "the run ended")):
        monkeypatch.setattr(soak, "soak", soaked)
        with pytest.raises(SystemExit, match=str(code)):
            soak.main()
        assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_run_that_is_killed_and_goes_on_passes(monkeypatch, tmp_path, capsys):
    """Each call is one life; the second finds the run of the first."""
    monkeypatch.setattr(sys, "argv", ["soak.py"])
    monkeypatch.setattr(soak, "MODEL", [*soak.MODEL, "--checkpoint-every", "4"])
    for _ in range(2):
        assert soak.soak(tmp_path, minutes=0.001, interval=2.0) == []
    said = capsys.readouterr().out
    first, second = (line for line in said.splitlines() if line.startswith("  1: "))
    assert "steps 0 to" in first
    assert "steps 0 to" not in second
    assert said.count("gapless, no duplicates") == 2
    assert said.count("Nothing is lost, and nothing piles up.") == 2
