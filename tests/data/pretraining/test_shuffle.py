"""The computed order is a permutation, and every permutation is equally likely as far as these tests can see."""

import numpy as np
import pytest
from scipy import stats

from bert_jax.data.pretraining.shuffle import shuffled

P_VALUE = 1e-4


def order(count, *seed):
    return shuffled(np.arange(count), count, np.random.SeedSequence(seed))


@pytest.mark.parametrize("count", [*range(1, 19), 31, 32, 33, 1000, 4097])
def test_each_value_comes_once(count):
    for seed in range(3):
        np.testing.assert_array_equal(np.sort(order(count, seed)), np.arange(count))


def test_the_value_at_an_index_does_not_depend_on_the_other_indices():
    indices = np.array([977, 3, 3, 500])
    np.testing.assert_array_equal(shuffled(indices, 1000, np.random.SeedSequence((7, 1))), order(1000, 7, 1)[indices])


def test_indices_and_values_are_independent():
    """The index of a value, and the value after it, are uniform, over seeds and within one permutation."""
    found = np.stack([order(11, seed) for seed in range(3000)])
    for place in (0, 4, 10):
        assert stats.chisquare(np.bincount(found[:, place], minlength=11)).pvalue > P_VALUE
    steps = (found[:, 6] - found[:, 5]) % 11  # never 0
    assert stats.chisquare(np.bincount(steps, minlength=11)[1:]).pvalue > P_VALUE
    long = order(100_003, 5)
    assert stats.kstest(np.abs(np.diff(long)) / 100_003, stats.triang(0).cdf).pvalue > P_VALUE
    assert abs(stats.spearmanr(np.arange(100_003), long).statistic) < 0.02
