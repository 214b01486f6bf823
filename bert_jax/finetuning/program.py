"""Fine-tuning from beginning to end: `finetune(settings)` trains, evaluates or predicts.

References: Devlin et al., BERT, 2018, section 4 and appendix A.3.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bert_jax.config import resolve_dtype
from bert_jax.files import replaced, write_file
from bert_jax.finetuning.checks import check, check_model, check_pairs
from bert_jax.finetuning.model import BestModel, dropout_rates, fingerprint
from bert_jax.finetuning.settings import CONTENTS, MAY_CHANGE_ON_RESUME, Settings
from bert_jax.finetuning.sweep import combinations, compare_seeds, sweep
from bert_jax.finetuning.trainer import Trainer, choose_rows, evaluation_layout, make_evaluator
from bert_jax.interop.loading import LoadedBert, TrainedRun, load
from bert_jax.messages import counted
from bert_jax.tasks.base import PreparedData
from bert_jax.tasks.data_report import describe_data, describe_splits
from bert_jax.tasks.source import ModelSource
from bert_jax.training.devices import parallel, processes
from bert_jax.training.runs.contents import DATA
from bert_jax.training.runs.folder import begin_run, check_run
from bert_jax.training.runs.lock import RunLock, lock_run
from bert_jax.training.runs.manifests import CHECKPOINTS
from bert_jax.training.runs.saved_steps import newest_whole_step
from bert_jax.training.runs.tracking import Tracker, open_tracker
from bert_jax.training.seeds import SeedEnsemble
from bert_jax.training.settings import defaults_of


def finetune(settings: Settings) -> TrainedRun:
    """Fine-tunes a model, or evaluates it, or predicts with it, as `settings.run.do` says.

    It prints its progress, and returns the run's folder with the final metrics (none for predictions):

    >>> settings = make_settings("classification", model="runs/demo", epochs=2)  # doctest: +SKIP
    >>> run = finetune(settings)  # doctest: +SKIP
    >>> run.metrics["accuracy"], run.model  # doctest: +SKIP

    Raises:
        ValueError: settings, data or a model that do not fit together. Nothing has been written then, but if a run is
            resumed, a damaged checkpoint may have been moved away.
        OSError: files that are missing or cannot be written, a folder that holds another run.
        RunInUse: another process writes to the folder.
        NotFinite: a loss or a gradient became NaN or infinite.
        Interrupted: a signal asked the run to end. It has saved a checkpoint; `resume=True` continues.
    """
    run = settings.run
    devices = settings.devices
    if run.do == "train":
        settings = settings.with_length()
    check(settings)
    settings.processes.join()
    layout = parallel.make_layout(devices.parallel, fsdp=devices.fsdp, tensor=devices.tensor)
    dtype = resolve_dtype(settings.training.dtype, parallel.platform_of(layout.mesh))
    settings = settings.replace(dtype=dtype)
    options = {
        "resume": run.resume,
        "begin": run.begin,
        "overwrite": run.overwrite,
        "may_change": MAY_CHANGE_ON_RESUME,
        "contents": CONTENTS,
        "defaults": defaults_of(type(settings)),
    }
    check_run(run.output, settings.as_record(), **options)
    with lock_run(run.output) as lock:
        if run.resume:
            newest_whole_step(Path(run.output) / CHECKPOINTS)  # moves a damaged newer one away, and says so
        # Another process had the lock in the meantime, or all checkpoints are damaged.
        check_run(run.output, settings.as_record(), **options)
        return _finetune(settings, layout, options, lock)


def _finetune(settings: Settings, layout: parallel.Layout, options: dict[str, Any], lock: RunLock | None) -> TrainedRun:
    """Begins or resumes the run, and does it; `options` are those of `check_run`."""
    run = settings.run
    settings, data, facts, bert = read_inputs(settings)
    # Made before the folder, because the settings may name an attention kernel that cannot be used here.
    first = Trainer(combinations(settings)[0], data, bert, layout, lock) if run.do == "train" else None

    # A resumed run must find the same data: its position in the data means nothing in other data.
    hashes = {f"contents of the {name}": value for name, value in data.fingerprints.items()}
    hashes[CONTENTS["model"]] = fingerprint(bert)
    folder = Path(run.output)
    if processes.is_first():
        begin_run(folder, settings.as_record() | {"data read": hashes}, **options)
        write_file(folder / DATA, json.dumps(facts, indent=2, ensure_ascii=False) + "\n")
    processes.barrier("the run has begun")
    if first is None:
        return TrainedRun(folder, _evaluate_model(settings, data, bert, folder))
    track = None if run.sweep else settings.reports.track  # the trainings of a sweep are tracked one by one
    with open_tracker(track, folder, settings.as_record()) as tracker:
        _train(settings, first, folder, tracker)
        print("\nThe best model on the held-out data:")
        bert = load(folder, head=type(bert.model).__name__)
        metrics = _evaluate_model(settings, data, bert, folder)
        if tracker is not None:
            tracker.final(metrics)
            tracker.pictures(sorted(set(folder.glob("*.png")) - {folder / "curves.png"}))
        print(f"\nThe model is in {folder}: bert_jax.load({str(folder)!r})")
    return TrainedRun(folder, metrics)


def read_inputs(settings: Settings) -> tuple[Settings, PreparedData, dict[str, Any], LoadedBert]:
    """Reads the data and the model, and prints what the data are.

    Returns:
        The settings with the length of sequences; the data; what data.json says of them; the model.
    """
    run = settings.run
    with processes.first_process_first("model and data are read"):
        source = ModelSource.find(run.model, special_tokens=settings.data.special_tokens)
        settings = settings.with_length(source.trained_length)
        check_model(settings, source)
        data = settings.data.prepare(source, run.do)
    check_pairs(source, data.splits)
    facts = describe_data(data, source.tokenizer)
    for line in describe_splits(facts):
        print(line)
    rates = dropout_rates(settings.training, source.config)
    bert = source.load(data.task.model, data.task.config_changes, trained=run.do != "train", **rates)
    return settings, data, facts, bert


def _train(settings: Settings, first: Trainer, folder: Path, tracker: Tracker | None) -> None:
    """Trains the model, or all combinations of a sweep, of which `first` is the first; compares the scores."""
    metric = first.task.metric
    if not settings.run.sweep:
        compare_seeds(metric, folder, first.train(folder, tracker))
        return

    def train(candidate: Settings, run: Path) -> BestModel:
        # The others are made when it is their turn, so that their messages and memory are those of one training.
        one = (
            first
            if candidate == first.settings
            else Trainer(candidate, first.data, first.bert, first.layout, first.lock)
        )
        with open_tracker(candidate.reports.track, run, candidate.as_record()) as tracker:
            return one.train(run, tracker)

    sweep(combinations(settings), train, folder, metric)


def _evaluate_model(settings: Settings, data: PreparedData, bert: LoadedBert, folder: Path) -> dict[str, float]:
    """Predicts the held-out splits; writes predictions, pictures and tables to `folder`, and returns the metrics.

    Everything is written before anything is printed: a screen may be unable to show a text of the data.
    """
    model = type(bert.model)(replace(bert.config, dtype=settings.training.dtype))
    ensemble = SeedEnsemble((settings.run.seed,), frozenset(bert.params))  # of one
    layout = evaluation_layout(settings)
    params = jax.tree.map(lambda leaf: np.asarray(leaf)[None], bert.params)
    params = jax.tree.map(parallel.put_whole, params, layout.shardings(params))
    held_out = PreparedData(data.task, data.held_out)  # the training split decides nothing here
    row_format = choose_rows(settings, held_out.splits, bert, layout.shards)
    evaluator = make_evaluator(settings, held_out, model, params, ensemble, row_format)
    metrics: dict[str, float] = {}
    lines: list[str] = []
    for split in held_out.splits:
        [outputs] = evaluator.outputs(params, split)
        decoded = data.task.decode(split, outputs.logits)
        if settings.run.do != "predict":
            computed = data.task.compute_metrics(split, decoded)
            metrics |= {f"{split.file_prefix}{name}": value for name, value in computed.items()}
        if processes.is_first():
            path = folder / f"{split.file_prefix}predictions.jsonl"
            _write_lines(path, data.task.predictions(split, decoded))
            lines.append(f"predictions for {counted(len(split.examples), 'example')} in {path}")
            lines += data.task.report(folder, split, decoded, mistakes=settings.reports.mistakes)
    if metrics and processes.is_first():
        write_file(folder / "scores.json", json.dumps(metrics, indent=2) + "\n")
    for line in lines:
        print(line)
    for name, value in metrics.items():
        print(f"  {name.replace('_', ' '):>30}  {value:.4f}")
    processes.barrier("the predictions are written")
    return metrics


def _write_lines(path: Path, rows: Any) -> None:
    """Writes rows as one JSON object per line."""
    # `backslashreplace` escapes lone surrogates as JSON does.
    with replaced(path) as part, part.open("w", encoding="utf-8", errors="backslashreplace") as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
