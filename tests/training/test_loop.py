"""The order of steps, evaluations and checkpoints, with a step in plain Python."""

import json
import os
import signal
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from bert_jax.training.loop import Cadence, Session, train
from bert_jax.training.metric_logger import NotFinite
from bert_jax.training.runs.interruption import Interrupted, Interruption, until_requested
from bert_jax.training.runs.metrics import (
    MetricsFile,
    evaluate,
    ranking_accuracy,
    read_evaluations,
    read_metrics,
    unigram_entropy,
)


class Rows:
    """Batches that are their own numbers."""

    def __init__(self, row=0):
        self.row = row

    def __iter__(self):
        return self

    def __next__(self):
        self.row += 1
        return self.row

    def state(self):
        return {"row": self.row}


class Saved(dict):
    """Checkpoints in a dict."""

    def __init__(self, events):
        super().__init__()
        self.events, self.scores = events, {}
        self.pending = None

    @property
    def latest(self):
        return max(self, default=None)

    def save(self, state, data, score=None, *, pending=False):
        self[state.step] = data
        self.pending = state.step if pending else None
        self.events.append("save")
        if score is not None:
            self.scores[state.step] = score

    def confirm(self, step, score):
        assert self.pending in (step, None)
        self.pending = None
        if score is not None:
            self.scores[step] = score

    def discard(self, step):
        assert self.pending in (step, None)
        assert step == self.latest
        del self[step]

    def is_best(self, score):
        return score < min(self.scores.values(), default=9.0)

    def restore(self, like):
        params = float(self.latest)
        return SimpleNamespace(step=self.latest, params=params), self[self.latest]

    def check(self):
        pass

    def wait(self):
        self.events.append("wait")


class Written(list):
    """A reporter that keeps its rows."""

    def __init__(self, events):
        super().__init__()
        self.events = events
        self.steps = 0
        self.lines = []

    def advance(self):
        self.steps += 1

    def write(self, row):
        self.append(row)
        self.events += ["row"] * ("eval_loss" in row)

    def evaluation(self, step):
        return next((row for row in self if row["step"] == step and "eval_loss" in row), None)

    def sync(self):
        self.events.append("sync")

    def log(self, line):
        self.lines.append(line)

    def rewind(self, step):
        self[:] = [row for row in self if row["step"] <= step]


def run(
    steps,
    *,
    first=0,
    state=None,
    bad_step=None,
    bad_model=None,
    cadence=None,
    events=None,
    written=None,
    saved=None,
    watch=None,
    interruption=None,
    **more,
):
    def step(state, batch):
        loss = float("nan") if batch == bad_step else 1.0 / batch
        params = float("inf") if batch == bad_model else float(batch)
        return SimpleNamespace(step=state.step + 1, params=params), {
            "loss": loss,
            "gradient_norm": 1.0,
            "tokens": 5,
            "learning_rate": batch * 0.5,
        }

    events = [] if events is None else events
    saved = Saved(events) if saved is None else saved
    written = Written(events) if written is None else written
    cadence = cadence or Cadence(log=2, evaluate=4, checkpoint=3)
    options = {
        "step": step,
        "device_put": lambda batch: batch,
        "evaluate": lambda state: {"eval_loss": state.params},
        "steps": steps,
        "session": Session(saved, written, cadence, watch, interruption),
        **more,
    }
    try:
        state = state or SimpleNamespace(step=first, params=None)
        train(state, Rows(state.step), **options)
    except NotFinite as error:
        return saved, written, str(error)
    return saved, written, None


def test_logging_evaluation_and_checkpoints_follow_their_cadence():
    saved, written, _ = run(7)
    assert [row["step"] for row in written if "loss" in row] == [2, 4, 6, 7]
    assert [row["step"] for row in written if "eval_loss" in row] == [4, 7]
    assert saved == {3: {"row": 3}, 6: {"row": 6}, 7: {"row": 7}}
    assert written.steps == 7


def test_a_row_holds_the_metrics_of_its_own_step():
    _, written, _ = run(6)
    rows = {row["step"]: row for row in written if "loss" in row}
    assert rows[4]["loss"] == 1 / 4
    assert rows[4]["learning_rate"] == 2.0
    assert [row["eval_loss"] for row in written if "eval_loss" in row] == [4, 6]


def test_training_continues_from_the_step_of_the_state():
    saved, written, _ = run(6, first=3)
    assert [row["step"] for row in written if "loss" in row] == [4, 6]
    assert saved == {6: {"row": 6}}


@pytest.mark.parametrize("bad_step", [4, 5, 6])
def test_a_nan_loss_stops_the_run_before_the_state_is_saved(bad_step):
    saved, _, message = run(8, bad_step=bad_step)
    assert message is not None
    assert message.startswith(f"step {bad_step}: loss nan")
    assert "the last good checkpoint is of step 3" in message
    assert saved == {3: {"row": 3}}


@pytest.mark.parametrize(
    ("bad_model", "cadence"), [(6, Cadence(2, 3, 3)), (6, Cadence(2, 0, 3)), (8, Cadence(2, 0, 3))]
)
def test_parameters_that_are_not_finite_are_not_saved(bad_model, cadence):
    """The loss of that step is finite: it was computed before the update."""
    saved, written, message = run(8, bad_model=bad_model, cadence=cadence)
    assert message is not None
    assert message.startswith(f"step {bad_model}: ")
    assert max(saved) < bad_model
    assert not [row for row in written if row.get("eval_loss") == float("inf")]


def test_a_checkpoint_is_saved_before_the_evaluation_of_its_step():
    """A run that is killed between the two evaluates the restored step."""
    events = []
    run(4, cadence=Cadence(9, 2, 2), events=events)
    assert events == ["sync", "save", "row"] * 2


def test_a_nan_loss_in_the_last_step_stops_the_run():
    assert run(5, bad_step=5)[2] is not None


def test_a_step_at_which_training_is_stopped_early_is_saved():
    rows = []
    saved, written, _ = run(9, cadence=Cadence(9, 2, 3), stop=lambda row: rows.append(row) or len(rows) == 2)
    assert rows == [{"eval_loss": 2.0}, {"eval_loss": 4.0}]
    assert saved == {3: {"row": 3}, 4: {"row": 4}}
    assert written.steps == 4


def seeds_step(bad_step=None):
    """A step that trains three seeds together."""

    def step(state, batch):
        losses = np.array([1.0, float("nan") if batch == bad_step else 2.0, 3.0])
        metrics = {"loss": losses, "gradient_norm": np.ones(3), "tokens": np.array([5, 5, 5])}
        return SimpleNamespace(step=state.step + 1, params=float(batch)), metrics

    return step


def test_metrics_of_several_seeds_are_arrays():
    accuracy = np.array([0.5, 0.25, 0.75])
    _, written, _ = run(2, step=seeds_step(), evaluate=lambda state: {"eval_accuracy": accuracy})
    first, second = written
    np.testing.assert_array_equal(first["loss"], [1, 2, 3])
    assert isinstance(first["tokens_per_second"], float)
    np.testing.assert_array_equal(second["eval_accuracy"], accuracy)


def test_a_nan_loss_in_one_seed_stops_all():
    message = run(3, step=seeds_step(bad_step=2))[2]
    assert message is not None
    assert message.startswith("step 2: loss [ 1. nan  3.]")


def test_the_best_state_so_far_is_saved_with_its_score():
    """Losses 4, 2, 3: the second is saved although no checkpoint is due at its step."""
    losses = {2: 4.0, 4: 2.0, 6: 3.0}
    options = {"evaluate": lambda state: {"eval_loss": losses[state.params]}, "score": lambda row: row["eval_loss"]}
    saved, _, _ = run(6, cadence=Cadence(9, 2, 3), **options)
    assert saved.scores == {2: 4.0, 4: 2.0, 6: 3.0}
    assert set(saved) == {2, 3, 4, 6}


class InterruptedAt:
    """An interruption that is requested at a call: without evaluations, that after a step."""

    received = None

    def __init__(self, call):
        self.calls_left = call

    def requested(self):
        self.calls_left -= 1
        if self.calls_left == 0:
            self.received = signal.SIGTERM
        return self.received is not None


def test_an_interrupted_run_saves_its_step():
    events = []
    with pytest.raises(Interrupted, match="SIGTERM: saved at step 5") as caught:
        run(9, cadence=Cadence(9, 0, 4), interruption=InterruptedAt(5), events=events)
    assert events == ["sync", "save"] * 2 + ["wait"]
    assert (caught.value.step, caught.value.exit_code) == (5, 143)


@pytest.mark.parametrize("cadence", [Cadence(9, 2, 2), Cadence(9, 2, 3), Cadence(9, 0, 0)], ids=str)
def test_an_evaluation_ends_at_the_batch_after_a_signal(cadence):
    """The step is saved once; the evaluation of 99 batches is done by the resumed run."""
    evaluated = []
    events = []
    last = cadence.evaluate or 7
    with Interruption() as interruption:

        def evaluate(state):
            for batch in until_requested(range(99), interruption):
                evaluated.append(batch)
                if batch == 4:
                    os.kill(os.getpid(), signal.SIGTERM)
            return {"eval_loss": 1.0}

        with pytest.raises(Interrupted, match=f"SIGTERM: saved at step {last}"):
            run(7, cadence=cadence, evaluate=evaluate, interruption=interruption, events=events)
    assert evaluated == list(range(5))
    assert events == ["sync", "save", "wait"]

    state = SimpleNamespace(step=last, params=float(last))
    _, written, _ = run(last, state=state, cadence=cadence)
    assert [row["step"] for row in written if "eval_loss" in row] == [last]


def test_a_pending_evaluation_hears_signals_too():
    saved = Saved([])
    state = SimpleNamespace(step=4, params=4.0)
    with Interruption() as interruption:
        options = {"evaluate": lambda state: {"eval_loss": sum(until_requested([1.0], interruption))}}
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Interrupted, match="saved at step 4"):
            run(8, state=state, interruption=interruption, saved=saved, **options)
    assert saved == {}


@pytest.mark.parametrize("cadence", [Cadence(9, 3, 3), Cadence(9, 2, 3)], ids=str)
def test_a_state_whose_evaluation_is_not_finite_is_not_kept(cadence):
    saved, written, message = run(
        8, cadence=cadence, evaluate=lambda state: {"eval_loss": float("nan") if state.step == 6 else 1.0}
    )
    assert message is not None
    assert message.startswith("step 6: held-out loss nan: stopped; the last good checkpoint is of step 3")
    assert set(saved) == {3}
    assert 6 not in [row["step"] for row in written if "eval_loss" in row]


@pytest.mark.parametrize("step", [4, 8])
def test_a_pending_evaluation_is_done_once_by_the_resumed_run(step):
    """An interrupted run leaves out the evaluation of its last step; a run killed after doing it does not repeat it."""
    scoring = {"cadence": Cadence(2, 4, 0), "score": lambda metrics: metrics["eval_loss"]}
    interrupted, written = Saved([]), Written([])
    with pytest.raises(Interrupted):
        run(8, interruption=InterruptedAt(step), saved=interrupted, written=written, **scoring)
    assert interrupted[step] == {"row": step}
    assert step not in interrupted.scores

    state = SimpleNamespace(step=step, params=float(step))
    for _ in range(2):
        losses = []
        stop = {"stop": lambda metrics, losses=losses: not losses.append(metrics["eval_loss"])}
        saved, _, _ = run(8, state=state, written=written, **scoring, **stop)
        assert losses == [step]
        assert saved == {}, "training continues after the step at which it stops"
        assert saved.scores == {step: step}
    assert [row["step"] for row in written if "eval_loss" in row] == [4, 8][: step // 4]

    resumed, _, _ = run(8, state=state, written=written, **scoring)
    assert [row["step"] for row in written if "eval_loss" in row] == [4, 8]
    assert resumed.scores[step] == step


@pytest.mark.parametrize("first", [0, 3])
def test_no_evaluation_is_pending_where_none_is_due(first):
    _, written, _ = run(5, first=first, cadence=Cadence(9, 4, 0))
    assert [row["step"] for row in written if "eval_loss" in row] == [4, 5]


def test_a_resumed_run_knows_the_score_of_a_last_step_that_is_not_the_last_any_more():
    written = Written([])
    scoring = {"cadence": Cadence(2, 0, 0), "score": lambda metrics: metrics["eval_loss"]}
    run(4, written=written, **scoring)
    saved, _, _ = run(7, state=SimpleNamespace(step=4, params=4.0), written=written, **scoring)
    assert saved.scores == {4: 4.0, 7: 7.0}


def saved_at(*steps):
    """Checkpoints of a run that is resumed."""
    saved = Saved([])
    saved.update({step: {"row": step} for step in steps})
    return saved


@pytest.mark.parametrize("before", [(), (2,)])
def test_a_state_whose_pending_evaluation_is_not_finite_is_not_kept(before):
    state = SimpleNamespace(step=4, params=float("nan"))
    saved, _, message = run(8, state=state, saved=saved_at(*before, 4))
    left = "the last good checkpoint is of step 2" if before else "no checkpoint was saved"
    assert message.startswith(f"step 4: held-out loss nan: stopped; {left}")
    assert tuple(saved) == before


def test_a_pending_evaluation_that_is_not_finite_is_rewound():
    saved, written, message = run(
        8,
        state=SimpleNamespace(step=4, params=float("nan")),
        saved=saved_at(2, 4),
        cadence=Cadence(9, 4, 2),
        rewind=True,
    )
    assert message is None
    assert written.lines == ["step 4: held-out loss nan: rewound to step 2, continuing with the next data"]
    assert saved == {2: {"row": 2}, 4: {"row": 6}, 6: {"row": 8}, 8: {"row": 10}}


def test_a_run_without_an_earlier_checkpoint_cannot_be_rewound():
    state = SimpleNamespace(step=4, params=float("nan"))
    _, _, message = run(8, state=state, saved=saved_at(4), rewind=True)
    assert message.startswith("step 4: held-out loss nan: stopped; no checkpoint was saved")


@pytest.mark.parametrize("cadence", [Cadence(9, 4, 4), Cadence(9, 4, 0), Cadence(9, 4, 3)], ids=str)
def test_the_checkpoint_of_an_interrupted_run_is_pending_if_its_evaluation_is(cadence):
    saved = Saved([])
    with pytest.raises(Interrupted):
        run(8, interruption=InterruptedAt(4), saved=saved, cadence=cadence)
    assert saved.pending == 4


def test_a_rewound_run_continues_with_the_next_data():
    """Step 5 is bad, which is known after batch 6 was taken: the run restores step 3 and continues with batch 7."""
    saved, written, message = run(6, bad_step=5, rewind=True)
    assert message is None
    assert saved == {0: {"row": 0}, 3: {"row": 3}, 6: {"row": 9}}
    assert [row["step"] for row in written if "loss" in row] == [2, 4, 6]
    assert written.lines == ["step 5: loss nan, gradient norm 1.0: rewound to step 3, continuing with the next data"]


def test_the_number_of_rewinds_to_a_checkpoint_is_limited():
    def step(state, batch):
        return state, {"loss": float("nan"), "gradient_norm": 1.0, "tokens": 5}

    saved, _, message = run(6, step=step, rewind=True)
    assert message is not None
    assert message.startswith("step 1: loss nan, gradient norm 1.0: stopped after 3 rewinds to step 0")
    assert saved == {0: {"row": 0}}


def skipping(bad):
    """A step that skips the updates of some batches."""

    def step(state, batch):
        metrics = {"loss": float("nan") if batch in bad else 1.0, "gradient_norm": 1.0, "tokens": 5}
        metrics["skipped"] = sum(b <= batch for b in bad)
        return SimpleNamespace(step=state.step + 1, params=float(batch)), metrics

    return step


def test_skipped_updates_are_counted_and_logged():
    saved, written, message = run(6, step=skipping([2, 5]))
    assert message is None
    assert [row["skipped"] for row in written if "loss" in row] == [1, 1, 2]
    assert written.lines[0] == "step 2: loss nan, gradient norm 1.0: its update was skipped"
    assert set(saved) == {3, 6}


def test_a_run_stops_after_too_many_consecutive_skips():
    message = run(200, step=skipping(range(50, 200)))[2]
    assert message is not None
    assert message.startswith("step 149: 100 consecutive updates were skipped: stopped; the last good checkpoint is of")


@pytest.mark.parametrize("others", [1.0, float("nan")])
def test_a_run_with_skipped_updates_stops_only_if_every_seed_skips(others):
    def step(state, batch):
        losses = np.array([float("nan"), others])
        metrics = {"loss": losses, "gradient_norm": np.ones(2), "tokens": 5, "skipped": np.full(2, batch)}
        return SimpleNamespace(step=state.step + 1, params=float(batch)), metrics

    message = run(150, step=step)[2]
    assert (message is None) == (others == 1.0)


def test_warnings_of_the_watch_are_logged():
    steps = []
    _, written, _ = run(4, watch=lambda row: steps.append(row["step"]) or ("careful" if len(steps) == 2 else None))
    assert steps == [1, 2, 3, 4, 4]
    assert written.lines == ["step 2: warning: careful"]


def test_the_next_batch_is_copied_while_the_device_computes():
    """Fetching the metrics of a step waits for it: by then the next batch is copied and its step dispatched."""
    events = []

    class Loss(float):
        def __array__(self, *options):
            events.append(("waited", int(self)))
            return np.float32(1.0)

    def step(state, batch):
        events.append(("dispatched", batch))
        return SimpleNamespace(step=batch, params=0.0), {"loss": Loss(batch), "gradient_norm": 1.0, "tokens": 5}

    run(5, step=step, device_put=lambda batch: events.append(("copied", batch)) or batch, cadence=Cadence(9))
    for number in range(1, 5):
        assert events.index(("copied", number + 1)) < events.index(("waited", number))
        assert events.index(("dispatched", number + 1)) < events.index(("waited", number))


def test_an_unexpected_compilation_is_logged():
    @jax.jit
    def add(params, input_ids):
        return params + input_ids.sum()

    def step(state, batch):
        params = add(0.0, batch["input_ids"])
        return SimpleNamespace(step=state.step + 1, params=params), {"loss": 1.0, "gradient_norm": 1.0, "tokens": 5}

    widths = [3, 3, 2, 3]
    options = {"step": step, "device_put": lambda number: {"input_ids": np.zeros((2, widths[number - 1]))}}
    (line,) = run(4, **options)[1].lines
    assert line.startswith("step 3: warning: the step was compiled again (2 compilations so far)")
    assert run(4, **options, varied_shapes=True)[1].lines == []


def test_an_evaluation_divides_summed_losses_by_summed_weights():
    """The second batch has a fifth of the weight of the first; the mean of their means would be 3."""
    batches = [{"masked_lm_loss": (10.0, 5.0)}, {"masked_lm_loss": (4.0, 1.0)}]
    row = evaluate(lambda params, batch: batch, None, batches)
    assert row["eval_masked_lm_loss"] == pytest.approx(14 / 6)
    assert row["eval_loss"] == row["eval_masked_lm_loss"]
    assert row["eval_perplexity"] == pytest.approx(2.718281828 ** (14 / 6))


def test_unigram_entropy_of_equally_frequent_words_is_the_logarithm_of_their_number():
    assert unigram_entropy([np.array([3, 4]), np.array([5, 5, 4, 3])]) == pytest.approx(np.log(3))


def test_ranking_accuracy_is_the_fraction_of_pairs_ranked_correctly():
    random = np.random.default_rng(0)
    scores, labels = random.integers(0, 7, 53), random.integers(0, 2, 53)  # few values, so many ties
    pairs = [(a > b) + (a == b) / 2 for a in scores[labels == 1] for b in scores[labels == 0]]
    assert ranking_accuracy(scores, labels) == pytest.approx(np.mean(pairs))
    assert ranking_accuracy(labels, labels) == 1.0
    assert np.isnan(ranking_accuracy(scores, np.ones(53)))


def test_numbers_that_are_not_finite_are_null_in_json(tmp_path):
    MetricsFile(tmp_path / "metrics.jsonl").write({"step": 1, "loss": float("nan")})
    assert (tmp_path / "metrics.jsonl").read_text() == '{"step": 1, "loss": null}\n'


def test_evaluations_are_read_by_step_if_they_hold_every_seed(tmp_path):
    file = MetricsFile(tmp_path / "metrics.jsonl")
    file.write(
        {"step": 2, "loss": 1.5}, {"step": 2, "eval_f1": 0.5, "seed": 3}, {"step": 2, "eval_f1": None, "seed": 5}
    )
    file.write({"step": 4, "eval_f1": 0.25, "seed": 3})
    (row,) = read_evaluations(file.path, (5, 3))
    assert row["step"] == 2
    np.testing.assert_array_equal(row["eval_f1"], [np.nan, 0.5])
    assert read_evaluations(tmp_path / "missing.jsonl", (5, 3)) == []


def test_sync_syncs_the_file_and_its_folder(tmp_path, monkeypatch):
    synced = []
    file = MetricsFile(tmp_path / "metrics.jsonl")
    monkeypatch.setattr(os, "fsync", lambda opened: synced.append(os.path.realpath(f"/proc/self/fd/{opened}")))
    file.sync()
    assert synced == [str(tmp_path.resolve() / "metrics.jsonl"), str(tmp_path.resolve())]


def test_rows_after_the_checkpoint_are_dropped(tmp_path):
    path = tmp_path / "metrics.jsonl"
    file = MetricsFile(path)
    for step in (10, 20, 30):
        file.write({"step": step})
    with path.open("a") as unfinished:
        unfinished.write('{"step": 4')
    MetricsFile(path, after_step=20).write({"step": 30, "loss": 1.5})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [10, 20, 30]
    assert read_metrics(path)[-1]["loss"] == 1.5
