import pytest

from bert_jax.data.practice import practice_documents
from bert_jax.data.practice.sources import practice_dataset
from bert_jax.data.readers.corpus import read_corpus
from bert_jax.data.readers.questions import read_questions
from bert_jax.data.readers.report import ReadReport
from bert_jax.data.readers.sources import find_origins
from bert_jax.data.readers.tables import name_of


def test_a_corpus_is_read_by_its_name_and_kept_like_others(tmp_path):
    documents = read_corpus("practice:id", cache_dir=tmp_path)
    assert documents["text"][:] == practice_documents("id")
    again = read_corpus("practice:id", cache_dir=tmp_path)
    assert again._fingerprint == documents._fingerprint
    assert len(list(tmp_path.iterdir())) == 1


def test_splits_differ_and_the_held_out_one_is_smaller():
    train, held_out = (practice_dataset("practice:en-names", split) for split in ("train", "validation"))
    assert len(held_out) == len(train) // 5
    assert held_out["words"][:] != train["words"][: len(held_out)]
    assert name_of(train) == "practice:en-names[train]"


def test_questions_are_read_as_those_of_squad():
    [origin] = find_origins(["practice:id-questions"], "validation")
    assert set(origin.column_names) == {"id", "question", "context", "answers"}
    questions = list(read_questions("practice:id-questions", split="validation", report=ReadReport("questions")))
    assert len(questions) == 400
    assert all(question.answers for question in questions)


@pytest.mark.parametrize("name", ["practice:de", "practice:id-verbs"])
def test_other_names_are_refused_with_those_that_exist(name):
    with pytest.raises(ValueError, match=f"there is no '{name}'; the practice data are practice:id, practice:id-names"):
        find_origins([name], "train")


def test_other_splits_are_refused():
    with pytest.raises(ValueError, match="practice:id has no split 'test'; its splits are train, validation"):
        find_origins(["practice:id"], "test")
