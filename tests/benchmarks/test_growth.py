"""How the growth benchmark computes and classifies the cost of doubling a size."""

import growth
import numpy as np
import pytest

SIZES = (64, 128, 256, 512)


@pytest.mark.parametrize("p", [0.5, 1.0, 1.5, 2.0])
def test_doubling_the_size_multiplies_a_power_by_2_to_that_power(p):
    assert growth.cost_of_doubling(SIZES, [3 * size**p for size in SIZES]) == pytest.approx(2**p)


def test_linear_growth_with_fixed_costs_and_noise_stays_below_the_limit():
    random = np.random.default_rng(0)
    for fixed in (0.0, 0.5, 2.0, 5.0):
        linear = fixed * SIZES[-1] + np.array(SIZES)
        assert growth.cost_of_doubling(SIZES, linear) <= 2 + 1e-9
        assert growth.cost_of_doubling(SIZES, linear * random.uniform(0.95, 1.05, 4)) < 2 * (1 + growth.NOISE)


def test_only_the_length_may_grow_faster_than_linearly():
    def classes(p):
        points = [growth.Point(size, seconds=0.1 + (size / 64) ** p, tokens=size, bytes=size << 20) for size in SIZES]
        axes = {"length": points, "rows": points, growth.CORPUS: points}
        rows = growth.format_tables(axes, machine_rate=100.0)[2:5]
        time = growth.cost_of_doubling(SIZES, [point.seconds for point in points])
        assert all(f"| {time:.2f}x |  | 2.00x |" in row for row in rows)
        return [row.split("|")[-2].strip() for row in rows]

    assert classes(1.0) == ["at most linear"] * 3
    assert classes(2.0) == ["attention's T²", "SUPER-LINEAR", "SUPER-LINEAR"]
    assert classes(2.5) == ["SUPER-LINEAR"] * 3


def test_the_picture_is_small(tmp_path):
    points = [growth.Point(size, seconds=size / 100, tokens=size, bytes=size << 20) for size in SIZES]
    growth.draw({"length": points, "rows": points}, str(tmp_path / "docs" / "growth.png"))
    assert 1_000 < (tmp_path / "docs" / "growth.png").stat().st_size < 100_000
