"""What a soak test reports as a failure; and a soak test of two segments, a few seconds long."""

import math
import sys

import numpy as np
import pytest
import soak
from compiling import xla_flags

LOGGED = list(range(10, 210, 10))
MEBI = 2**20


def segments(memory=lambda segment, second: 700, files=lambda segment, second: 16, *, count=5, seconds=30):
    """Segments with the given memory, in MiB, and number of open files at each second."""
    return [
        soak.Segment(
            memory=[round(memory(segment, second) * MEBI) for second in range(seconds)],
            files=[files(segment, second) for second in range(seconds)],
        )
        for segment in range(count)
    ]


def failures(segments, steps=LOGGED):
    return soak.SoakResult.of(steps, segments).failures()


def test_constant_memory_and_files_with_noise_pass():
    random = np.random.default_rng(0)
    noisy = segments(
        lambda segment, second: 700 + random.uniform(-20, 20), lambda segment, second: 16 + 9 * (second % 3)
    )
    assert failures(noisy) == []


def test_warmup_and_a_single_outlier_pass():
    def memory(segment, second):
        return 700 + 300 * (segment == 2) * (second > 20) - 200 * (second < 8)

    assert failures(segments(memory)) == []


def test_growth_in_every_segment_fails():
    assert failures(segments(memory=lambda segment, second: 500 + 10 * second)) == [
        "memory grows by 15.5% within a segment"
    ]
    assert failures(segments(files=lambda segment, second: 16 + second)) == [
        "open files grow by 38.5% within a segment"
    ]


def test_growth_from_segment_to_segment_fails():
    expected = ["memory grew by 20.0% from the first segment to the last"]
    assert failures(segments(memory=lambda segment, second: 500 + 25 * segment)) == expected
    assert failures(segments(memory=lambda segment, second: 600 - 25 * segment)) == []


@pytest.mark.parametrize("steps", [LOGGED[:7] + LOGGED[8:], LOGGED[:7] + LOGGED[6:], LOGGED[1:]])
def test_missing_or_duplicate_steps_fail(steps):
    assert failures(segments(), steps) == ["metrics.jsonl has gaps or duplicates"]


def test_a_checkpoint_that_is_not_resumed_from_fails():
    started = [soak.Segment(checkpoint=step, memory=[MEBI], files=[9]) for step in (0, 100, 200)]
    assert failures(started) == ["2 segments began at step 0 beside a checkpoint"]
    for segment in started:
        segment.first_step = segment.checkpoint
    assert failures(started) == []


def test_growth_of_short_segments_is_unknown_and_passes():
    result = soak.SoakResult.of(LOGGED, segments(memory=lambda segment, second: 500 + 100 * second, seconds=7))
    assert math.isnan(result.memory_growth)
    assert result.failures() == []


def test_failures_set_the_exit_code_and_the_folder_is_always_removed(monkeypatch, tmp_path):
    monkeypatch.setattr(soak.tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["soak.py"])

    def run_ends(*arguments):
        raise SystemExit("the run ended by itself: 1")

    for replacement, code in ((lambda *_: [], 0), (lambda *_: ["memory"], 1), (run_ends, "the run ended")):
        monkeypatch.setattr(soak, "soak", replacement)
        with pytest.raises(SystemExit, match=str(code)):
            soak.main()
        assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_run_that_is_killed_and_resumed_passes(monkeypatch, tmp_path, capsys):
    """Each call runs one segment; the second resumes the run of the first."""
    monkeypatch.setattr(sys, "argv", ["soak.py"])
    monkeypatch.setenv("XLA_FLAGS", xla_flags(1))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")  # set by the soak test: given back afterwards
    monkeypatch.setattr(soak, "MODEL", [*soak.MODEL, "--checkpoint-every", "4"])
    for _ in range(2):
        assert soak.soak(tmp_path, minutes=0.001, interval=2.0) == []
    output = capsys.readouterr().out
    first, second = (line for line in output.splitlines() if line.startswith("  1: "))
    assert "steps 0 to" in first
    resumed = int(second.split()[2].replace(",", ""))
    # Every tenth step is logged and every fourth saved, so a checkpoint may be newer than the last logged step.
    assert 0 < resumed < int(first.split()[4].replace(",", "")) + soak.LOG_EVERY
    assert output.count("no gaps, no duplicates") == 2
    assert output.count("Passed: nothing is lost, and nothing accumulates.") == 2
