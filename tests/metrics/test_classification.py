"""Metrics agree with their definitions, and undefined ones are 0."""

import subprocess
import sys

import numpy as np
import pytest
import scipy.special

from bert_jax.metrics.classification import (
    Mistake,
    collapsed,
    confusion,
    multi_label_metrics,
    regression_metrics,
    sigmoid,
    single_label_metrics,
    softmax,
    worst_mistakes,
)

N = 61


def draw(shape, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def logits_of(predictions: list[int], count: int) -> np.ndarray:
    return np.eye(count, dtype=np.float32)[predictions]


def f1(predicted: np.ndarray, labels: np.ndarray) -> float:
    right = (predicted & labels).sum()
    return 2 * right / max(1, predicted.sum() + labels.sum())


def test_scores_of_two_classes_are_those_of_the_second():
    logits, labels = draw((N, 2)), (draw(N, 1) > 0.3).astype(np.int32)
    predictions = logits.argmax(1)
    scores = single_label_metrics(logits, labels)
    assert scores["accuracy"] == pytest.approx((predictions == labels).mean())
    assert scores["f1"] == pytest.approx(f1(predictions == 1, labels == 1))
    assert scores["matthews"] == pytest.approx(np.corrcoef(predictions, labels)[0, 1])
    assert all(type(score) is float for score in scores.values())


def test_scores_of_several_classes_are_means_over_those_there_are():
    labels = np.random.default_rng(2).integers(0, 3, N).astype(np.int32)
    logits = draw((N, 5)) + np.eye(5, dtype=np.float32)[labels]
    logits[:, 4] = -9  # a class that is neither meant nor predicted
    predictions = logits.argmax(1)
    scores = single_label_metrics(logits, labels)
    assert scores["f1"] == pytest.approx(np.mean([f1(predictions == i, labels == i) for i in range(4)]))
    # Gorodkin, Comparing two K-category assignments by a K-category correlation coefficient, 2004, equation 1.
    x, y = (np.eye(5)[ids] - np.eye(5)[ids].mean(0) for ids in (predictions, labels))
    expected = (x * y).sum() / np.sqrt((x * x).sum() * (y * y).sum())
    assert scores["matthews"] == pytest.approx(expected)
    assert 0.2 < scores["accuracy"] < 0.9


@pytest.mark.parametrize("count", [1, 3])
def test_scores_of_sets_count_decisions_classes_and_whole_sets(count):
    logits, labels = draw((N, count)), (draw((N, count), 1) > 0).astype(np.float32)
    chosen = logits > 0
    scores = multi_label_metrics(logits, labels)
    assert scores["accuracy"] == pytest.approx((chosen == labels).all(1).mean())
    assert scores["f1"] == pytest.approx(f1(chosen, labels > 0))
    assert scores["f1_macro"] == pytest.approx(np.mean([f1(chosen[:, i], labels[:, i] > 0) for i in range(count)]))


@pytest.mark.parametrize("columns", [1, 2])
def test_scores_of_numbers_are_correlations(columns):
    labels = draw((N, columns))
    logits = labels + 0.5 * draw((N, columns), 1)
    scores = regression_metrics(logits, labels[:, 0] if columns == 1 else labels)
    ranks = [values.argsort(0).argsort(0) for values in (logits, labels)]
    for name, (x, y) in {"pearson": (logits, labels), "spearman": ranks}.items():
        expected = np.mean([np.corrcoef(x[:, i], y[:, i])[0, 1] for i in range(columns)])
        assert scores[name] == pytest.approx(expected, abs=1e-6)
    assert scores["mean_squared_error"] == pytest.approx(np.square(logits - labels).mean(), rel=1e-6)


@pytest.mark.parametrize("count", [2, 3])
def test_constant_predictions_have_no_correlation(count):
    labels = np.arange(N) % count
    scores = single_label_metrics(logits_of([0] * N, count), labels)
    assert scores["matthews"] == 0
    if count == 2:
        assert scores["f1"] == 0
    for constant in (
        np.full((N, 1), 0.1),
        np.full((N, 1), np.nan),
        np.full((N, 1), np.inf),
        1e9 + 1e-7 * draw((N, 1)).astype(np.float64),
    ):
        scores = regression_metrics(constant, draw(N, 1))
        assert scores["pearson"] == pytest.approx(0, abs=0.5)
        assert np.isfinite([scores["pearson"], scores["spearman"]]).all()
    assert regression_metrics(draw((N, 1)), np.ones(N))["spearman"] == 0
    scores = multi_label_metrics(np.full((N, count), -1.0), np.zeros((N, count)))
    assert scores == {"accuracy": 1, "f1": 0, "f1_macro": 0}


@pytest.mark.parametrize("count", [2, 3, 7])
def test_few_examples_of_many_classes_are_scored_without_a_warning(count):
    for label in range(count):
        right = single_label_metrics(logits_of([label], count), np.array([label]))
        wrong = single_label_metrics(logits_of([label], count), np.array([(label + 1) % count]))
        assert (right["accuracy"], wrong["accuracy"], right["matthews"], wrong["f1"]) == (1, 0, 0, 0)
    assert regression_metrics(np.ones((1, 1)), np.ones(1))["pearson"] == 0


def test_mismatched_shapes_are_errors():
    with pytest.raises(ValueError, match=r"cannot score predictions \(0,\) against labels \(0,\)"):
        single_label_metrics(np.zeros((0, 2)), np.zeros(0, np.int32))
    with pytest.raises(ValueError, match=r"cannot score predictions \(3,\) against labels \(2,\)"):
        single_label_metrics(np.zeros((3, 2)), np.zeros(2, np.int32))


def test_a_confusion_matrix_counts_each_example_in_the_row_of_its_class():
    predictions, labels = np.array([0, 2, 2, 1, 2]), np.array([0, 2, 1, 0, 1])
    np.testing.assert_array_equal(
        confusion(predictions, labels, 4), [[1, 1, 0, 0], [0, 0, 2, 0], [0, 0, 1, 0], [0] * 4]
    )


def test_softmax_and_sigmoid_are_float64_and_do_not_overflow():
    logits = np.array([[1000.0, 999.0, -1000.0], [0.5, -2.0, 0.25]], np.float32)
    np.testing.assert_allclose(softmax(logits), scipy.special.softmax(logits.astype(np.float64), axis=-1), rtol=1e-14)
    np.testing.assert_allclose(sigmoid(logits), scipy.special.expit(logits.astype(np.float64)), rtol=1e-14, atol=1e-300)
    assert softmax(logits).dtype == sigmoid(logits).dtype == np.float64


def test_the_most_confident_mistakes_come_first():
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.4, 0.6], [0.1, 0.9]])
    labels = np.array([0, 1, 0, 0, 0])
    assert worst_mistakes(probabilities, labels, 3) == [
        Mistake(4, 0, 1, 0.9),
        Mistake(2, 0, 1, 0.8),
        Mistake(1, 1, 0, 0.6),
    ]
    assert len(worst_mistakes(probabilities, labels, 31)) == 4
    assert worst_mistakes(probabilities, probabilities.argmax(1), 3) == []


def test_constant_predictions_are_a_collapse():
    labels, sets = np.array([0, 2, 2]), np.array([[0, 0], [0, 1]])
    assert collapsed(np.array([2, 2, 2]), labels)
    assert collapsed(np.array([[0, 1], [0, 1]]), sets)
    assert not collapsed(np.array([2, 2, 0]), labels)
    assert not collapsed(np.array([[0, 1], [1, 1]]), sets)
    assert not collapsed(np.array([2, 2, 2]), np.array([2, 2, 2]))  # nothing else could be right


def test_metric_libraries_are_imported_when_needed():
    code = (
        "import sys, bert_jax.metrics.classification; assert not {'sklearn', 'scipy.stats', 'jax'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
