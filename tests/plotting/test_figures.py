"""Figures show the numbers that they are given, and refuse what they cannot show in one line."""

import json

import numpy as np
import pytest
import small_pipelines as small

from bert_jax.plotting import (
    AttentionMaps,
    nearest_words,
    plot_attention,
    plot_curves,
    plot_nearest_words,
    plot_packed_row,
    plot_positions,
)
from bert_jax.plotting.figures import PADDING_COLOR, SEQUENCE_COLORS


@pytest.fixture(scope="module")
def bert():
    return small.bert("Bert")


def image(figure) -> np.ndarray:
    return np.asarray(figure.axes[0].images[0].get_array())


def colour(name: str) -> list[int]:
    return [int(name[start : start + 2], 16) for start in (1, 3, 5)]


def test_attention_of_a_head_is_drawn_with_its_tokens(tmp_path):
    weights = np.random.default_rng(0).random((2, 3, 4, 4), np.float32)
    figure = plot_attention(AttentionMaps(["[CLS]", "Ġowl", "##s", "[SEP]"], [None, 0, 0, None], weights), 1, -1)
    np.testing.assert_array_equal(image(figure), weights[1, 2])
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == ["[CLS]", " owl", "##s", "[SEP]"]
    assert figure.axes[0].get_title(loc="left") == "layer 2, head 3"
    figure.savefig(tmp_path / "head.png")
    assert figure._repr_png_().startswith(b"\x89PNG")  # which a notebook shows, also without pyplot
    with pytest.raises(ValueError, match=r"^`head` must be in \[-3, 3\), got 3$"):
        plot_attention(AttentionMaps(["a"] * 4, [0] * 4, weights), 0, 3)


def test_tokens_of_a_packed_row_see_their_own_sequence():
    batch = {
        "attention_mask": np.array([[1] * 5, [1, 1, 2, 2, 0]]),
        "masked_positions": np.array([[0, 0], [1, 0]]),
        "masked_weights": np.array([[0.0, 0.0], [1.0, 0.0]]),
        "cls_positions": np.array([[0, 0], [0, 2]]),
    }
    figure = plot_packed_row(batch, row=1)
    drawn = image(figure)
    first, second, unseen = drawn[0, 1].tolist(), drawn[2, 3].tolist(), drawn[0, 2].tolist()
    assert (first, second) == (colour(SEQUENCE_COLORS[0]), colour(SEQUENCE_COLORS[1]))
    assert unseen == drawn[4, 4].tolist() == drawn[2, 1].tolist() != colour(PADDING_COLOR)
    masked, starts = figure.axes[0].lines
    assert (masked.get_xdata().tolist(), starts.get_xdata().tolist()) == ([1], [0, 2])
    assert "2 sequences, 80% of 5 tokens" in figure.axes[0].get_title()
    with pytest.raises(ValueError, match=r"^`row` must be in \[-2, 2\), got 2$"):
        plot_packed_row(batch, row=2)


def test_curves_of_runs_and_seeds(tmp_path):
    rows = {
        "a": [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 2, "eval_loss": 2.5}],
        "b": [{"step": 1, "seed": seed, "loss": float(seed)} for seed in (4, 5)],
    }
    for name, found in rows.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in found))
    figure = plot_curves({"first": tmp_path / "a", "second": tmp_path / "b"})
    lines = figure.axes[0].lines
    assert [line.get_ydata().tolist() for line in lines] == [[3.0, 2.0], [4.0], [5.0]]
    assert lines[1].get_color() == lines[2].get_color() != lines[0].get_color()
    assert [text.get_text() for text in figure.axes[0].get_legend().get_texts()] == ["first", "second"]
    assert [line.get_ydata().tolist() for line in figure.axes[1].lines] == [[2.5]]
    with pytest.raises(ValueError, match=r"^no run has the metric 'lost'; there are eval_loss, loss, seed, step$"):
        plot_curves([tmp_path / "a", tmp_path / "b"], ["lost"])
    with pytest.raises(FileNotFoundError):
        plot_curves([tmp_path / "c"])


def test_positions_are_most_similar_to_themselves(bert):
    similar = image(plot_positions(bert))
    assert similar.shape == (bert.config.max_length,) * 2
    np.testing.assert_allclose(np.diag(similar), 1, atol=1e-5)


def test_nearest_words_are_those_of_the_largest_cosine(bert):
    (found, similarity), *others = nearest_words(bert, "owl", 5)
    table = np.asarray(bert.params["embeddings"]["word"]["embedding"])
    tokens = bert.tokenizer.tokens
    unit = table / np.linalg.norm(table, axis=-1, keepdims=True)
    cosine = {token: float(unit[i] @ unit[tokens.index("owl")]) for i, token in enumerate(tokens)}
    best = max((token for token in cosine if token != "owl" and not token.startswith("[")), key=cosine.__getitem__)
    assert (found, similarity) == (best, pytest.approx(cosine[best], abs=1e-5))
    assert len(others) == 4
    bars = plot_nearest_words(bert, ["owl", "the"], 5).axes[0].patches
    assert bars[-1].get_width() == pytest.approx(similarity)
    with pytest.raises(ValueError, match="the vocabulary has no token of '☃'"):
        nearest_words(bert, "☃")
