"""The best answers equal those of an exhaustive search, with their texts in the context."""

import json
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bert_jax.data.finetuning.answers import Predictions, WindowLogits, best_spans, predict_answers

CONTEXT = "the owl saw the owl"
CHARACTERS = np.array([(0, 3), (4, 7), (8, 11), (12, 15), (16, 19)])


def window(starts, ends, tokens=slice(None), null=(0.0, 0.0)):
    return WindowLogits(np.array(starts, np.float32), np.array(ends, np.float32), null, CHARACTERS[tokens])


def predict(*windows, context=CONTEXT, **options):
    return predict_answers(["q"], [context], [windows], **{"null_answer": False, **options})


@settings(max_examples=60)
@given(st.lists(st.tuples(st.floats(-9, 9), st.floats(-9, 9), st.booleans()), max_size=14), st.integers(1, 17))
def test_the_best_spans_equal_an_exhaustive_search(tokens, longest):
    starts = np.array([start if allowed else -np.inf for start, _, allowed in tokens])
    ends = np.array([end for _, end, _ in tokens])
    every = [
        float(starts[i] + ends[j])
        for i in range(len(tokens))
        for j in range(i, min(i + longest, len(tokens)))
        if tokens[i][2]
    ]
    spans, total = best_spans(starts, ends, max_answer_length=longest, top=5)
    np.testing.assert_allclose([span.logit for span in spans], sorted(every, reverse=True)[:5])
    np.testing.assert_allclose(total, np.logaddexp.reduce(every) if every else -np.inf)
    for span in spans:
        assert 0 <= span.start <= span.end < min(span.start + longest, len(tokens))
        assert span.logit == starts[span.start] + ends[span.end]


def test_the_best_span_is_not_the_best_start_beside_the_best_end():
    starts, ends = np.array([0.0, 1.0, 5.0]), np.array([6.0, 2.0, 0.0])
    (span,), _ = best_spans(starts, ends, max_answer_length=3, top=1)
    assert (span.start, span.end) == (0, 0)


def test_of_equal_texts_the_best_is_kept():
    found = predict(window([0, 3, 0, 0, 5], [0, 3, 0, 0, 5]), max_answer_length=1).n_best["q"]
    assert [(one["text"], one["start_logit"], one["end_logit"]) for one in found] == [
        ("owl", 5.0, 5.0),
        ("the", 0.0, 0.0),
        ("saw", 0.0, 0.0),
    ]
    np.testing.assert_allclose(
        [one["probability"] for one in found], np.exp([10, 0, 0]) / np.exp([10, 0, 0]).sum(), rtol=1e-6
    )


@pytest.mark.parametrize(("n_best", "longest"), [(1, 5), (4, 2), (20, 5)])
def test_answers_over_windows_equal_an_exhaustive_search(n_best, longest):
    random = np.random.default_rng(3)
    windows = []
    for begin, stop, owned in ((0, 3, [1, 1, 0]), (1, 5, [0, 1, 1, 1])):
        starts, ends = random.normal(size=(2, stop - begin))
        windows.append(window(np.where(owned, starts, -np.inf), ends, slice(begin, stop)))
    every = {}
    for one in windows:
        for start, end in product(range(len(one.starts)), repeat=2):
            if start <= end < start + longest and np.isfinite(one.starts[start]):
                text = CONTEXT[one.characters[start, 0] : one.characters[end, 1]]
                every[text] = max(every.get(text, -np.inf), float(one.starts[start]) + float(one.ends[end]))
    best = sorted(every, key=lambda text: -every[text])[:n_best]
    predictions = predict(*windows, n_best=n_best, max_answer_length=longest)
    assert [one["text"] for one in predictions.n_best["q"]] == best
    assert predictions.texts == {"q": best[0]}
    np.testing.assert_allclose(sum(one["probability"] for one in predictions.n_best["q"]), 1, rtol=1e-6)


def test_the_null_logit_is_the_lowest_of_the_windows():
    windows = (
        window([1, 2], [1, 4], slice(0, 2), null=(4.0, 3.0)),
        window([1, 0, 0], [1, 0, 0], slice(2, 5), null=(2.0, 2.5)),
    )
    predictions = predict(*windows, null_answer=True)
    assert predictions.null_odds == {"q": 4.5 - 6}
    assert predictions.texts == {"q": "owl"}
    assert [one["text"] for one in predictions.n_best["q"]][:3] == ["owl", "the owl", ""]
    null = predictions.n_best["q"][2]
    assert (null["start_logit"], null["end_logit"]) == (2.0, 2.5)
    assert "" not in [one["text"] for one in predict(*windows).n_best["q"]]


def test_answers_are_dropped_above_the_threshold_only():
    predictions = Predictions({"a": "owl", "b": "barn"}, {}, {"a": 1.5, "b": -2.0})
    assert predictions.above(1.5) == {"a": "owl", "b": "barn"}
    assert predictions.above(1.0) == {"a": "", "b": "barn"}
    assert predictions.above(-3.0) == {"a": "", "b": ""}


def test_a_context_without_tokens_has_an_empty_answer():
    predictions = predict(window([], [], slice(0, 0), null=(1.0, 2.0)), context="\x00", null_answer=True)
    assert predictions.texts == {"q": ""}
    assert predictions.null_odds == {"q": 3.0}


def test_predictions_can_be_written_as_json():
    predictions = predict(window([0, 3, 0, 0, 5], [0, 3, 0, 0, 5]), null_answer=True)
    assert json.loads(json.dumps(predictions._asdict())) == predictions._asdict()
    assert list(predictions.n_best["q"][0]) == ["text", "probability", "start_logit", "end_logit"]
