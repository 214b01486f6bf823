"""Pictures and tables that anything may stand in: names like formulas, bars, broken characters, a thousand classes."""

import numpy as np
import pytest
from matplotlib.image import imread

from bert_jax.tasks.reports import LEGIBLE, draw_confusion, list_mistakes


@pytest.mark.parametrize("count", [3, LEGIBLE + 40])
def test_confusions_of_many_classes_are_pictures_of_a_bounded_size(tmp_path, count):
    names = ["$\\nothing$", *map(str, range(1, count))]
    draw_confusion(tmp_path / "confusion.png", np.eye(count, dtype=np.int64) * 7, names)
    assert 300 < max(imread(tmp_path / "confusion.png").shape) < 4_000


def test_a_table_has_a_line_for_each_mistake_whatever_stands_in_it(tmp_path):
    rows = [("0.9", "a | b\nc", "broken \ud800", "long " * 99)]
    lines = list_mistakes(tmp_path / "mistakes.md", ("p", "q", "r", "s"), rows, wrong=1, of=7)
    table = (tmp_path / "mistakes.md").read_text(encoding="utf-8").splitlines()
    assert len(table) == 3
    assert table[2].startswith("| 0.9 | a \\| b c | broken \ufffd | long long")
    assert table[2].endswith(" ... |")
    assert lines[0].startswith("1 of 7 are wrong")
    "\n".join(lines).encode()
