"""Folders of `save_to_disk` are sources like files."""

import json

import datasets
import pytest

from bert_jax.data.readers.corpus import read_corpus
from bert_jax.data.readers.sources import find_origins
from bert_jax.data.readers.tables import name_of
from bert_jax.data.readers.texts import read_texts

FEATURES = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})


@pytest.fixture
def dataset():
    return datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=FEATURES)


def test_a_saved_dataset_is_read_with_its_class_names(dataset, tmp_path):
    dataset.save_to_disk(tmp_path / "one")
    examples, columns = read_texts(str(tmp_path / "one"), split="any")
    assert [(example.text, example.label) for example in examples] == [("a", "yes"), ("b", "no"), ("c", None)]
    assert columns.classes == ("no", "yes")
    assert examples[0].where == f"{tmp_path / 'one'}:1"
    documents = read_corpus(str(tmp_path / "one"), cache_dir=tmp_path / "cache")
    assert documents["text"] == ["a", "b", "c"]


def test_a_split_of_saved_datasets_is_chosen(dataset, tmp_path):
    datasets.DatasetDict(train=dataset, test=dataset.select([1])).save_to_disk(tmp_path / "all")
    [origin] = find_origins([str(tmp_path / "all")], "test")
    assert len(origin) == 1
    assert name_of(origin) == f"{tmp_path / 'all'}[test]"
    with pytest.raises(ValueError, match=r"all has no split 'validation'; its splits are train, test"):
        find_origins([str(tmp_path / "all")], "validation")


def test_other_folders_and_damaged_ones_are_refused_by_name(dataset, tmp_path):
    with pytest.raises(IsADirectoryError, match="is a folder; name its files"):
        find_origins([str(tmp_path)], "train")
    dataset.save_to_disk(tmp_path / "one")
    state = tmp_path / "one" / "state.json"
    values = json.loads(state.read_text())
    for content in ("{", json.dumps(values | {"_data_files": [{"filename": "absent.arrow"}]})):
        state.write_text(content)
        with pytest.raises((ValueError, OSError), match=r"one: not a folder of `save_to_disk` \(.+\)$"):
            find_origins([str(tmp_path / "one")], "train")
