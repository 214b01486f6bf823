"""Training of a pretraining run, phase after phase, from random weights, those of a model, or a checkpoint."""

from pathlib import Path
from typing import Any

import jax

from bert_jax.interop.loading import save_config
from bert_jax.pretraining.corpus import Corpus
from bert_jax.pretraining.model import Computation, model_config
from bert_jax.pretraining.phase_run import PhaseRun
from bert_jax.pretraining.settings import Settings
from bert_jax.pretraining.summary import describe_model
from bert_jax.training.devices import parallel, processes
from bert_jax.training.runs.checkpoints import Checkpoints
from bert_jax.training.runs.interruption import receive_signals
from bert_jax.training.runs.lock import RunLock
from bert_jax.training.runs.manifests import CHECKPOINTS
from bert_jax.training.runs.reporting import Reporter
from bert_jax.training.runs.tracking import Tracker
from bert_jax.training.state import TrainState

NEXT_SENTENCE_PANEL = ("next-sentence accuracy", "next_sentence_accuracy")
# What curves.png shows: (title, key of metrics.jsonl).
PANELS = (
    ("masked LM loss (nats)", "masked_lm_loss"),
    NEXT_SENTENCE_PANEL,
    ("learning rate", "learning_rate"),
    ("tokens / s", "tokens_per_second"),
)
# What is printed after an evaluation: (label, key, format).
HEADLINE = (
    ("held-out masked LM loss", "eval_masked_lm_loss", ".3f"),
    ("perplexity", "eval_perplexity", ".1f"),
    ("accuracy", "eval_masked_lm_accuracy", ".3f"),
    ("next sentence", "eval_next_sentence_accuracy", ".3f"),
)


def train_phases(
    settings: Settings,
    corpus: Corpus,
    params: Any,
    layout: parallel.Layout,
    folder: Path,
    lock: RunLock | None,
    tracker: Tracker | None = None,
) -> tuple[PhaseRun, TrainState]:
    """Trains, or resumes training, until the last step; leaves checkpoints, metrics and curves in `folder`.

    Args:
        corpus: in the rows of any phase.
        params: those that a new run starts from, in host memory; None = random ones.

    Returns:
        The last phase and the state after it.
    """
    config = model_config(settings, corpus.tokenizer)
    reports = settings.reports
    keep = reports.keep_checkpoints
    with Checkpoints(folder / CHECKPOINTS, keep=keep, keep_best=reports.keep_best, lock=lock) as checkpoints:
        # At the last step of a phase its evaluation may be pending, so that phase, and not the next one, is resumed.
        reached = checkpoints.latest or 0
        first, *later = [phase for phase in settings.phases if phase.last_step >= reached]
        phase = PhaseRun.of(first, settings, corpus, config, layout)
        state, start_row = _start(settings, phase.computation, params, layout, checkpoints)
        # `bert_jax.load` needs config.json and the tokenizer; they are saved before the first checkpoint, so that an
        # unfinished run can be loaded. A resumed run saves them again: they may have been damaged.
        if processes.is_first():
            save_config(folder, phase.computation.model)
            corpus.tokenizer.save(folder)
        describe_model(config, state)
        reporter = _reporter(settings, folder, int(state.step), tracker)  # opens files, which the `with` closes
        with reporter, receive_signals(settings.run.save_on_signal) as interruption:
            during = {"checkpoints": checkpoints, "reporter": reporter, "interruption": interruption}
            state = phase.train(state, start_row=start_row, **during)
            for next_phase in later:
                phase = PhaseRun.of(next_phase, settings, corpus, config, layout)
                state = phase.train(state, start_row=0, **during)
            reporter.draw()
    return phase, state


def _start(
    settings: Settings,
    computation: Computation,
    params: Any,
    layout: parallel.Layout,
    checkpoints: Checkpoints,
) -> tuple[TrainState, int]:
    """Returns the state and the row from which training starts: a checkpoint's, `params` or random ones."""
    start: Any = (jax.random.key(settings.batches.seed), params)
    state = layout.create(lambda start: computation.state(*start), start)
    if checkpoints.latest is not None:
        state, position = checkpoints.restore(state)
        print(f"resuming from step {int(state.step):,} of {settings.training.steps:,}")
        return state, position["row"]
    if settings.run.resume:
        print(f"no checkpoint in {settings.run.output} to resume from: starting at step 0")
    return state, 0


def _reporter(settings: Settings, folder: Path, first_step: int, tracker: Tracker | None) -> Reporter:
    """Returns the reporter that writes metrics to files and to the screen."""
    return Reporter(
        folder,
        first_step=first_step,
        last_step=settings.training.steps,
        panels=[panel for panel in PANELS if settings.batches.next_sentence or panel != NEXT_SENTENCE_PANEL],
        headline=HEADLINE,
        quiet=settings.reports.quiet,
        tracker=tracker,
    )
