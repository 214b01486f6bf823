"""The four tasks: metrics, predictions in the order of the input, and reports."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_finetuning import GOOD, OTHER
from torch_extra import of_torch_extra

from bert_jax.config import BertConfig
from bert_jax.data.readers.examples import Answer, ChoiceExample, Question, TaggedExample, TextExample
from bert_jax.data.readers.report import ReadReport
from bert_jax.functional import losses
from bert_jax.models import Outputs
from bert_jax.tasks import TASKS
from bert_jax.tasks.classification import Classification
from bert_jax.tasks.multiple_choice import MultipleChoice
from bert_jax.tasks.question_answering import QuestionAnswering
from bert_jax.tasks.source import ModelSource
from bert_jax.tasks.tagging import Tagging, TaggingData
from bert_jax.text.tokenizer import Tokenizer

SAME_IN_FLOAT32 = 1e-6
CONFIDENT = 9.0


@pytest.fixture(scope="module")
def words():
    return Tokenizer.train([" ".join([*GOOD, *OTHER, "paris", "?"])] * 3, 200, min_frequency=1)


def texts(*labels):
    return [TextExample(f"film {i}", None, label, f"t.tsv:{i + 1}") for i, label in enumerate(labels)]


def logits(*rows):
    return np.array(rows, np.float32)


# Classes


def test_classes_are_scored_predicted_and_listed(words, tmp_path):
    task = Classification("single_label_classification", ("bad", "fair", "good"))
    split = task.encode("", texts("good", "bad", "fair", "bad"), words, max_length=9)
    answers = logits([0, 0, 2], [0, 4, 0], [0, 1, 0], [0, 0, 3])
    assert task.compute_metrics(split, answers)["accuracy"] == 0.5
    assert task.compute_metrics(split, answers)["collapsed"] == 0.0
    assert task.compute_metrics(split, logits(*[[1, 0, 0]] * 4))["collapsed"] == 1.0
    rows = list(task.predictions(split, answers))
    assert [(row["text"], row["label"], row["gold"]) for row in rows] == [
        ("film 0", "good", "good"), ("film 1", "fair", "bad"), ("film 2", "fair", "fair"), ("film 3", "good", "bad"),
    ]  # fmt: skip
    assert rows[1]["score"] == pytest.approx(math.exp(4) / (math.exp(4) + 2))
    assert rows[1]["probabilities"].keys() == {"bad", "fair", "good"}
    lines = task.report(tmp_path, split, answers, mistakes=2)
    assert lines[0].startswith("2 of 4 are wrong")
    table = (tmp_path / "mistakes.md").read_text().splitlines()
    assert [line.split(" | ")[1:] for line in table[2:]] == [
        ["fair", "bad", "film 1", "t.tsv:2 |"], ["good", "bad", "film 3", "t.tsv:4 |"],
    ]  # fmt: skip
    assert (tmp_path / "confusion.png").stat().st_size > 1000


def test_a_text_may_have_several_labels(words, tmp_path):
    task = Classification("multi_label_classification", ("dull", "loud", "long"))
    examples = texts(("loud",), (), ("dull", "long"))
    split = task.encode("other", examples, words, max_length=9)
    answers = logits([-1, 2, -3], [-1, -1, 5], [1, -1, 1])
    assert [row["labels"] for row in task.predictions(split, answers)] == [["loud"], ["long"], ["dull", "long"]]
    scores = task.compute_metrics(split, answers)
    assert scores["accuracy"] == pytest.approx(2 / 3)
    assert scores["f1"] == pytest.approx(6 / 7)
    lines = task.report(tmp_path, split, answers, mistakes=9)
    assert lines[0].startswith("1 of 3 are wrong")
    table = (tmp_path / "other_mistakes.md").read_text().splitlines()[2:]
    assert [line.split(" | ")[1:4] for line in table] == [["long", "no", "film 1"]]


@pytest.mark.parametrize("values", [1, 2])
def test_regression_predicts_one_score_or_several(words, tmp_path, values):
    labels = np.array([[0.5, 2.0], [1.5, -1.0], [4.0, 0.0]], np.float32)[:, :values]
    task = Classification("regression", values=values)
    given = [float(row[0]) if values == 1 else tuple(map(float, row)) for row in labels]
    split = task.encode("", texts(*given), words, max_length=9)
    assert task.config_changes == {
            "problem_type": "regression", "num_labels": values, "label_names": None, "data_columns": None,
        }  # fmt: skip
    answers = labels * 2 + 1
    assert task.compute_metrics(split, answers)["pearson"] == pytest.approx(1)
    assert [row["score"] for row in task.predictions(split, answers)] == [
        row[0] if values == 1 else row for row in (labels * 2 + 1).tolist()
    ]
    error = np.abs(labels + 1).mean()
    assert task.report(tmp_path, split, answers, mistakes=9)[0].startswith(
        f"mean absolute error {error:.4f}; the largest errors are"
    )
    assert (tmp_path / "mistakes.md").read_text().splitlines()[2].startswith("| 5.000 | 9.000")
    with pytest.raises(ValueError, match=rf"t\.tsv:1: expected 5 scores per text, got {values}"):
        Classification("regression", values=5).encode("", texts(*given), words, max_length=9)


@pytest.mark.parametrize("problem", ["single_label_classification", "multi_label_classification", "regression"])
def test_unlabelled_texts_are_predicted_and_have_no_weight(words, tmp_path, problem):
    task = Classification(problem, () if problem == "regression" else ("a", "b"))
    split = task.encode("", texts(None, None), words, max_length=9, labelled=False)
    assert not split.features.of_sequences["weights"].any()
    answers = logits(*[[1.0] if problem == "regression" else [1.0, 2.0]] * 2)
    rows = list(task.predictions(split, answers))
    assert len(rows) == 2
    assert "gold" not in rows[0]
    assert task.report(tmp_path, split, answers, mistakes=9) == []
    assert not list(tmp_path.iterdir())


def test_balanced_classes_have_the_same_total_weight(words):
    task = Classification("single_label_classification", ("a", "b", "c"))
    split = task.encode("train", texts("a", "b", "a", "a", "b", "c"), words, max_length=9, balanced=True)
    weights, labels = split.features.of_sequences["weights"], split.features.of_sequences["labels"]
    assert [weights[labels == label].sum() for label in range(3)] == pytest.approx([2, 2, 2])


def test_labels_are_smoothed_only_in_training(words):
    given = {"labels": np.array([[0]]), "weights": np.ones((1, 1), np.float32)}
    outputs = Outputs(logits=logits([[9.0, -9.0]]))
    names = ("bad", "good")
    for task in (Classification("single_label_classification", names, smoothing=0.2), Tagging(names, smoothing=0.2)):
        trained, evaluated = (
            float(
                task.objective(task.model(BertConfig()), training=training).compute_metrics(outputs, given)["loss"][0]
            )
            for training in (True, False)
        )
        assert trained > 1 > 1e-6 > evaluated


def test_class_weights_and_smoothing_agree_with_pytorch():
    torch = of_torch_extra("torch")
    random = np.random.default_rng(0)
    scores, labels = random.normal(size=(11, 3)).astype(np.float32), random.integers(3, size=11)
    of_classes = np.array([0.5, 2.0, 1.25], np.float32)
    for weights, smoothing in ((of_classes, 0.0), (np.ones(3, np.float32), 0.2)):
        total, weight = losses.cross_entropy(scores, labels, weights[labels], smoothing=smoothing)
        loss = torch.nn.CrossEntropyLoss(weight=torch.tensor(weights), label_smoothing=smoothing)
        wanted = loss(torch.tensor(scores), torch.tensor(labels))
        assert float(total / weight) == pytest.approx(float(wanted), abs=SAME_IN_FLOAT32)


# Words


def tag_logits(split, *tags):
    """Logits that are high for the given tag of each word."""
    sequences = split.features.sequences
    logits = np.zeros((len(sequences.ids), max(tags) + 1), np.float32)
    speaks = np.flatnonzero(sequences.words >= 0)
    logits[speaks, np.array(tags)[sequences.words[speaks]]] = CONFIDENT
    return {"logits": logits}


def test_tags_are_scored_by_entity_and_predicted_by_word(words, tmp_path):
    task = Tagging(("B-x", "I-x", "O"))
    examples = [
        TaggedExample(("film", "was", "very", "film"), ("B-x", "O", "O", "B-x"), "c:1"),
        TaggedExample(("plot",), ("O",), "c:6"),
        TaggedExample(("it", "was"), ("B-x", "I-x"), "c:8"),
    ]
    split = task.encode("", examples, words, max_length=5, overlap=1)
    assert split.lost == {"words_without_token": 0}
    found = task.decode(split, tag_logits(split, 0, 2, 2, 2, 2, 0, 1))  # the last entity and the first are right
    scores = task.compute_metrics(split, found)
    assert scores == pytest.approx({"f1": 0.8, "precision": 1.0, "recall": 2 / 3, "accuracy": 6 / 7, "collapsed": 0})
    rows = list(task.predictions(split, found))
    assert [row["tags"] for row in rows] == [["B-x", "O", "O", "O"], ["O"], ["B-x", "I-x"]]
    assert [row["words"] for row in rows] == [list(example.words) for example in examples]
    assert all(0.99 < score <= 1 for row in rows for score in row["scores"])
    lines = task.report(tmp_path, split, found, mistakes=9)
    assert lines[1].split() == ["x", "1.000", "0.667", "0.800", "3"]
    assert lines[2].startswith("1 of 7 are wrong")
    assert "film was very film | c:1" in (tmp_path / "mistakes.md").read_text()
    outside = task.decode(split, tag_logits(split, *[2] * 7))
    assert task.compute_metrics(split, outside) == pytest.approx(
        {"f1": 0, "precision": 0, "recall": 0, "accuracy": 3 / 7, "collapsed": 1}
    )


def test_words_are_tagged_with_and_without_known_tags(words, tmp_path):
    task = Tagging(("B-x", "O"))
    examples = [TaggedExample(("film", "was"), ("B-city", "O"), "c:1"), TaggedExample(("plot",), None, "c:4")]
    with pytest.raises(ValueError, match="c:4: no tags"):
        task.encode("", examples, words, max_length=9, overlap=1)
    split = task.encode("", examples, words, max_length=9, overlap=1, labelled=False)
    assert not split.features.of_tokens["weights"].any()
    found = task.decode(split, tag_logits(split, 0, 1, 1))
    rows = list(task.predictions(split, found))
    assert [(row["tags"], row.get("gold")) for row in rows] == [(["B-x", "O"], ["B-city", "O"]), (["O"], None)]
    assert task.report(tmp_path, split, found, mistakes=9) == []


def test_ignored_words_have_no_loss_and_no_score(words, tmp_path):
    task = Tagging(("B-x", "I-x", "O"))
    examples = [
        TaggedExample(("film", "was", "very", "film"), ("B-x", "-100", "-100", "O"), "c:1"),
        TaggedExample(("plot",), ("-100",), "c:6"),
    ]
    split = task.encode("", examples, words, max_length=9, overlap=1)
    assert split.features.of_tokens["weights"].sum() == 2
    found = task.decode(split, tag_logits(split, 0, 2, 0, 2, 0))
    assert task.compute_metrics(split, found) == pytest.approx(
        {"f1": 1, "precision": 1, "recall": 1, "accuracy": 1, "collapsed": 0}
    )
    assert [row["tags"] for row in task.predictions(split, found)] == [["B-x", "O", "B-x", "O"], ["B-x"]]
    lines = task.report(tmp_path, split, found, mistakes=9)
    assert lines[1].split() == ["x", "1.000", "1.000", "1.000", "1"]
    assert lines[2].startswith("0 of 2 are wrong")


def test_words_without_a_token_are_outside_in_every_spelling():
    assert Tagging(("B_per", "<pad>", "o")).default_tag == 2
    assert Tagging(("NN", "VB")).default_tag == 0


def tagging_source(tokenizer, **config) -> Any:
    """A model to start from, without weights."""
    return ModelSource(Path("model"), BertConfig(**config), None, tokenizer)


def test_tags_that_are_numbers_are_refused_or_named_before_training(write, words, capsys):
    row = {"tokens": ["film", "plot", "was"], "ner_tags": [1, 2, 0]}
    path = write("a.jsonl", json.dumps(row) + "\n" + json.dumps(row | {"ner_tags": [1, -100, -100]}) + "\n")
    source = tagging_source(words)
    data = {"train": path, "dev": path, "max_length": 9}
    with pytest.raises(ValueError, match=r"a\.jsonl:1: the tags are numbers, such as 0; give their names with `label_"):
        TaggingData(**data).prepare(source, "train")
    prepared = TaggingData(**data, label_names="O, B-x,I-x, B-y").prepare(source, "train")
    assert prepared.task.config_changes == {
        "label_names": ("O", "B-x", "I-x", "B-y"),
        "data_columns": (("words", "tokens"), ("tags", "ner_tags")),
    }
    assert prepared.splits[0].features.of_tokens["labels"].tolist()[1:4] == [1, 2, 0]
    assert "tags in the IOB scheme; entity kinds: x, y\n" in capsys.readouterr().out
    assert [report.as_dict()["used"] for report in prepared.reports] == [2, 2]
    for names in ("O,O", "O,,B-x", ""):
        with pytest.raises(
            ValueError, match=f"`label_names` must be different names separated by commas, got '{names}'"
        ):
            TaggingData(**data, label_names=names).check("train")


def test_a_model_evaluates_numbers_by_given_names(write, words):
    path = write("a.jsonl", json.dumps({"tokens": ["film", "plot", "was"], "ner_tags": [1, 2, 0]}))
    named = tagging_source(words, num_labels=3, label_names=("B-x", "I-x", "O"))
    data = {"dev": path, "max_length": 9}
    with pytest.raises(ValueError, match="the tags are numbers"):
        TaggingData(**data).prepare(named, "evaluate")
    unnamed = tagging_source(words, num_labels=3)
    for source, labels in ((named, [0, 1, 2]), (unnamed, [1, 2, 0])):  # an unnamed model was trained on the numbers
        prepared = TaggingData(**data, label_names="O,B-x,I-x").prepare(source, "evaluate")
        assert prepared.splits[0].features.of_tokens["labels"].tolist()[1:4] == labels
    assert TaggingData(**data).prepare(named, "predict").splits[0].labelled is False


def trained_on(source, columns):
    """The source, as a model that was trained on these columns."""
    return replace(source, config=replace(source.config, data_columns=columns))


def test_words_are_read_from_the_column_that_the_model_was_trained_on(write, words, capsys):
    train = write("a.conll", "1 film X O\n2 plot X B-x\n\n7 was X O\n")
    given = {"train": train, "dev": train, "max_length": 9}
    task = TaggingData(**given, word_column="2").prepare(tagging_source(words), "train").task
    assert task.config_changes["data_columns"] == (("words", "2"),)
    trained = trained_on(tagging_source(words, label_names=task.names, num_labels=2), task.columns)
    [split] = TaggingData(**given).prepare(trained, "evaluate").splits
    assert [example.words for example in split.examples] == [("film", "plot"), ("was",)]
    assert "was trained on" not in capsys.readouterr().out
    other = write("b.txt", "film\nplot\n")
    [split] = TaggingData(dev=other, max_length=9).prepare(trained, "predict").splits
    assert split.examples[0].words == ("film", "plot")
    assert f"{other}: the model was trained on words in '2'" in capsys.readouterr().out


def test_the_usual_columns_of_a_conll_file_depend_on_the_file(write, words):
    train = write("a.conll", "film B-x\nplot O\n")
    task = TaggingData(train=train, dev=train, max_length=9).prepare(tagging_source(words), "train").task
    assert task.columns is None
    trained = trained_on(tagging_source(words, label_names=task.names, num_labels=2), task.columns)
    [split] = TaggingData(dev=write("b.conll", "film X O\n"), max_length=9).prepare(trained, "evaluate").splits
    assert split.examples[0].tags == ("O",)


def test_lists_are_read_from_the_columns_that_the_model_was_trained_on(write, words):
    row = {"tokens": ["film"], "lemmas": ["plot"], "tags": ["O"], "kinds": ["B-x"]}
    path = write("a.jsonl", json.dumps(row) + "\n" + json.dumps(row | {"kinds": ["O"]}) + "\n")
    given = {"train": path, "dev": path, "max_length": 9}
    task = TaggingData(**given, word_column="lemmas", tag_column="kinds").prepare(tagging_source(words), "train").task
    trained = trained_on(tagging_source(words, label_names=task.names, num_labels=2), task.columns)
    [split] = TaggingData(**given).prepare(trained, "evaluate").splits
    assert (split.examples[0].words, split.examples[0].tags) == (("plot",), ("B-x",))
    [split] = TaggingData(**given, word_column="tokens").prepare(trained, "predict").splits
    assert split.examples[0].words == ("film",)


def test_tags_of_no_scheme_are_refused_with_their_file(write, words):
    path = write("a.conll", "film B-x\nplot I-x\nwas X-y\n")
    with pytest.raises(ValueError, match=r"a\.conll: tag 'X-y' fits no scheme together with 'B-x'"):
        TaggingData(train=path, dev=path, max_length=9).prepare(tagging_source(words), "train")


def test_a_file_without_empty_lines_is_noted(write, capsys):
    lines = [f"word{number}\tNN" for number in range(300)]
    for name, separator in (("lines.tsv", "\n"), ("conll.tsv", "\n\n")):
        path = write(name, separator.join(lines) + "\n")
        TaggingData().read(path, "train", ReadReport(path), {})
    notes = capsys.readouterr().out
    assert "lines.tsv: one sentence of 300 words; an empty line ends a sentence" in notes
    assert notes.count("one sentence") == 1


# Questions


def question(number, context, *answers, impossible=False):
    given = tuple(Answer(text, context.index(text)) for text in answers)
    return Question(f"q{number}", "where ?", context, given, impossible, f"s: question q{number}")


def spans(split, *places):
    """Logits that are high at the first and last token of an answer; None is no answer."""
    sequences = split.features.sequences
    starts, ends = np.zeros((2, len(sequences.ids)), np.float32)
    for window, place in enumerate(places):
        first, last = (0, 0) if place is None else place
        begin = sequences.offsets[window] + (0 if place is None else sequences.second[window])
        starts[begin + first] = ends[begin + last] = CONFIDENT
    return {"start_logits": starts, "end_logits": ends}


def encode(task, words, questions, **options):
    split, _ = task.encode("", questions, words, max_length=32, stride=9, max_question_length=5, **options)
    return split


def test_answers_are_scored_and_written_in_the_format_of_squad(words, tmp_path):
    questions = [
        question(0, "the film was in paris", "paris"),
        question(1, "it was very lovely", "very", "very lovely"),
    ]
    task = QuestionAnswering(version_2=False, n_best=3)
    split = encode(task, words, questions)
    answers = task.decode(split, spans(split, (4, 4), (0, 1)))
    assert task.compute_metrics(split, answers) == {"exact_match": 0.5, "f1": 0.5}
    assert [row["answer"] for row in task.predictions(split, answers)] == ["paris", "it was"]
    task.report(tmp_path, split, answers, mistakes=9)
    assert json.loads((tmp_path / "predictions.json").read_text()) == {"q0": "paris", "q1": "it was"}
    nbest = json.loads((tmp_path / "nbest_predictions.json").read_text())
    assert [len(some) for some in nbest.values()] == [3, 3]
    assert nbest["q0"][0].keys() == {"text", "probability", "start_logit", "end_logit"}
    assert not (tmp_path / "null_odds.json").exists()


@pytest.mark.parametrize("threshold", [None, 20.0])
def test_the_null_threshold_is_tuned_or_given(words, tmp_path, threshold):
    questions = [
        question(0, "the film was in paris", "paris"), question(1, "it was very lovely", impossible=True),
        question(2, "the plot was in paris", "paris"),
    ]  # fmt: skip
    task = QuestionAnswering(version_2=True, null_threshold=threshold)
    split = encode(task, words, questions)
    answers = spans(split, (4, 4), (0, 0), (4, 4))
    first = split.features.sequences.offsets[:-1]
    if threshold is not None:
        answers["start_logits"][first] = 99.0
        assert task.compute_metrics(split, task.decode(split, answers))["collapsed"] == 1  # no answer to anything
    answers["start_logits"][first] = np.array([20, 25, 15]) - CONFIDENT
    answers = task.decode(split, answers)
    scores = task.compute_metrics(split, answers)
    assert scores["best_f1"] == 1.0
    assert scores["collapsed"] == 0
    texts = [row["answer"] for row in task.predictions(split, answers)]
    assert texts == (["paris", "", "paris"] if threshold is None else ["paris", "it", "paris"])
    assert scores["f1"] == pytest.approx(1 if threshold is None else 2 / 3)  # of the final answers
    assert scores["null_threshold"] == answers.threshold
    lines = task.report(tmp_path, split, answers, mistakes=9)
    assert "the null threshold, " in lines[1]
    assert json.loads((tmp_path / "null_odds.json").read_text()).keys() == {"q0", "q1", "q2"}


def test_nothing_is_answered_if_that_scores_best(words, tmp_path):
    questions = [question(i, "it was very lovely", impossible=True) for i in range(2)]
    questions.append(question(2, "the plot was in paris", "paris"))
    task = QuestionAnswering(version_2=True)
    split = encode(task, words, questions)
    found = task.decode(split, spans(split, (0, 0), (0, 0), (1, 1)))  # wrong, and all odds are below 0
    scores = task.compute_metrics(split, found)
    assert scores["best_f1_threshold"] == 0
    assert set(found.texts.values()) == {""}
    assert scores["f1"] == scores["best_f1"] == pytest.approx(2 / 3)
    assert scores["collapsed"] == 1
    task.report(tmp_path, split, found, mistakes=9)
    assert "| (no answer) | paris |" in (tmp_path / "mistakes.md").read_text()


def test_questions_without_known_answers_are_only_predicted(words, tmp_path):
    task = QuestionAnswering(version_2=True)
    unknown = [question(0, "the film was in paris")]
    with pytest.raises(ValueError, match="s: question q0: question has no answers and is_impossible is not set"):
        encode(task, words, unknown)
    split = encode(task, words, unknown, labelled=False)
    found = task.decode(split, spans(split, (1, 1)))
    assert [row["answer"] for row in task.predictions(split, found)] == ["film"]
    task.report(tmp_path, split, found, mistakes=9)
    assert not (tmp_path / "mistakes.md").exists()


# Choices


def test_choices_are_scored_predicted_and_listed(words, tmp_path):
    examples = [
        ChoiceExample(f"it was {i}", ("lovely", "great", "long"), label, f"c:{i}") for i, label in enumerate((2, 0))
    ]
    task = MultipleChoice()
    split = task.encode("", examples, words, max_length=12)
    answers = task.decode(split, {"logits": logits([0, 0, 3], [0, 5, 0])})
    assert task.compute_metrics(split, answers) == {"accuracy": 0.5, "collapsed": 0}
    first = task.decode(split, {"logits": logits([3, 0, 1], [5, 0, 1])})
    assert task.compute_metrics(split, first) == {"accuracy": 0.5, "collapsed": 1}
    assert [(row["text"], row["choice"], row["gold"]) for row in task.predictions(split, answers)] == [
        ("it was 0", 2, 2), ("it was 1", 1, 0),
    ]  # fmt: skip
    assert task.report(tmp_path, split, answers, mistakes=9)[0].startswith("1 of 2 are wrong")
    assert "| great | lovely | it was 1 | c:1 |" in (tmp_path / "mistakes.md").read_text()


@pytest.mark.parametrize(
    ("task", "name", "content", "columns"),
    [
        ("classification", "a.csv", "text,label\na,x\nb,\nc\n", "text in 'text', label in 'label'"),
        ("tokens", "a.conll", "a O\nb\n", "words in '1', tags in '2'"),
        ("multiple-choice", "a.jsonl", '{"text": "a", "ending0": "b", "ending1": "c", "label": 2}\n',
         "text in 'text', choices in 'ending0', 'ending1', label in 'label'"),
    ],
)  # fmt: skip
def test_columns_are_printed_before_an_error_in_a_row(tmp_path, capsys, task, name, content, columns):
    source: Any = None  # is not used before the data is read
    path = tmp_path / name
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=r"a\.\w+:\d"):
        TASKS[task](train=str(path), dev=str(path)).prepare(source, "train")
    assert capsys.readouterr().out == f"{path}: {columns}\n"
