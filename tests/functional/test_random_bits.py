"""Random bits are unbiased, independent between elements and between keys, and the same under vmap."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from bert_jax.functional.random_bits import HASHED, _hashed_bits, hash_index, matrix_key
from bert_jax.training.state import GENERATORS, run_key

ROWS, COLUMNS = 1009, 1021
COUNT = ROWS * COLUMNS
SIGMAS = 5.0


def bits(key, shape=(ROWS, COLUMNS), dtype=jnp.uint16):
    return np.asarray(jax.random.bits(key, shape, dtype))


def masks(key, shape=(ROWS, COLUMNS)):
    """Returns a dropout mask of rate 0.1, shifted by 0.1 to mean zero: values 0.9 and -0.1."""
    return (bits(key, shape) < round(0.1 * 2**16)) - 0.1


@pytest.fixture(scope="module")
def key():
    return run_key(jax.random.key(7))


def test_every_bit_is_unbiased(key):
    drawn = bits(key)
    for place in range(16):
        ones = (drawn >> place & 1).mean()
        assert abs(ones - 0.5) < SIGMAS * 0.5 / np.sqrt(COUNT), place


def test_values_are_uniform(key):
    counts = np.bincount(bits(key).ravel() >> 6, minlength=1024)
    expected = COUNT / 1024
    chi_squared = np.square(counts - expected).sum() / expected
    assert abs(chi_squared - 1023) < SIGMAS * np.sqrt(2 * 1023)


def test_dropout_is_uniform_over_rows_and_columns(key):
    dropped = bits(key) < round(0.1 * 2**16)
    for axis, length in ((0, ROWS), (1, COLUMNS)):
        z = (dropped.mean(axis=axis) - 0.1) / np.sqrt(0.09 / length)
        assert abs(z).max() < SIGMAS
        assert 0.85 < z.std() < 1.15


@pytest.mark.parametrize(
    "steps", [(0, 1), (1, 0), (0, 2), (0, 16), (2, 0), (8, 0), (8, 1), (7, 13), (128, 0), (0, 512)]
)
def test_neighbouring_elements_are_independent(key, steps):
    mask = masks(key)
    down, across = steps
    pairs = mask[down:, across:] * mask[: ROWS - down, : COLUMNS - across]
    assert abs(pairs.mean()) < SIGMAS * 0.09 / np.sqrt(pairs.size)


@pytest.mark.parametrize("other", ["step", "layer", "seed", "split"])
def test_different_keys_give_independent_bits(key, other):
    keys = {
        "step": [jax.random.fold_in(key, number) for number in range(4)],
        "layer": [jax.random.fold_in(jax.random.fold_in(key, 1), number) for number in range(4)],
        "seed": [run_key(jax.random.key(number)) for number in (0, 1, 2, 3, 2**24, 2**31)],
        "split": list(jax.random.split(key, 4)),
    }[other]
    drawn = [masks(one) for one in keys]
    for i, one in enumerate(drawn):
        for another in drawn[:i]:
            for shift in (0, 1, COLUMNS):
                mean = (one * np.roll(another, shift)).mean()
                assert abs(mean) < SIGMAS * 0.09 / np.sqrt(COUNT)


@pytest.mark.parametrize("word", [0, 1])
def test_both_words_of_a_key_matter(word):
    one, other = np.array([3, 5], np.uint32), np.array([3, 5], np.uint32)
    other[word] += 1
    mean = (
        masks(jax.random.wrap_key_data(one, impl=HASHED)) * masks(jax.random.wrap_key_data(other, impl=HASHED))
    ).mean()
    assert abs(mean) < SIGMAS * 0.09 / np.sqrt(COUNT)


def test_the_hash_is_a_bijection():
    x = jnp.arange(1 << 20, dtype=jnp.uint32) * jnp.uint32(4093)
    assert len(np.unique(np.asarray(hash_index(x, jnp.uint32(5), jnp.uint32(9))))) == len(x)


def test_both_halves_of_a_hash_are_used_and_independent(key):
    """Rows t and t + 8 of sixteen share the hashes that arrays of 32 bits have in half as many rows."""
    halves = bits(key, (32, COLUMNS)).reshape(2, 2, 8, COLUMNS).astype(np.uint32)
    whole = bits(key, (16, COLUMNS), jnp.uint32).reshape(2, 8, COLUMNS)
    np.testing.assert_array_equal(halves[:, 0] << 16 | halves[:, 1], whole)
    halves = bits(key)[: ROWS // 16 * 16].reshape(-1, 2, 8, COLUMNS) >> 11
    upper, lower = halves[:, 0].ravel(), halves[:, 1].ravel()
    counts = np.bincount(upper * 32 + lower, minlength=1024)
    expected = counts.sum() / counts.size
    chi_squared = np.square(counts - expected).sum() / expected
    assert abs(chi_squared - (counts.size - 1)) < SIGMAS * np.sqrt(2 * counts.size)


@pytest.mark.parametrize("axis", [0, 1])
def test_rows_and_heads_have_independent_masks(key, axis):
    drawn = masks(key, (31, 12, 48, 64))
    for shift in (1, 2, 7):
        one, other = np.split(np.moveaxis(drawn, axis, 0), [shift])[1], np.moveaxis(drawn, axis, 0)[:-shift]
        assert abs((one * other).mean()) < SIGMAS * 0.09 / np.sqrt(one.size)


def test_matrices_do_not_repeat_after_2_to_the_32_elements(key):
    """Rows b and b + 1024 of 16 heads and 512 tokens are 2^32 elements apart: their masks were the same."""
    words = np.stack(matrix_key(jax.random.key_data(key), jnp.arange(1 << 16, dtype=jnp.uint32)))
    for word in words:
        assert len(np.unique(word)) == word.size


def test_matrices_whose_indices_overlap_have_almost_independent_masks(key):
    """The first word of some later matrix is that of matrix 0 plus 500, so all but 500 of their hashes share it."""
    words, index = jax.random.key_data(key), jnp.arange(COUNT, dtype=jnp.uint32)
    later = 500 * pow(0x9E3779B9, -1, 2**32) % 2**32
    one, other = (matrix_key(words, jnp.uint32(matrix)) for matrix in (0, later))
    assert other[0] - one[0] == 500
    drawn = [hash_index(index + 500, *one), hash_index(index, *other)]
    one, other = ((np.asarray(hashes) >> 16 < round(0.1 * 2**16)) - 0.1 for hashes in drawn)
    assert abs((one * other).mean()) < SIGMAS * 0.09 / np.sqrt(COUNT)


@pytest.mark.parametrize("generator", ["hashed", "threefry2x32"])
def test_a_shorter_array_is_a_prefix_of_a_longer_one(generator):
    """So the dropout mask of a row does not depend on how many rows follow."""
    key = run_key(jax.random.key(3), generator)
    np.testing.assert_array_equal(bits(key, (5, 7, 3)), bits(key, (11, 7, 3))[:5])


def test_vmapped_keys_give_the_same_bits_as_alone(key):
    keys = jax.random.split(key, 3)
    together = jax.vmap(lambda key: jax.random.bits(key, (7, 5), jnp.uint16))(keys)
    for one, drawn in zip(keys, together, strict=True):
        np.testing.assert_array_equal(drawn, bits(one, (7, 5)))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.uint32, np.uint64])
def test_bits_of_every_width_are_uniform(key, dtype):
    with jax.enable_x64(True):
        drawn = bits(key, (1000,), dtype)
    assert drawn.dtype == dtype
    half = np.iinfo(dtype).max // 2
    assert 400 < (drawn > half).sum() < 600
    assert len(np.unique(drawn & dtype(0xFF))) > 200  # the low bits vary as well


def test_a_single_element_can_be_drawn(key):
    drawn = {int(jax.random.bits(one, ())) for one in jax.random.split(key, 11)}
    assert len(drawn) == 11


def test_an_unknown_generator_is_refused():
    assert len({str(jax.random.key_impl(run_key(jax.random.key(0), name))) for name in GENERATORS}) == len(GENERATORS)
    with pytest.raises(ValueError, match="one of hashed, threefry2x32, rbg; got 'dice'"):
        run_key(jax.random.key(0), "dice")


def test_what_does_not_depend_on_the_key_is_small():
    """A loop over layers computes it once, and stores it."""
    shape = (3, 5, 64, 32)
    closed = jax.make_jaxpr(lambda key: _hashed_bits(key, 16, shape))(jnp.zeros(2, jnp.uint32))
    depends = set(closed.jaxpr.invars)
    sizes = []
    for equation in closed.jaxpr.eqns:
        if any(isinstance(x, type(closed.jaxpr.invars[0])) and x in depends for x in equation.invars):
            depends.update(equation.outvars)
        else:
            sizes += [out.aval.size for out in equation.outvars]
    assert depends.issuperset(closed.jaxpr.outvars)
    assert 0 < max(sizes) <= 64 * 32
