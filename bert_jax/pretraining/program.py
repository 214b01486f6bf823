"""Pretraining from beginning to end: text to a folder that `bert_jax.load` reads.

References: Devlin et al., BERT, 2018, section 3.1 and appendix A.2.
"""

import json
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bert_jax.files import write_file
from bert_jax.interop.loaded_bert import LoadedBert
from bert_jax.interop.loading import TrainedRun, save_config
from bert_jax.pretraining.checks import check
from bert_jax.pretraining.corpus import Corpus, Documents
from bert_jax.pretraining.model import Computation, model_config
from bert_jax.pretraining.phase_run import PhaseRun
from bert_jax.pretraining.settings import (
    CONTENTS,
    CORPUS_HASH,
    MAY_CHANGE_ON_RESUME,
    TOKENIZER_HASH,
    Settings,
)
from bert_jax.pretraining.source import add_new_words, read_source
from bert_jax.pretraining.summary import describe_model, final_metrics, summarize
from bert_jax.pretraining.vocabulary import make_tokenizer
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training.devices import parallel, processes
from bert_jax.training.runs.checkpoints import Checkpoints
from bert_jax.training.runs.contents import DATA
from bert_jax.training.runs.folder import begin_run, check_run
from bert_jax.training.runs.interruption import receive_signals
from bert_jax.training.runs.lock import RunLock, lock_run
from bert_jax.training.runs.manifests import CHECKPOINTS
from bert_jax.training.runs.reporting import Reporter
from bert_jax.training.runs.saved_steps import newest_whole_step
from bert_jax.training.settings import as_record, defaults_of
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


def pretrain(settings: Settings) -> TrainedRun:
    """Pretrains a BERT, or resumes its training, and returns the run.

    Args:
        settings: see `bert_jax.pretraining.make_settings`.

    Raises:
        ValueError, OSError: settings that cannot be trained, text that cannot be read, or a folder that cannot be used.
        RunInUse: another process writes to the folder.
        NotFinite: a loss or a gradient became NaN or infinite.
        Interrupted: a signal ended the run; the last step is saved.
    """
    check(settings)
    join_processes(settings)
    layout = make_layout(settings)
    # The folder is checked now, because reading the text may take hours, and written to once the text has been read.
    folder = Path(settings.run.output)
    options = {
        "resume": settings.run.resume,
        "begin": settings.run.begin,
        "overwrite": settings.run.overwrite,
        "may_change": MAY_CHANGE_ON_RESUME,
        "contents": CONTENTS,
        "defaults": defaults_of(Settings),
    }
    check_run(folder, as_record(settings), **options)
    with lock_run(folder) as lock:
        _check_steps(settings, folder)
        check_run(folder, as_record(settings), **options)  # another process had the lock, or checkpoints are damaged
        return _pretrain(settings, layout, folder, options, lock)


def _pretrain(
    settings: Settings, layout: parallel.Layout, folder: Path, options: dict[str, Any], lock: RunLock | None
) -> TrainedRun:
    """Reads the text, begins or resumes the run and trains; the arguments in `options` are those of `check_run`."""
    source = read_source(settings)
    documents = Documents.read(settings)
    facts: dict[str, Any] = {}
    if source is None:
        tokenizer = make_tokenizer(settings, documents.train)
    else:
        source, new_words = add_new_words(settings, source, documents.train)
        tokenizer = source.tokenizer
        facts = {} if new_words is None else {"new_words": new_words.as_dict()}
    corpus = Corpus.of(settings.of_phase(settings.phases[0]), documents, tokenizer)
    for line in corpus.lines():
        print(line)
    if processes.is_first():
        begin_run(folder, as_record(settings) | {"text read": _hashes(settings, corpus)}, **options)
        write_file(folder / DATA, json.dumps(corpus.report() | facts, indent=2, ensure_ascii=False) + "\n")
    processes.barrier("the run has begun")

    phase, state = _train(settings, corpus, source, layout, folder, lock)
    ranking = phase.ranking_accuracy(state)
    processes.barrier("the metrics are written")
    trained = TrainedRun(folder, final_metrics(folder))
    if processes.is_first():
        summarize(settings, trained, phase.baseline, ranking)
    processes.barrier("the summary is printed")
    return trained


def _train(
    settings: Settings,
    corpus: Corpus,
    source: LoadedBert | None,
    layout: parallel.Layout,
    folder: Path,
    lock: RunLock | None,
) -> tuple[PhaseRun, TrainState]:
    """Trains, or resumes training, until the last step; leaves checkpoints, metrics and curves in `folder`.

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
        state, start_row = _start(settings, phase.computation, source, layout, checkpoints)
        # `bert_jax.load` needs config.json and the tokenizer; they are saved before the first checkpoint, so that an
        # unfinished run can be loaded. A resumed run saves them again: they may have been damaged.
        if processes.is_first():
            save_config(folder, phase.computation.model)
            corpus.tokenizer.save(folder)
        describe_model(config, state)
        reporter = _reporter(settings, folder, int(state.step))  # opens files, which the `with` closes
        with reporter, receive_signals(settings.run.save_on_signal) as interruption:
            during = {"checkpoints": checkpoints, "reporter": reporter, "interruption": interruption}
            state = phase.train(state, start_row=start_row, **during)
            for next_phase in later:
                phase = PhaseRun.of(next_phase, settings, corpus, config, layout)
                state = phase.train(state, start_row=0, **during)
            reporter.draw()
    return phase, state


def join_processes(settings: Settings) -> None:
    """Makes this process one of several if the settings say so; must be called before JAX is used for anything else."""
    cluster = settings.processes
    if cluster.distributed:
        processes.join(cluster.coordinator, cluster.num_processes, cluster.process_id)


def _hashes(settings: Settings, corpus: Corpus) -> dict[str, str]:
    """Returns hashes of the text and of the vocabulary that is given, if one is, by their names in training.json.

    A resumed run must find the text it began with: its position in the data means nothing in another text.
    """
    hashes = {CORPUS_HASH: corpus.train.fingerprint[:16]}
    if settings.text.tokenizer and Path(settings.text.tokenizer).exists():
        hashes[TOKENIZER_HASH] = Tokenizer.load(settings.text.tokenizer).fingerprint[:16]
    return hashes


def make_layout(settings: Settings) -> parallel.Layout:
    """Returns how the devices share a step.

    Raises:
        ValueError: the batch cannot be divided over them.
    """
    devices = settings.devices
    layout = parallel.make_layout(devices.parallel, fsdp=devices.fsdp, tensor=devices.tensor)
    for phase in settings.phases:
        of_phase = settings.of_phase(phase)
        parallel.check_batch(of_phase.training.batch_size, layout, of_phase.devices.accumulate)
    return layout


def _check_steps(settings: Settings, folder: Path) -> None:
    """Raises ValueError if the run to resume is beyond its last step; moves damaged checkpoints away."""
    reached = newest_whole_step(folder / CHECKPOINTS) if settings.run.resume else None
    if reached is not None and reached > settings.training.steps:
        raise ValueError(f"{folder} is at step {reached} already, beyond `steps={settings.training.steps}`")


def _start(
    settings: Settings,
    computation: Computation,
    source: LoadedBert | None,
    layout: parallel.Layout,
    checkpoints: Checkpoints,
) -> tuple[TrainState, int]:
    """Returns the state and the row from which training starts: a checkpoint's, the source's weights or random ones."""
    params = None if source is None else jax.tree.map(np.asarray, dict(source.params))
    start: Any = (jax.random.key(settings.batches.seed), params)
    state = layout.create(lambda start: computation.state(*start), start)
    if checkpoints.latest is not None:
        state, position = checkpoints.restore(state)
        print(f"resuming from step {int(state.step):,} of {settings.training.steps:,}")
        return state, position["row"]
    if settings.run.resume:
        print(f"no checkpoint in {settings.run.output} to resume from: starting at step 0")
    return state, 0


def _reporter(settings: Settings, folder: Path, first_step: int) -> Reporter:
    """Returns the reporter that writes metrics to files and to the screen."""
    return Reporter(
        folder,
        first_step=first_step,
        last_step=settings.training.steps,
        panels=[panel for panel in PANELS if settings.batches.next_sentence or panel != NEXT_SENTENCE_PANEL],
        headline=HEADLINE,
        quiet=settings.reports.quiet,
    )
