"""The model to start from: which head is kept, which is new, and what learns."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
import small_finetuning as small

from bert_jax.data.readers.examples import TextExample
from bert_jax.data.readers.glue import glue_task
from bert_jax.finetuning.data import kept_names, names_of_glue, prepare
from bert_jax.finetuning.model import Best, Source, dropouts, make_start
from bert_jax.finetuning.settings import read_settings, with_length
from bert_jax.interop.loading import LoadedBert, load
from bert_jax.tasks import Classification, QuestionAnswering, Tagging
from bert_jax.text.tokenizer import Tokenizer

NAMES = ("contradiction", "entailment", "neutral")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A model that tells three classes apart."""
    return small.make_model(
        tmp_path_factory.mktemp("model"), "BertForSequenceClassification", num_labels=3, label_names=NAMES
    )


@pytest.fixture(scope="module")
def source(folder):
    return Source.find(str(folder))


def classes(*names):
    return Classification("single_label_classification", names)


def begin(folder, *flags):
    return read_settings(["classification", "--model", str(folder), *flags], description="")


def test_the_very_same_head_is_kept_and_any_other_is_new(source):
    assert not source.load(classes(*NAMES)).new_parts
    for other in (classes(*NAMES[::-1]), classes("a", "b"), Classification("regression")):
        bert = source.load(other)
        assert bert.new_parts == {"classifier"}
        assert bert.params["classifier"]["bias"].shape == (len(other.names) or 1,)
    assert source.load(QuestionAnswering(True)).new_parts == {"span"}
    assert source.load(Tagging(("O", "B"))).new_parts == {"classifier"}


def test_texts_are_as_long_as_asked_for_as_in_training_or_as_usual(folder, source, tmp_path):
    for length, wanted in ((None, None), (20, 20), (source.config.max_position_embeddings, None)):
        bert = source.load(classes(*NAMES))
        tokenizer = Tokenizer(bert.tokenizer.backend, length)
        LoadedBert(bert.model, bert.params, tokenizer).save_pretrained(tmp_path / str(length))
        assert Source.find(str(tmp_path / str(length))).trained_length == wanted
    asked = begin(folder, "--do", "evaluate", "--dev", "d")
    assert with_length(asked, 20).data.max_length == 20
    assert with_length(asked, None).data.max_length == begin(folder).data.max_length == 128
    assert with_length(begin(folder, "--do", "evaluate", "--max-length", "30"), 20).data.max_length == 30
    assert read_settings(["squad", "--model", "m"], description="").data.max_length == 384


def test_what_is_to_answer_must_have_been_trained(source):
    with (
        pytest.warns(UserWarning, match="newly initialised"),
        pytest.raises(ValueError, match="has no span: it is to be trained first"),
    ):
        source.load(QuestionAnswering(True), trained=True)


def test_names_of_labels_are_kept_where_they_are_enough():
    examples = [TextExample("a", None, label, "t:1") for label in ("neutral", "entailment")]
    assert kept_names(examples, NAMES) == NAMES
    assert kept_names(examples, ("neutral", "other")) is None
    assert kept_names(examples, None) is None


def test_labels_of_glue_come_in_the_order_of_the_model(source):
    assert names_of_glue(glue_task("mnli"), source) == NAMES
    unnamed = replace(source, config=replace(source.config, label_names=None))
    assert names_of_glue(glue_task("mnli"), unnamed) == glue_task("mnli").labels
    with pytest.raises(ValueError, match="has 3 labels, SST-2 2"):
        names_of_glue(glue_task("sst2"), source)
    others = replace(source, config=replace(source.config, label_names=("a", "b", "c")))
    with pytest.raises(ValueError, match="tells a, b, c apart, MNLI entailment, neutral, contradiction"):
        names_of_glue(glue_task("mnli"), others)


def test_attention_may_have_a_dropout_of_its_own(folder):
    one, other = ["--dropout", "0.3"], ["--attention-probs-dropout-prob", "0"]
    everywhere = {"hidden_dropout_prob": 0.3, "classifier_dropout": 0.3, "attention_probs_dropout_prob": 0.3}
    assert dropouts(begin(folder).training) == {}
    assert dropouts(begin(folder, *one).training) == everywhere
    assert dropouts(begin(folder, *other).training) == {"attention_probs_dropout_prob": 0}
    assert dropouts(begin(folder, *one, *other).training) == everywhere | {"attention_probs_dropout_prob": 0}


@pytest.mark.parametrize(
    ("flags", "still"),
    [
        ([], set()),
        (["--freeze", "0"], {"embeddings"}),
        (["--freeze", "1"], {"embeddings"}),
        (["--freeze", "2"], {"embeddings", "encoder"}),
        (["--lora-rank", "2"], {"embeddings", "encoder"}),
    ],
)
def test_what_does_not_learn_is_there_once_for_all_seeds(folder, source, flags, still):
    bert = source.load(classes("a", "b"))
    start = make_start(begin(folder, *flags, "--seeds", "3", "--seed", "5"), bert)
    assert set(start.frozen) == still
    assert start.learning | still == {*bert.params, *({"adapters"} if "--lora-rank" in flags else ())}
    assert {len(leaf) for leaf in jax.tree.leaves(start.params)} == {3}
    heads = np.asarray(start.params["classifier"]["kernel"])
    assert len({head.tobytes() for head in heads}) == 3
    alone = make_start(begin(folder, *flags, "--seed", "6"), bert)
    jax.tree.map(lambda one, all_three: np.testing.assert_array_equal(one[0], all_three[1]), alone.params, start.params)


def test_a_model_of_a_later_step_than_the_checkpoint_is_replaced_by_the_repeat(folder, source, tmp_path):
    settings = begin(folder, "--seeds", "2", "--seed", "5", "--patience", "3")
    bert = source.load(classes(*NAMES))
    params = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), bert.params)

    def best():
        return Best(tmp_path, settings, bert.model, bert.tokenizer, metric="eval_f1")

    def take(best, step, *scores):
        row = {"eval_f1": np.array(scores)}
        best.take(step, row, jax.tree.map(lambda leaf: leaf * step, params), set(params))

    first = best()
    take(first, 1, 0.5, 0.5)
    take(first, 2, 0.1, np.nan)
    memory = json.loads(json.dumps(first.memory()))
    take(first, 3, 0.4, 0.7)  # its checkpoint was not saved any more
    again = best()
    again.recall(memory)
    assert (again.selection.best.tolist(), again.selection.waited.tolist()) == ([0.5, -np.inf], [1, 1])
    take(again, 3, 0.4, 0.2)
    assert again.selection.step.tolist() == [1, 3]
    again.keep()
    np.testing.assert_array_equal(load(tmp_path).params["pooler"]["kernel"], bert.params["pooler"]["kernel"])
    third = load(tmp_path / "seeds" / "6").params["pooler"]["kernel"]
    np.testing.assert_array_equal(third, 3 * bert.params["pooler"]["kernel"])


def test_from_scratch_takes_nothing_that_was_learned(folder, source):
    bert = source.load(classes(*NAMES))
    start = make_start(begin(folder, "--from-scratch"), bert)
    for new, old in zip(jax.tree.leaves(start.params), jax.tree.leaves(bert.params), strict=True):
        constant = np.ptp(np.asarray(old)) == 0  # biases and scales
        assert constant or (np.asarray(new[0]) != np.asarray(old)).any()


def test_a_threshold_of_no_answer_says_that_there_may_be_none(folder, source, write):
    data = write("asked.jsonl", '{"question": "where ?", "context": "anna lives in paris"}\n')
    lengths = ["--max-question-length", "12", "--max-length", "32"]
    flags = ["squad", "--model", str(folder), "--dev", data, "--do", "predict", *lengths]
    for more, wanted in (([], False), (["--null-threshold", "1.5"], True)):
        assert prepare(read_settings([*flags, *more], description=""), source).task.version_2 is wanted


def test_what_of_questions_cannot_be_learned_of_is_told(folder, source, write, capsys):
    """Answers moved, not found, in characters of no token and longer than a window; questions cut; windows apart."""
    long = " ".join(small.OTHER * 3)
    asked = [
        ("where ?", "anna lives in paris", "paris", 2),
        ("where ?", "anna lives in paris", "oslo", 2),
        ("where ?", "anna lives in \x00", "\x00", 14),
        ("who " * 9, long, long, 0),
        ("where ?", "boris lives in lima", "lima", 15),
    ]
    rows = [
        {"id": str(i), "question": question, "context": context, "answers": {"text": [text], "answer_start": [start]}}
        for i, (question, context, text, start) in enumerate(asked)
    ]
    path = write("asked.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    flags = ["squad", "--model", str(folder), "--train", path, "--dev", path, "--max-question-length", "7"]
    prepared = prepare(read_settings([*flags, "--max-length", "24"], description=""), source)
    said = capsys.readouterr().out
    for name in ("train", "dev"):
        lost = ", and are not learned of" if name == "train" else ""
        assert f"2 answers of {name} moved or not found, such as {path}:1" in said
        assert f"2 of 5 questions of {name} have an answer that no run of tokens holds{lost}\n" in said
        assert f"1 of 5 questions of {name} have an answer that no window holds whole{lost}\n" in said
        assert f"1 of 5 questions of {name} were cut to 7 tokens" in said
        assert f"1 of 5 questions of {name} leave less than --stride 128 tokens of room" in said
    assert prepared.train is not None
    assert set(prepared.train.features.sequences.questions.tolist()) == {0, 4}
