"""The model to start from: which head is kept, which is new, what is trained, and which model is the best."""

import json
from dataclasses import replace

import jax
import numpy as np
import pytest
import small_finetuning as small

from bert_jax.config import BertConfig
from bert_jax.data.readers.examples import TextExample
from bert_jax.data.readers.glue import glue_task
from bert_jax.finetuning import make_settings
from bert_jax.finetuning.model import BestModel, dropout_rates, initial_parameters, make_ensemble
from bert_jax.interop.loading import LoadedBert, load
from bert_jax.models import BertForSequenceClassification, BertForTokenClassification
from bert_jax.pipelines import TextClassifier
from bert_jax.tasks.classification import Classification, glue_label_order
from bert_jax.tasks.question_answering import QuestionAnswering, QuestionAnsweringData
from bert_jax.tasks.source import ModelSource
from bert_jax.tasks.tagging import Tagging
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training.runs.metrics import MetricsFile

NAMES = ("contradiction", "entailment", "neutral")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A classifier of three classes."""
    return small.make_model(
        tmp_path_factory.mktemp("model"), "BertForSequenceClassification", num_labels=3, label_names=NAMES
    )


@pytest.fixture(scope="module")
def source(folder):
    return ModelSource.find(str(folder))


def classes(*names):
    return Classification("single_label_classification", names)


def load_for(source, task, **options):
    return source.load(task.model, task.config_changes, **options)


def settings(folder, **fields):
    return make_settings("classification", model=str(folder), **fields)


def test_the_same_head_is_kept_and_any_other_is_new(source):
    assert not load_for(source, classes(*NAMES)).new_parts
    for other in (classes(*NAMES[::-1]), classes("a", "b"), Classification("regression")):
        bert = load_for(source, other)
        assert bert.new_parts == {"classifier"}
        assert bert.params["classifier"]["bias"].shape == (len(other.names) or 1,)
    assert load_for(source, QuestionAnswering(True)).new_parts == {"span"}
    assert load_for(source, Tagging(("O", "B"))).new_parts == {"classifier"}


def test_max_length_is_the_given_the_trained_or_the_default_length(folder, source, tmp_path):
    for length, wanted in ((None, None), (20, 20), (source.config.max_position_embeddings, None)):
        bert = load_for(source, classes(*NAMES))
        tokenizer = Tokenizer(bert.tokenizer.backend, length)
        LoadedBert(bert.model, bert.params, tokenizer).save_pretrained(tmp_path / str(length))
        assert ModelSource.find(str(tmp_path / str(length))).trained_length == wanted
    default = settings(folder, do="evaluate", dev="d")
    assert default.with_length(20).data.max_length == 20
    assert default.with_length().data.max_length == 128
    assert default.replace(max_length=30).with_length(20).data.max_length == 30
    assert make_settings("squad", model="m").with_length().data.max_length == 384


def test_evaluation_needs_a_trained_head(source):
    with (
        pytest.warns(UserWarning, match="newly initialized"),
        pytest.raises(ValueError, match="has no trained span: fine-tune it first"),
    ):
        load_for(source, QuestionAnswering(True), trained=True)


def test_label_names_of_the_model_are_kept_if_they_include_those_of_the_data(source):
    head = BertForSequenceClassification
    assert source.reusable_labels(head, {"neutral", "entailment"}) == NAMES
    assert source.reusable_labels(head, {"neutral", "other"}) is None
    assert source.reusable_labels(BertForTokenClassification, {"neutral"}) is None
    examples = [TextExample("a", None, label, "t:1") for label in ("neutral", "entailment")]
    assert classes().with_labels_of(examples, source).names == NAMES
    others = [TextExample("a", None, label, "t:1") for label in ("neutral", "other")]
    assert classes().with_labels_of(others, source).names == ("neutral", "other")


def test_labels_of_glue_are_in_the_order_of_the_model(source):
    assert glue_label_order(glue_task("mnli"), source) == NAMES
    unnamed = replace(source, config=replace(source.config, label_names=None))
    assert glue_label_order(glue_task("mnli"), unnamed) == glue_task("mnli").labels
    with pytest.raises(ValueError, match="has 3 labels, SST-2 has 2"):
        glue_label_order(glue_task("sst2"), source)
    others = replace(source, config=replace(source.config, label_names=("a", "b", "c")))
    with pytest.raises(
        ValueError, match=r"label mismatch: model has \[a, b, c\], MNLI has \[entailment, neutral, contradiction\]"
    ):
        glue_label_order(glue_task("mnli"), others)


def trained_on(source, **columns):
    return replace(source, config=replace(source.config, data_columns=tuple(columns.items())))


@pytest.mark.parametrize("do", ["evaluate", "predict"])
def test_a_model_reads_the_columns_that_it_was_trained_on(folder, source, write, capsys, do):
    rows = "text,body,stars,label\na,it was dull,neutral,7\n"
    given = {"do": do, "max_length": 9, "dev": write("dev.csv", rows)}
    plain = settings(folder, **given)
    of_body = trained_on(source, text="body", label="stars")
    data = plain.data.prepare(of_body, do)
    assert data.splits[0].examples[0].text == "it was dull"
    assert data.splits[0].examples[0].label == ("neutral" if do == "evaluate" else None)
    assert "was trained on" not in capsys.readouterr().out
    label = {"label_column": "stars"}
    data = settings(folder, **given, **label, text_column="text").data.prepare(of_body, do)
    assert data.splits[0].examples[0].text == "a"
    assert "the model was trained on texts in 'body'" in capsys.readouterr().out
    absent = settings(folder, **given, **label).data.prepare(trained_on(source, text="absent"), do)
    assert absent.splits[0].examples[0].text == "a"
    assert "the model was trained on texts in 'absent'" in capsys.readouterr().out


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification", "regression"])
def test_a_model_reads_one_column_for_each_label_again(folder, source, write, problem):
    path = write("a.csv", "text,label,x,y\na,7,1,0\nb,8,0,1\n")
    given = {"max_length": 9, "dev": path, "problem_type": problem}
    task = settings(folder, **given, train=path, label_columns=("x", "y")).data.prepare(source, "train").task
    config = replace(source.config, **{"num_labels": 2, **task.config_changes})
    [split] = settings(folder, **given, do="evaluate").data.prepare(replace(source, config=config), "evaluate").splits
    labels = [example.label for example in split.examples]
    assert labels == {"r": [(1, 0), (0, 1)], "m": [("x",), ("y",)], "s": ["x", "y"]}[problem[0]]


@pytest.mark.parametrize("do", ["train", "predict"])
def test_empty_texts_are_counted_also_in_pairs(folder, source, write, do):
    path = write("a.csv", 'sentence1,sentence2,label\na,,x\n" ",b,y\na,b,y\n')
    data = settings(folder, train=path, dev=path, max_length=9).data.prepare(source, do)
    assert len(data.splits[-1].examples) == 3
    for report in data.reports:
        assert report.as_dict()["changed"] == {"rows with an empty text": {"count": 2, "first": f"{path}:2"}}


def test_single_texts_and_pairs_are_not_confused(folder, source, write):
    single = settings(folder, do="predict", max_length=9, dev=write("one.csv", "text,other\na,b\n"))
    of_pairs = trained_on(source, text="premise", pair="hypothesis")
    with pytest.raises(
        ValueError, match=r"one\.csv: single texts in 'text', .* on pairs in 'premise' and 'hypothesis'"
    ):
        single.data.prepare(of_pairs, "predict")
    named = single.replace(text_column="text", pair_column="other").data.prepare(of_pairs, "predict")
    assert named.splits[0].examples[0].pair == "b"
    pairs = settings(folder, do="predict", max_length=9, dev=write("two.csv", "question1,question2,text\na,b,c\n"))
    with pytest.raises(ValueError, match=r"two\.csv: pairs of texts .* trained on single texts in 'body'"):
        pairs.data.prepare(trained_on(source, text="body"), "predict")
    assert pairs.data.prepare(trained_on(source, text="text"), "predict").splits[0].examples[0].text == "c"


def test_choices_are_read_from_the_columns_that_the_model_was_trained_on(source, write, capsys):
    path = write("a.csv", "question,text,ending0,ending1,x,y,label\nq,t,a,b,c,d,0\nr,u,a,b,e,f,nan\n")
    named = {"text_column": "text", "choice_columns": ("x", "y")}
    given = {"model": str(source.folder), "max_length": 9}
    read = make_settings("multiple-choice", train=path, dev=path, **named, **given)
    data = read.data.prepare(source, "train")
    assert [len(split.examples) for split in data.splits] == [1, 1]
    assert f"{path}: skipped 1 of 2 rows: rows without a label (first: {path}:3)" in capsys.readouterr().out
    columns = data.task.config_changes["data_columns"]
    assert columns == (("text", "text"), ("choice 1", "x"), ("choice 2", "y"), ("label", "label"))
    trained = replace(source, config=replace(source.config, data_columns=columns))
    predict = make_settings("multiple-choice", do="predict", dev=path, **given)
    [split] = predict.data.prepare(trained, "predict").splits
    assert [(example.text, example.choices) for example in split.examples] == [("t", ("c", "d")), ("u", ("e", "f"))]
    other = write("b.csv", "question,ending0,ending1\nq,a,b\n")
    predict.replace(dev=other).data.prepare(trained, "predict")
    assert f"{other}: the model was trained on 'text', 'x', 'y'" in capsys.readouterr().out


def test_columns_are_kept_with_the_model(folder, source, write, tmp_path):
    path = write("train.csv", "Review,stars\na,neutral\nb,entailment\n")
    read = settings(folder, train=path, dev=path, max_length=9, text_column="Review", label_column="stars")
    task = read.data.prepare(source, "train").task
    bert = source.load(task.model, task.config_changes)
    bert.save_pretrained(tmp_path / "saved")
    values = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert values["data_columns"] == {"text": "Review", "label": "stars"}
    assert ModelSource.find(str(tmp_path / "saved")).columns == values["data_columns"]


def test_a_pipeline_for_pairs_refuses_single_texts(source):
    task = replace(classes(*NAMES), columns=(("text", "premise"), ("pair", "hypothesis")))
    classify = TextClassifier(source.load(task.model, task.config_changes))
    with pytest.raises(ValueError, match=r"fine-tuned on pairs \('premise' and 'hypothesis'\): give \{'text': ..."):
        classify.pair("a text")
    assert classify.pair({"text": "a", "text_pair": "b"}) == ("a", "b")


def test_rows_without_a_label_are_left_out_and_counted(folder, source, write, capsys):
    train = write("train.csv", "text,label\na,neutral\nb,\nc,nan\nd,contradiction\ne,neutral\n")
    dev = write("dev.jsonl", '{"text": "a", "label": null}\n{"text": "b", "label": "neutral"}\n')
    data = settings(folder, train=train, dev=dev, max_length=9).data.prepare(source, "train")
    assert [len(split.examples) for split in data.splits] == [3, 1]
    said = capsys.readouterr().out
    assert f"{train}: skipped 2 of 5 rows: rows without a label (first: {train}:3)" in said
    assert f"{dev}: skipped 1 of 2 rows: rows without a label (first: {dev}:1)" in said
    assert [(report.rows, report.used) for report in data.reports] == [(5, 3), (2, 1)]
    predicted = settings(folder, do="predict", dev=dev, max_length=9).data.prepare(source, "predict")
    assert len(predicted.splits[0].examples) == 2


def test_numbers_are_labels_with_given_names(folder, source, write):
    path = write("train.csv", "text,label\na,0.0\nb,1.0\nc,1.0\n")
    named = settings(folder, train=path, dev=path, max_length=9, label_names="no,yes")
    data = named.data.prepare(source, "train")
    assert data.task.config_changes["label_names"] == ("no", "yes")
    assert data.splits[0].labels.tolist() == [0, 1, 1]
    with pytest.raises(ValueError, match=r"`label_names=no,yes`: the labels of .* are contradiction, entailment, neu"):
        settings(folder, do="evaluate", dev=path, max_length=9, label_names="no,yes").data.prepare(source, "evaluate")
    for names in ("a,a", "a,", "a"):
        with pytest.raises(ValueError, match="`label_names` must be different names separated by commas"):
            settings(folder, train=path, dev=path, label_names=names).data.check("train")


def test_a_model_is_evaluated_on_labels_in_another_form(folder, source, write):
    """Lists of zeros and ones in one file, one column for each label in another."""
    several = {"problem_type": "multi_label_classification", "max_length": 9}
    lists = write("train.jsonl", '{"text": "a", "label": [1, 0, 1]}\n{"text": "b", "label": [0, 1, 0]}\n')
    columns = write("dev.csv", "text,y,z,x\nb,1,0,0\na,0,1,1\n")
    read = settings(folder, train=lists, dev=columns, label_names="x,y,z", **several)
    data = read.data.prepare(source, "train")
    assert [split.labels.tolist() for split in data.splits] == [[[1, 0, 1], [0, 1, 0]], [[0, 1, 0], [1, 0, 1]]]


def test_attention_may_have_another_dropout_rate(folder):
    one, other = {"dropout": 0.3}, {"attention_probs_dropout_prob": 0.0}
    everywhere = {"hidden_dropout_prob": 0.3, "classifier_dropout": 0.3, "attention_probs_dropout_prob": 0.3}

    def rates(model_type="bert", **changes):
        return dropout_rates(settings(folder, **changes).training, BertConfig(model_type=model_type))

    assert rates() == {}
    assert rates(**one) == everywhere
    assert rates(**other) == {"attention_probs_dropout_prob": 0}
    assert rates(**one, **other) == everywhere | {"attention_probs_dropout_prob": 0}
    assert rates("distilbert", **one) == everywhere | {"span_dropout": 0.3}


@pytest.mark.parametrize(
    ("fields", "frozen"),
    [
        ({}, set()),
        ({"freeze": 0}, {"embeddings"}),
        ({"freeze": 1}, {"embeddings"}),
        ({"freeze": 2}, {"embeddings", "encoder"}),
        ({"lora_rank": 2}, {"embeddings", "encoder"}),
    ],
)
def test_frozen_parts_exist_once_for_all_seeds(folder, source, fields, frozen):
    bert = load_for(source, classes("a", "b"))
    chosen = settings(folder, **fields, seeds=3, seed=5)
    ensemble = make_ensemble(chosen, bert)
    params, shared = initial_parameters(chosen, bert, ensemble)
    assert set(shared) == frozen
    assert set(params) == ensemble.trained
    assert ensemble.trained | frozen == {*bert.params, *({"adapters"} if "lora_rank" in fields else ())}
    assert {len(leaf) for leaf in jax.tree.leaves(params)} == {3}
    heads = np.asarray(params["classifier"]["kernel"])
    assert len({head.tobytes() for head in heads}) == 3
    one_seed = settings(folder, **fields, seed=6)
    alone, _ = initial_parameters(one_seed, bert, make_ensemble(one_seed, bert))
    jax.tree.map(lambda one, all_three: np.testing.assert_array_equal(one[0], all_three[1]), alone, params)


def test_a_model_newer_than_the_checkpoint_is_replaced_after_resuming(folder, source, tmp_path, capsys):
    chosen = settings(folder, seeds=2, seed=5, patience=3, max_length=32)
    task = Tagging(NAMES)  # its metric is f1
    bert = load_for(source, classes(*NAMES))
    params = jax.tree.map(lambda leaf: np.stack([leaf, leaf]), bert.params)

    def make_best():
        return BestModel(tmp_path, chosen, bert.model, bert.tokenizer, task, make_ensemble(chosen, bert))

    def update(best, step, *scores):
        row = {"eval_f1": np.array(scores)}
        best.update(step, row, jax.tree.map(lambda leaf: leaf * step, params))

    file = MetricsFile(tmp_path / "metrics.jsonl")
    killed = make_best()
    for step, *scores in ((1, 0.5, 0.5), (2, 0.1, np.nan), (3, 0.4, 0.7)):
        update(killed, step, *scores)
        file.write(*({"step": step, "seed": seed, "eval_f1": x} for seed, x in zip((5, 6), scores, strict=True)))
    resumed = make_best()
    capsys.readouterr()
    resumed.resume(2)  # killed before the checkpoint of step 3
    replaced = "seed 6: the best evaluation is of step 1, but best.json names step 3: the next evaluation replaces"
    assert [line.startswith(replaced) for line in capsys.readouterr().out.splitlines()] == [True]
    assert (resumed.selection.best.tolist(), resumed.selection.waited.tolist()) == ([0.5, -np.inf], [1, 1])
    update(resumed, 3, 0.4, 0.2)
    assert resumed.selection.step.tolist() == [1, 3]
    resumed.export()
    np.testing.assert_array_equal(load(tmp_path).params["pooler"]["kernel"], bert.params["pooler"]["kernel"])
    third = load(tmp_path / "seeds" / "6").params["pooler"]["kernel"]
    np.testing.assert_array_equal(third, 3 * bert.params["pooler"]["kernel"])


@pytest.mark.parametrize("content", ["", '{"5": 1', "[]", '{"5": [1]}', '{"5": "x"}', "\0" * 12])
def test_a_damaged_record_of_the_best_models_is_named(folder, source, tmp_path, content):
    bert = load_for(source, classes(*NAMES))
    chosen = settings(folder, seed=5)
    best = BestModel(tmp_path, chosen, bert.model, bert.tokenizer, classes(*NAMES), make_ensemble(chosen, bert))
    (tmp_path / "best.json").write_text(content)
    with pytest.raises(ValueError, match=r"best\.json: damaged, expected a step for each seed; delete it: the next"):
        best.resume(2)
    (tmp_path / "best.json").unlink()
    best.resume(2)


def test_from_scratch_draws_all_parameters(folder, source):
    bert = load_for(source, classes(*NAMES))
    chosen = settings(folder, from_scratch=True)
    params, _ = initial_parameters(chosen, bert, make_ensemble(chosen, bert))
    for new, old in zip(jax.tree.leaves(params), jax.tree.leaves(bert.params), strict=True):
        constant = np.ptp(np.asarray(old)) == 0  # biases and scales
        assert constant or (np.asarray(new[0]) != np.asarray(old)).any()


def test_a_null_threshold_implies_version_2(folder, source, write):
    data = write("asked.jsonl", '{"question": "where ?", "context": "anna lives in paris"}\n')
    for threshold, version_2 in ((None, False), (1.5, True)):
        questions = QuestionAnsweringData(
            dev=str(data), max_question_length=12, max_length=32, null_threshold=threshold
        )
        task = questions.prepare(source, "predict").task
        assert isinstance(task, QuestionAnswering)
        assert task.version_2 is version_2


def test_questions_that_cannot_be_trained_on_are_counted(folder, source, write, capsys):
    """Answers moved, not found, without tokens or longer than a window; questions cut; windows without overlap."""
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
    data = QuestionAnsweringData(train=str(path), dev=str(path), max_question_length=7, max_length=24)
    prepared = data.prepare(source, "train")
    said = capsys.readouterr().out
    assert said.count(f"{path}: answers that are not at their answer_start") == 2
    assert said.count(f"{path}: answers that the context does not contain: 1 (first: {path}:2)\n") == 2
    for name in ("train", "dev"):
        lost = " and are not trained on" if name == "train" else ""
        assert f"2 of 5 questions of {name} have an answer that matches no tokens{lost}\n" in said
        assert f"1 of 5 questions of {name} have an answer longer than a window{lost}\n" in said
        assert f"1 of 5 questions of {name} were cut to 7 tokens" in said
        assert f"1 of 5 questions of {name} leave windows of less than the stride (128 tokens)" in said
    assert prepared.train is not None
    assert set(prepared.train.features.sequences.questions.tolist()) == {0, 4}
