"""What is said of data that are read, but perhaps not as they were meant to be."""

import pytest

from bert_jax.finetuning.notes import say_labels, say_same
from bert_jax.finetuning.settings import Files


def test_that_classes_look_like_scores_or_like_texts_is_said(capsys):
    for names in (("1", "2"), ("1.5", "many"), ("nan", "0.5"), ("0.5", "1")):
        say_labels(names, 9)
    assert capsys.readouterr().out.count("--problem-type regression") == 1
    for count in (22, 21):
        say_labels([f"text {number}" for number in range(11)], count)
    assert capsys.readouterr().out == "11 labels of 21 examples: is that the column of the label?\n"


@pytest.mark.parametrize(
    ("train", "dev", "splits", "said"),
    [("a.tsv", "a.tsv", "two", True), ("a.tsv", "b.tsv", "one", False), ("hub", "hub", "two", False),
     ("hub", "hub", "one", True), (None, None, "one", False)],
)  # fmt: skip
def test_that_the_same_is_trained_on_and_evaluated_is_said(tmp_path, monkeypatch, capsys, train, dev, splits, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.tsv").touch()
    say_same(Files(train, dev, train_split="x", dev_split="x" if splits == "one" else "y"))
    assert ("--dev is --train" in capsys.readouterr().out) == said
