"""The watch warns of loss spikes and plateaus, and of nothing else."""

import numpy as np
import pytest

from bert_jax.training.watch import Watch


def warnings(rows, **options):
    watch = Watch(**options)
    return [line for row in rows if (line := watch(row)) is not None]


def falling(steps, seed=0):
    """A noisy loss that falls from 7 to 2."""
    noise = np.random.default_rng(seed).normal(0, 0.1, steps)
    return 2 + 5 * np.exp(-np.arange(steps) / 200) + noise


def as_rows(losses):
    return [{"step": step, "loss": loss} for step, loss in enumerate(losses, 1)]


@pytest.mark.parametrize("seed", range(5))
def test_a_falling_loss_gives_no_warning(seed):
    assert warnings(as_rows(falling(2000, seed))) == []


def test_a_spike_gives_one_warning():
    losses = falling(1000)
    losses[600:620] += 3
    watch = Watch()
    found = [(row["step"], line) for row in as_rows(losses) if (line := watch(row)) is not None]
    ((step, line),) = found
    assert step == 601
    assert line.startswith("the loss jumped from 2.")


def test_a_loss_that_is_not_finite_does_not_hide_a_later_spike():
    losses = falling(1000)
    losses[300] = np.nan
    losses[600] += 3
    assert len(warnings(as_rows(losses))) == 1


def evaluations(losses):
    return [{"step": 100 * number, "eval_masked_lm_loss": loss} for number, loss in enumerate(losses, 1)]


def test_a_plateau_at_the_unigram_baseline_gives_a_warning():
    (line,) = warnings(evaluations([7.5, 6.6, 6.56, 5.9]), baseline=6.55)
    assert line.startswith("held-out MLM loss 6.56 is no better than the unigram baseline (6.55)")


@pytest.mark.parametrize("options", [{"baseline": 6.55, "warmup_steps": 300}, {}], ids=["in warm-up", "no baseline"])
def test_no_plateau_is_reported_in_the_warm_up_or_without_a_baseline(options):
    assert warnings(evaluations([7.5, 6.6, 6.56, 5.9]), **options) == []


def test_a_loss_that_still_falls_is_not_on_a_plateau():
    assert warnings(evaluations([9.0, 8.0, 7.5, 7.0, 6.7, 6.4]), baseline=6.55) == []
