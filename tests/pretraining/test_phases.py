"""Phases of a run: which steps they have, and that a run may stop on either side of a border and be resumed."""

import json
import signal
from contextlib import contextmanager

import jax
import numpy as np
import pytest
from small_runs import SMALL, write_corpus

import bert_jax
import train as script
from bert_jax.cli.programs import parse_pretraining
from bert_jax.pretraining.checks import check
from bert_jax.pretraining.phases import parse_phases
from bert_jax.pretraining.presets import make_settings
from bert_jax.training.loop import Milestones
from bert_jax.training.runs.interruption import Interrupted

PHASES = ["--phases", "24:4", "32:3:16:2"]  # the border is at step 4, the end at step 7
BORDER = 4


@pytest.fixture(scope="module")
def pretrain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("phases")
    text = write_corpus(folder / "films.txt")
    # SMALL says one length and the number of steps, which phases decide here.
    flags = [flag for name in ("--max-length", "--steps") for flag in SMALL[SMALL.index(name) : SMALL.index(name) + 2]]
    small = [flag for flag in SMALL if flag not in flags]

    def run(output, *flags):
        texts = ["--corpus", str(text), "--cache-dir", str(folder / "cache")]
        script.main([*small, *PHASES, *texts, "--output", str(output), *flags])
        return output

    return run


@pytest.fixture(scope="module")
def whole(pretrain, tmp_path_factory):
    return pretrain(tmp_path_factory.mktemp("runs") / "whole")


def rows(run):
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "tokens_per_second"} for row in found]


@pytest.mark.slow
def test_each_phase_has_its_rows_and_one_schedule_spans_them(whole):
    steps = [row for row in rows(whole) if "loss" in row]
    assert [(row["step"], row["phase"]) for row in steps] == [(n, 1 if n <= BORDER else 2) for n in range(1, 8)]
    rates = [row["learning_rate"] for row in steps]
    warmup = [1e-2 * n / 3 for n in range(3)]
    assert rates == pytest.approx([*warmup, *(1e-2 * (1 - n / 50) for n in range(3, 7))])  # decay_steps 50
    evaluations = [(row["step"], row["phase"]) for row in rows(whole) if "eval_loss" in row]
    assert evaluations == [(BORDER, 1), (7, 2)]
    assert [path.name for path in sorted((whole / "checkpoints").iterdir())] == [str(BORDER), "7"]


@pytest.mark.slow
def test_a_run_that_is_interrupted_beside_a_border_equals_one_that_is_not(pretrain, whole, tmp_path):
    """One run, which is interrupted before the border, at it and after it."""
    run = tmp_path / "run"
    for stop in (BORDER - 1, BORDER, BORDER + 1):
        with interruption_at(stop):
            pretrain(run, "--resume", "--begin")
    require_equal(pretrain(run, "--resume"), whole)


@contextmanager
def interruption_at(stop):
    """Interrupts a run at a step; it saves that step and ends."""
    reach = Milestones.reach

    def interrupted(self, state, step):
        self.session.interruption.received = signal.SIGTERM if step == stop else None
        return reach(self, state, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Milestones, "reach", interrupted)
        with pytest.raises(Interrupted, match=f"SIGTERM: saved at step {stop}"):
            yield


@pytest.mark.slow
def test_a_run_that_is_killed_beside_a_border_equals_one_that_is_not(pretrain, whole, tmp_path, monkeypatch):
    """One run, which is killed in the evaluation at the border, after its checkpoint is saved, and a step later."""
    reach = Milestones.reach
    run = tmp_path / "run"

    def die(*_):
        raise SystemError("killed")

    def die_after_the_border(self, state, step):
        return die() if step == BORDER + 1 else reach(self, state, step)

    for name, replacement in (("_evaluate", die), ("reach", die_after_the_border)):
        with monkeypatch.context() as patch:
            patch.setattr(Milestones, name, replacement)
            with pytest.raises(SystemError):
                pretrain(run, "--resume", "--begin")
        assert any("eval_loss" in row for row in rows(run)) == (name == "reach")
    require_equal(pretrain(run, "--resume"), whole)


@pytest.mark.slow
def test_masked_words_alone_are_trained_in_phases_from_a_model(pretrain, whole, tmp_path):
    """The model has parts for sentence pairs, which are left out. The run is interrupted at the border and resumed."""
    source = bert_jax.load(whole)
    flags = ["--objective", "mlm", "--phases", "24:2", "32:2:16:2"]
    flags += ["--model", str(whole), "--vocab-size", str(source.config.vocab_size)]
    ended = pretrain(tmp_path / "ended", *flags)
    steps = [row for row in rows(ended) if "loss" in row]
    assert [(row["step"], row["phase"]) for row in steps] == [(1, 1), (2, 1), (3, 2), (4, 2)]
    assert [(row["step"], row["phase"]) for row in rows(ended) if "eval_loss" in row] == [(2, 1), (4, 2)]
    assert steps[0]["loss"] < rows(whole)[0]["masked_lm_loss"]  # which is that of random weights
    assert source.params.keys() - bert_jax.load(ended).params.keys() == {"pooler", "next_sentence"}
    run = tmp_path / "run"
    with interruption_at(2):
        pretrain(run, *flags)
    require_equal(pretrain(run, *flags, "--resume"), ended)


def require_equal(run, whole):
    assert rows(run) == rows(whole)
    jax.tree.map(np.testing.assert_array_equal, *(bert_jax.load(one).params for one in (run, whole)))


@pytest.mark.parametrize(
    ("texts", "steps", "decay_steps", "expected"),
    [
        (["128:90%", "512:10%"], 1000, 1000, [(0, 900, 128), (900, 1000, 512)]),
        (["128:90%", "512:10%"], 30, 1000, [(0, 30, 128)]),  # stops early: percentages are of `decay_steps`
        (["128:90%", "512:10%"], 950, 1000, [(0, 900, 128), (900, 950, 512)]),
        (["128:90%", "512:10%"], 2000, 1000, [(0, 900, 128), (900, 2000, 512)]),  # a constant rate may go on
        (["64:7", "128:1_1", "32:13"], 31, 9, [(0, 7, 64), (7, 18, 128), (18, 31, 32)]),
    ],
)
def test_phases_follow_one_another_until_the_last_step(texts, steps, decay_steps, expected):
    phases = parse_phases(texts, steps=steps, decay_steps=decay_steps)
    assert [(phase.first_step, phase.last_step, phase.max_length) for phase in phases] == expected
    assert {phase.num_phases for phase in phases} == {len(texts)}


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["128:5", "512:6"], "the steps of 128:5 512:6 add up to 11, but `steps=10`"),
        (["128:50%", "512:60%"], "must add up to 100, got 128:50% 512:60%, 110 together"),
        (["128:5", "512:50%"], "must be all numbers or all percentages"),
        (["128"], r"a phase must be LENGTH:STEPS\[:BATCH_SIZE\[:ACCUMULATE\]\], as in .*; got '128'"),
        (["128:10:0"], "got '128:10:0'"),
        (["0:10"], "got '0:10'"),
        (["128:0"], "got '128:0'"),
        (["a:10"], "got 'a:10'"),
        (["128:10:00"], "got '128:10:00'"),
        (["128:10:8:0_0"], "got '128:10:8:0_0'"),
        (["128:_"], "got '128:_'"),
        (["128:1__0"], "got '128:1__0'"),
        (["١٢٨:10"], "got '١٢٨:10'"),
    ],
)
def test_impossible_phases_are_refused(texts, message):
    with pytest.raises(ValueError, match=f"`phases`: .*{message}"):
        parse_phases(texts, steps=10, decay_steps=10)


def test_a_preset_of_bert_has_its_phases_unless_a_length_is_given():
    assert make_settings("base").training.phases == ("128:90%", "512:10%")
    assert [phase.last_step for phase in make_settings("base").phases] == [900_000, 1_000_000]
    for settings in (make_settings("base", max_length=64), parse_pretraining(["--preset=base", "--max-length=64"])):
        assert settings.training.phases == ()
        assert [phase.max_length for phase in settings.phases] == [64]
    assert make_settings().training.phases == ()


def test_phases_decide_the_longest_row_and_the_steps():
    for settings in (
        make_settings(phases=("32:70", "256:30:64")),
        parse_pretraining(["--phases", "32:70", "256:30:64"]),
    ):
        check(settings)
        assert settings.training.steps == 100
        assert settings.batches.max_length == 256
        assert [settings.of_phase(phase).training.batch_size for phase in settings.phases] == [32, 64]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"phases": ("32:70", "64:30"), "steps": 50}, "the steps of 32:70 64:30 add up to 100, but `steps=50`"),
        ({"phases": ("32:70", "1024:30")}, "`phases`: rows of 1024 tokens exceed the position embeddings: .*=512`"),
        ({"phases": ("3:70", "64:30")}, "`max_length` must be at least"),
        ({"phases": ("32:7000",)}, "`steps=7000` exceeds `decay_steps=4000`"),
        ({"phases": ("32:7", "64:3"), "max_length": 32}, "`max_length=32` contradicts `phases`: .* have 64 tokens"),
    ],
)
def test_phases_that_cannot_be_trained_are_refused_before_any_work(changes, message):
    with pytest.raises(ValueError, match=message):
        check(make_settings(**changes))
