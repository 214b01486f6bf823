"""Pictures, tables and notes for any content: names like formulas, bars, broken characters, a thousand classes."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib import font_manager
from matplotlib.image import imread

from bert_jax.tasks.base import TaskData
from bert_jax.tasks.reports import (
    MOST_CLASSES,
    _characters,
    _fonts_for,
    draw_confusion,
    list_mistakes,
    most_confused,
    note_labels,
)


@pytest.mark.parametrize("count", [3, MOST_CLASSES + 40])
def test_confusions_of_many_classes_are_pictures_of_a_bounded_size(tmp_path, count):
    names = ["$\\nothing$", *map(str, range(1, count))]
    draw_confusion(tmp_path / "confusion.png", np.eye(count, dtype=np.int64) * 7, names)
    assert 300 < max(imread(tmp_path / "confusion.png").shape) < 4_000


@pytest.fixture
def installed(monkeypatch):
    """Makes matplotlib find only its own fonts, and returns the characters that DejaVu Sans has."""
    own = [font for font in font_manager.fontManager.ttflist if "mpl-data" in font.fname]
    monkeypatch.setattr(font_manager.fontManager, "ttflist", own)
    return _characters(font_manager.findfont("DejaVu Sans"))


def test_classes_whose_names_no_font_has_are_shown_by_number(tmp_path, installed):
    """Chinese, Japanese, Devanagari; Arabic and Hebrew are in matplotlib's own font. A missing glyph is a warning."""
    names = ["体育", "رياضة", "日本語", "שלום", "हिन्दी", "sport"]
    counts = np.eye(len(names), dtype=np.int64)
    (line,) = draw_confusion(tmp_path / "confusion.png", counts, names)
    assert line.endswith("no installed font has by their numbers: #0 = 体育, #2 = 日本語, #4 = हिन्दी")
    assert draw_confusion(tmp_path / "confusion.png", np.eye(3, dtype=np.int64), ["رياضة", "שלום", "Größe"]) == []


def test_another_installed_font_is_used_for_what_the_first_one_lacks(installed):
    """STIX, which comes with matplotlib, has mathematical signs that DejaVu Sans lacks."""
    stix = next(font for font in font_manager.fontManager.ttflist if font.name == "STIXGeneral")
    sign = min(_characters(stix.fname) - installed - set(map(chr, range(32))))
    fonts, missing = _fonts_for(["a体", sign])
    assert fonts[0] == "DejaVu Sans"
    assert len(fonts) == 2
    assert missing == {"体"}


def test_the_classes_with_the_most_mistakes_are_shown():
    counts = np.diag([5, 9, 8, 7])
    counts[0, 1], counts[2, 1], counts[3, 0] = 2, 1, 3
    # Mistakes as label and as prediction: class 0 has 2 + 3, class 1 has 2 + 1, class 2 has 1, class 3 has 3.
    assert most_confused(counts, 2).tolist() == [0, 1]
    assert most_confused(counts, 3).tolist() == [0, 1, 3]
    assert most_confused(counts, 9).tolist() == [0, 1, 2, 3]


def test_a_table_has_one_line_per_mistake_for_any_content(tmp_path):
    rows = [("0.9", "a | b\nc", "broken \ud800", "long " * 99)]
    lines = list_mistakes(tmp_path / "mistakes.md", ("p", "q", "r", "s"), rows, wrong=1, total=7)
    table = (tmp_path / "mistakes.md").read_text(encoding="utf-8").splitlines()
    assert len(table) == 3
    assert table[2].startswith("| 0.9 | a \\| b c | broken \ufffd | long long")
    assert table[2].endswith(" ... |")
    assert lines[0].startswith("1 of 7 are wrong")
    "\n".join(lines).encode()


def test_rows_on_the_screen_have_a_header_and_aligned_columns(tmp_path):
    path = tmp_path / "mistakes.md"
    columns = ("probability", "label", "predicted", "text")
    rows = [("0.987", "negative", "positive", "a film"), ("0.5", "positive", "negative", "")] * 2
    assert list_mistakes(path, columns, rows, wrong=4, total=7) == [
        f"4 of 7 are wrong; the most confident mistakes are in {path}",
        "  probability  label     predicted  text",
        "  0.987        negative  positive   a film",
        "  0.5          positive  negative",
        "  0.987        negative  positive   a film",
    ]
    assert len(list_mistakes(path, columns, [], wrong=0, total=7)) == 1


def test_classes_that_look_like_scores_or_like_texts_are_noted(capsys):
    for names in (("1", "2"), ("1.5", "many"), ("nan", "0.5"), ("0.5", "1")):
        note_labels(names, 9)
    assert capsys.readouterr().out.count("the problem type must be regression") == 1
    for count in (22, 21):
        note_labels([f"text {number}" for number in range(11)], count)
    assert capsys.readouterr().out == "11 labels for 21 examples: is this the right label column?\n"


@pytest.mark.parametrize(
    ("train", "dev", "splits", "same"),
    [("a.tsv", "a.tsv", "two", True), ("a.tsv", "b.tsv", "one", False), ("hub", "hub", "two", False),
     ("hub", "hub", "one", True), (None, None, "one", False)],
)  # fmt: skip
def test_evaluating_on_the_training_data_is_noted(tmp_path, monkeypatch, train, dev, splits, same):
    monkeypatch.chdir(tmp_path)
    Path("a.tsv").touch()
    data = TaskData(train, dev, train_split="x", dev_split="x" if splits == "one" else "y")
    assert data.evaluates_on_training_data == same
