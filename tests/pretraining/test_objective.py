"""Runs that train on masked words alone: no sentence pair in the batches, the model, the metrics or the messages."""

import io
import json
import math
import re
import shutil
from contextlib import redirect_stdout

import jax
import numpy as np
import pytest
from small_runs import SMALL, WORDS, write_corpus

import bert_jax
import train as script
from bert_jax.models import BertForMaskedLM
from bert_jax.training.devices import cost
from bert_jax.training.runs import reporting

pytestmark = pytest.mark.slow

SENTENCE = " ".join(WORDS) + "."
FILM = "the [MASK] was good."


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    return write_corpus(tmp_path_factory.mktemp("corpus") / "films.txt")


@pytest.fixture(scope="module")
def pretrain(corpus, tmp_path_factory):
    cache = tmp_path_factory.mktemp("cache")

    def run(output, *flags):
        """Returns what a run without next sentences prints."""
        printed = io.StringIO()
        flags = ["--objective", "mlm", "--corpus", str(corpus), "--cache-dir", str(cache), *flags]
        with redirect_stdout(printed):
            script.main([*SMALL, "--steps", "5", *flags, "--output", str(output)])
        return printed.getvalue()

    return run


@pytest.fixture(scope="module")
def whole(pretrain, tmp_path_factory):
    """A run, what it printed, and the panels of its curves."""
    run = tmp_path_factory.mktemp("runs") / "whole"
    panels = []
    with pytest.MonkeyPatch.context() as patch:
        draw = reporting._draw_curves
        patch.setattr(reporting, "_draw_curves", lambda run, chosen: panels.extend(chosen) or draw(run, chosen))
        printed = pretrain(run, "--fill-mask", FILM)
    return run, printed, panels


def rows(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def without_clock(run):
    return [{name: value for name, value in row.items() if name != "tokens_per_second"} for row in rows(run)]


def test_the_model_is_a_masked_lm(whole):
    assert json.loads((whole[0] / "config.json").read_text())["architectures"] == ["BertForMaskedLM"]
    bert = bert_jax.load(whole[0])
    assert type(bert.model) is BertForMaskedLM
    assert not {"pooler", "next_sentence"} & bert.params.keys()
    assert np.isfinite(bert(**bert.tokenizer(["the film was good."])).prediction_logits).all()


def test_the_loss_is_that_of_the_masked_words_and_all_metrics_are_finite(whole):
    *training, evaluation = rows(whole[0])
    assert [row["step"] for row in training] == [1, 2, 3, 4, 5]
    assert all(row["loss"] == row["masked_lm_loss"] for row in training)
    assert evaluation["eval_loss"] == evaluation["eval_masked_lm_loss"]
    assert evaluation["eval_perplexity"] == pytest.approx(math.exp(evaluation["eval_loss"]))
    for row in (*training, evaluation):
        assert all(math.isfinite(value) for value in row.values())
        assert not [name for name in row if "sentence" in name]


def test_nothing_is_said_or_drawn_of_next_sentences(whole):
    run, printed, panels = whole
    assert "nan" not in printed.lower()
    assert "sentence pair" not in printed
    assert "next" not in printed.lower()
    assert "NSP" not in printed
    assert "the first pass shows every token once" in printed
    assert re.search(r"Held-out metrics after 5 steps, on \d+ sequences:", printed)
    assert f"    {FILM}\n      " in printed
    recorded = {name for row in rows(run) for name in row}
    assert {key for _, key in panels} <= recorded
    sides = json.loads((run / "data.json").read_text())
    for side in ("train", "held_out"):
        assert sides[side]["random_pairs"] is None
        assert sides[side]["shown_tokens"] == 1


def test_a_resumed_run_equals_one_that_never_stopped_to_the_bit(pretrain, whole, tmp_path):
    run = tmp_path / "halves"
    pretrain(run, "--steps", "2", "--fill-mask", FILM)
    pretrain(run, "--resume")
    assert [row for row in without_clock(run) if "loss" in row] == without_clock(whole[0])[:5]
    jax.tree.map(np.testing.assert_array_equal, bert_jax.load(run).params, bert_jax.load(whole[0]).params)


def test_the_objective_of_a_run_cannot_change(pretrain, whole, tmp_path):
    run = shutil.copytree(whole[0], tmp_path / "run")
    with pytest.raises(ValueError, match="it began with objective 'mlm', now objective is 'mlm-nsp'"):
        pretrain(run, "--resume", "--objective", "mlm-nsp")
    record = json.loads((run / "training.json").read_text())
    assert record["settings"]["batches"].pop("objective") == "mlm"  # as in a run of an older version
    (run / "training.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="it began with objective 'mlm-nsp', now objective is 'mlm'"):
        pretrain(run, "--resume")


def test_two_documents_of_one_sentence_are_enough(pretrain, whole, tmp_path):
    (tmp_path / "two.txt").write_text(f"{SENTENCE} {SENTENCE}\n\n{' '.join(WORDS[::-1])}.")
    flags = ["--corpus", str(tmp_path / "two.txt"), "--tokenizer", str(whole[0]), "--steps", "1"]
    printed = pretrain(tmp_path / "run", *flags)
    assert "warning" not in printed
    with pytest.raises(
        ValueError,
        match=r"two\.txt: next-sentence prediction needs two documents to train on and two held out, found 2; blank "
        r"lines separate documents, or set --document line; --objective mlm needs one of each$",
    ):
        pretrain(tmp_path / "pairs", *flags, "--objective", "mlm-nsp")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            SENTENCE,
            "masked words need a document to train on and one held out, found 1; blank lines separate documents",
        ),
        (f"{SENTENCE}\n\n{SENTENCE}", "masked words need at least one document, got 0 to train on"),  # copies
    ],
)
def test_one_document_is_an_error(pretrain, tmp_path, text, message):
    (tmp_path / "one.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        pretrain(tmp_path / "run", "--corpus", str(tmp_path / "one.txt"))
    assert not (tmp_path / "run").exists()


def test_rows_must_hold_a_token(pretrain, tmp_path):
    with pytest.raises(
        ValueError, match=r"max.length.* must be at least 3 to hold a token between \[CLS\] and \[SEP\]"
    ):
        pretrain(tmp_path / "run", "--max-length", "2")


def test_a_run_is_planned(pretrain, tmp_path, monkeypatch):
    monkeypatch.setattr(cost, "MAX_PROGRAMS", 1)  # a short search for the largest batch
    printed = pretrain(tmp_path / "run", "--plan")
    assert "8 fits" in printed
    assert "tokens/s" in printed
    assert not (tmp_path / "run").exists()
