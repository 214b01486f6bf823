"""Warnings come when they should, and only then."""

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
def test_a_loss_that_falls_is_nothing_to_warn_of(seed):
    assert warnings(as_rows(falling(2000, seed))) == []


def test_a_spike_is_told_once():
    losses = falling(1000)
    losses[600:620] += 3
    (line,) = warnings(as_rows(losses))
    assert line.startswith("step 601: warning: the loss jumped from 2.")


def test_a_loss_that_is_not_finite_does_not_blind_the_watch():
    losses = falling(1000)
    losses[300] = np.nan
    losses[600] += 3
    assert len(warnings(as_rows(losses))) == 1


def evaluations(losses):
    return [{"step": 100 * number, "eval_masked_lm_loss": loss} for number, loss in enumerate(losses, 1)]


def test_the_plateau_of_word_frequencies_is_told():
    (line,) = warnings(evaluations([7.5, 6.6, 6.56, 5.9]), floor=6.55)
    assert line.startswith("step 300: warning: held-out masked LM loss 6.56 is stuck where word frequencies alone come")


@pytest.mark.parametrize("options", [{"floor": 6.55, "after": 300}, {}], ids=["in warm-up", "no floor known"])
def test_what_is_no_plateau_yet_is_not_told(options):
    assert warnings(evaluations([7.5, 6.6, 6.56, 5.9]), **options) == []


def test_a_loss_that_still_falls_is_on_no_plateau():
    assert warnings(evaluations([9.0, 8.0, 7.5, 7.0, 6.7, 6.4]), floor=6.55) == []
