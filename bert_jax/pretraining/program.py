"""Pretraining from beginning to end: text to a folder that `bert_jax.load` reads.

References: Devlin et al., BERT, 2018, section 3.1 and appendix A.2.
"""

import json
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import jax

from bert_jax.data.prefetch import Batch
from bert_jax.files import write_file
from bert_jax.interop.loading import TrainedRun, save_config
from bert_jax.pretraining.corpus import Corpus, Documents
from bert_jax.pretraining.model import Computation, model_config
from bert_jax.pretraining.settings import (
    CONTENTS,
    CORPUS_HASH,
    MAY_CHANGE_ON_RESUME,
    TOKENIZER_HASH,
    Settings,
    check,
)
from bert_jax.pretraining.summary import Baseline, describe, final_metrics, nsp_ranking_accuracy, summarize
from bert_jax.pretraining.vocabulary import make_tokenizer
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training.devices import parallel, processes
from bert_jax.training.loop import Cadence, Session, train
from bert_jax.training.runs.checkpoints import Checkpoints
from bert_jax.training.runs.contents import DATA
from bert_jax.training.runs.folder import begin_run, check_run
from bert_jax.training.runs.interruption import receive_signals, until_requested
from bert_jax.training.runs.lock import RunLock, lock_run
from bert_jax.training.runs.manifests import CHECKPOINTS
from bert_jax.training.runs.metrics import evaluate
from bert_jax.training.runs.reporting import Reporter
from bert_jax.training.runs.saved_steps import newest_whole_step
from bert_jax.training.settings import as_record, defaults_of
from bert_jax.training.state import TrainState
from bert_jax.training.watch import Watch

# What curves.png shows: (title, key of metrics.jsonl).
PANELS = (
    ("masked LM loss (nats)", "masked_lm_loss"),
    ("next-sentence accuracy", "next_sentence_accuracy"),
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
    documents = Documents.read(settings)
    corpus = Corpus.of(settings, documents, make_tokenizer(settings, documents.train))
    for line in corpus.lines():
        print(line)
    with corpus.held_out_batches() as batches:
        first_batch = next(batches)
        baseline = Baseline.of(chain([first_batch], batches))
    config = model_config(settings, corpus.tokenizer)
    computation = Computation.make(settings, config, first_batch["attention_mask"])
    if processes.is_first():
        begin_run(folder, as_record(settings) | {"text read": _hashes(settings, corpus)}, **options)
        write_file(folder / DATA, json.dumps(corpus.report(), indent=2, ensure_ascii=False) + "\n")
    processes.barrier("the run has begun")

    state = _train(settings, corpus, computation, layout, folder, baseline, lock)
    ranking = _ranking_accuracy(settings, corpus, computation, layout, state)
    processes.barrier("the metrics are written")
    trained = TrainedRun(folder, final_metrics(folder))
    if processes.is_first():
        summarize(settings, trained, baseline, ranking)
    processes.barrier("the summary is printed")
    return trained


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
    parallel.check_batch(settings.training.batch_size, layout, devices.accumulate)
    return layout


def _check_steps(settings: Settings, folder: Path) -> None:
    """Raises ValueError if the run to resume is beyond its last step; moves damaged checkpoints away."""
    reached = newest_whole_step(folder / CHECKPOINTS) if settings.run.resume else None
    if reached is not None and reached > settings.training.steps:
        raise ValueError(f"{folder} is at step {reached} already, beyond `steps={settings.training.steps}`")


def _evaluation_batches(settings: Settings, layout: parallel.Layout, batches: Iterable[Batch]) -> Iterator[Any]:
    """Yields held-out rows on the devices, at most as many at a time as a micro-batch of training has."""
    for batch in batches:
        yield from map(layout.device_put, parallel.micro_batches(batch, settings.devices.accumulate))


def _train(
    settings: Settings,
    corpus: Corpus,
    computation: Computation,
    layout: parallel.Layout,
    folder: Path,
    baseline: Baseline,
    lock: RunLock | None,
) -> TrainState:
    """Trains, or resumes training, until the last step; leaves checkpoints, metrics and curves in `folder`."""
    training = settings.training
    reports = settings.reports
    state = layout.create(computation.state, jax.random.key(settings.batches.seed))
    shard = parallel.slice_to_read(layout)
    evaluation_step = layout.compile_evaluation(computation.evaluation_step(), state.params)

    keep = reports.keep_checkpoints
    with Checkpoints(folder / CHECKPOINTS, keep=keep, keep_best=reports.keep_best, lock=lock) as checkpoints:
        position: dict[str, Any] = {"row": 0}
        if checkpoints.latest is not None:
            state, position = checkpoints.restore(state)
            print(f"resuming from step {int(state.step):,} of {training.steps:,}")
        elif settings.run.resume:
            print(f"no checkpoint in {folder} to resume from: starting at step 0")
        # `bert_jax.load` needs config.json and the tokenizer; they are saved before the first checkpoint, so that an
        # unfinished run can be loaded. A resumed run saves them again: they may have been damaged.
        if processes.is_first():
            save_config(folder, computation.model)
            corpus.tokenizer.save(folder)
        # The seed fixes the order of the rows, so the position in the data is the index of the next row.
        batches = corpus.training_batches(start_row=position["row"], shard=shard)
        cadence = Cadence(reports.log_every, reports.eval_every, reports.checkpoint_every)
        watch = Watch(baseline=baseline.entropy, warmup_steps=settings.optimizer.warmup_steps)
        describe(settings, state, batches.rows_per_pass)
        reporter = _reporter(settings, folder, int(state.step))  # opens files, which the `with` closes
        with batches, reporter, receive_signals(settings.run.save_on_signal) as interruption:
            # The same rows with the same masks each time, so that evaluations can be compared.
            def evaluate_held_out(state) -> dict[str, float]:
                with corpus.held_out_batches(shard) as held_out:
                    batches = until_requested(_evaluation_batches(settings, layout, held_out), interruption)
                    return evaluate(evaluation_step, state.params, batches)

            state = train(
                state,
                batches,
                step=layout.compile_step(computation.step(), state),
                device_put=layout.device_put,
                evaluate=evaluate_held_out,
                steps=training.steps,
                session=Session(checkpoints, reporter, cadence, watch, interruption),
                score=lambda metrics: float(metrics["eval_loss"]),
                rewind=training.on_nan == "rewind",
            )
            reporter.draw()
    return state


def _reporter(settings: Settings, folder: Path, first_step: int) -> Reporter:
    """Returns the reporter that writes metrics to files and to the screen."""
    return Reporter(
        folder,
        first_step=first_step,
        last_step=settings.training.steps,
        panels=PANELS,
        headline=HEADLINE,
        quiet=settings.reports.quiet,
    )


def _ranking_accuracy(
    settings: Settings, corpus: Corpus, computation: Computation, layout: parallel.Layout, state: TrainState
) -> float:
    """Returns the NSP ranking accuracy of a state on the held-out rows."""
    step = layout.compile_evaluation(computation.ranking_step(), state.params)
    with corpus.held_out_batches(parallel.slice_to_read(layout)) as held_out:
        return nsp_ranking_accuracy(step, state.params, _evaluation_batches(settings, layout, held_out))
