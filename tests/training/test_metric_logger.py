"""When metrics are logged, and how fast training is."""

import time

import pytest

from bert_jax.training.metric_logger import Clock, NotFinite, is_due


def test_the_clock_does_not_count_a_pause_that_ends_with_an_error(monkeypatch):
    now = iter([0.0, 10.0, 14.0, 15.0])  # start of the clock, of the pause, end of the pause, call
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    clock = Clock()
    clock.tokens = 22.0
    with pytest.raises(NotFinite), clock.paused():
        raise NotFinite
    assert clock.tokens_per_second() == 2.0  # 22 tokens in 11 seconds


def test_due_at_the_cadence_and_at_the_last_step():
    assert [step for step in range(1, 8) if is_due(step, 3, 7)] == [3, 6, 7]
    assert [step for step in range(1, 8) if is_due(step, 0, 7)] == [7]
