"""Pretraining from beginning to end: text to a folder that `bert_jax.load` reads.

References: Devlin et al., BERT, 2018, section 3.1 and appendix A.2.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax

from bert_jax.files import write_file
from bert_jax.interop.loaded_bert import LoadedBert
from bert_jax.interop.loading import TrainedRun
from bert_jax.pretraining.checks import check, check_masks, check_steps
from bert_jax.pretraining.corpus import Corpus, Documents
from bert_jax.pretraining.prepared import open_prepared
from bert_jax.pretraining.settings import (
    CONTENTS,
    CORPUS_HASH,
    MAY_CHANGE_ON_RESUME,
    Settings,
)
from bert_jax.pretraining.source import add_new_words, read_source
from bert_jax.pretraining.summary import final_metrics, summarize
from bert_jax.pretraining.training import train_phases
from bert_jax.pretraining.vocabulary import given_tokenizer, make_tokenizer, tokenizer_hash
from bert_jax.training.devices import parallel, processes
from bert_jax.training.runs.contents import DATA
from bert_jax.training.runs.folder import begin_run, check_run
from bert_jax.training.runs.lock import RunLock, lock_run
from bert_jax.training.runs.tracking import open_tracker
from bert_jax.training.settings import as_record, defaults_of


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
    settings.processes.join()
    layout = make_layout(settings)
    settings = settings.for_platform(parallel.platform_of(layout.mesh))
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
        check_steps(settings)
        check_run(folder, as_record(settings), **options)  # another process had the lock, or checkpoints are damaged
        return _pretrain(settings, layout, folder, options, lock)


def _pretrain(
    settings: Settings, layout: parallel.Layout, folder: Path, options: dict[str, Any], lock: RunLock | None
) -> TrainedRun:
    """Reads the text, begins or resumes the run and trains; the arguments in `options` are those of `check_run`."""
    corpus, params, facts = _read(settings)
    for line in corpus.lines():
        print(line)
    if processes.is_first():
        hashes = {CORPUS_HASH: corpus.train.fingerprint[:16], **tokenizer_hash(settings)}
        begin_run(folder, as_record(settings) | {"text read": hashes}, **options)
        if not (settings.is_resumed and (folder / DATA).exists()):  # a resumed run does not look for new words again
            write_file(folder / DATA, json.dumps(corpus.report() | facts, indent=2, ensure_ascii=False) + "\n")
    processes.barrier("the run has begun")

    with open_tracker(settings.reports.track, folder, as_record(settings)) as tracker:
        phase, state = train_phases(settings, corpus, params, layout, folder, lock, tracker)
    ranking = phase.ranking_accuracy(state)
    processes.barrier("the metrics are written")
    trained = TrainedRun(folder, final_metrics(folder))
    if processes.is_first():
        summarize(settings, trained, phase.baseline, ranking)
    processes.barrier("the summary is printed")
    return trained


def _read(settings: Settings) -> tuple[Corpus, Any, dict[str, Any]]:
    """Reads the text and what the run starts from.

    Returns:
        The corpus of the first phase; the parameters of the model that the run continues from, in host memory, or None;
        and what data.json says of new words.
    """
    source = read_source(settings)
    known = source.tokenizer if source is not None else given_tokenizer(settings)
    if known is not None:
        check_masks(settings, known.mask_token)  # also an error without one, before hours of reading
    first = settings.of_phase(settings.phases[0])
    prepared = open_prepared(settings, known)
    if prepared is not None:
        check_masks(settings, prepared.tokenizer.mask_token)
        return Corpus.prepared(first, prepared), _params(source), {}
    documents = Documents.read(settings)
    if source is None:
        return Corpus.of(first, documents, make_tokenizer(settings, documents.train)), None, {}
    source, new_words = add_new_words(settings, source, documents.train)
    facts = {} if new_words is None else {"new_words": new_words.as_dict()}
    return Corpus.of(first, documents, source.tokenizer), _params(source), facts


def _params(source: LoadedBert | None) -> Any:
    return None if source is None else jax.device_get(dict(source.params))


def make_layout(settings: Settings, target: Sequence[Any] | None = None) -> parallel.Layout:
    """Returns how the devices share a step.

    Args:
        target: other devices than those of all processes.

    Raises:
        ValueError: the batch cannot be divided over them.
    """
    devices = settings.devices
    layout = parallel.make_layout(devices.parallel, fsdp=devices.fsdp, tensor=devices.tensor, devices=target)
    for phase in settings.phases:
        of_phase = settings.of_phase(phase)
        parallel.check_batch(of_phase.training.batch_size, layout, of_phase.devices.accumulate)
    return layout
