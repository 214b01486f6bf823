"""Fine-tune a BERT: to classify, to tag, to answer questions, to choose; leaves a model that the pipelines load.

python finetune.py classification --model runs/demo -- film reviews, negative or positive.

python finetune.py tokens --model SOURCE --train train.conll --dev dev.conll --output RUN -- named entities.

python finetune.py squad --model SOURCE --train train-v1.1.json --dev dev-v1.1.json --output RUN -- answers in a text.

python finetune.py multiple-choice --model SOURCE --train train.csv --dev val.csv --output RUN -- SWAG.
"""

# Read it from top to bottom: 1 training, 2 what was learned, 3 all of it in order.
# The settings, the data they name, the model to start from, seeds compared and sweeps are in
# bert_jax/tools/finetuning*.py, the tasks in bert_jax/tasks.
#
# References: Devlin et al., BERT, 2018, section 4 and appendix A.3.

import json
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bert_jax.config import BertConfig
from bert_jax.data.finetuning.batches import Features, Layout, TrainingPlan
from bert_jax.data.prefetch import Batches
from bert_jax.finetuning.checks import check, check_model, check_pairs
from bert_jax.finetuning.data import Prepared, model_of, prepare
from bert_jax.finetuning.model import Best, Source, Start, dropouts, make_start, optimizer_of, seeds_of
from bert_jax.finetuning.settings import MAY_CHANGE_ON_RESUME, Settings, read_settings, record_of, with_length
from bert_jax.finetuning.sweep import compare_seeds, sweep
from bert_jax.interop.loading import LoadedBert, load
from bert_jax.tasks import Evaluator, Part, of_seed
from bert_jax.training import seeds
from bert_jax.training.devices import parallel
from bert_jax.training.devices.compilation_cache import keep_compiled
from bert_jax.training.devices.kernel_choice import CHECKED_ROWS, AttentionInputs, choose_kernel
from bert_jax.training.loop import OWED, Cadence, train
from bert_jax.training.runs.checkpoints import CHECKPOINTS, Checkpoints, newest_whole_step
from bert_jax.training.runs.folder import begin_run, check_run
from bert_jax.training.runs.interruption import Interruption
from bert_jax.training.runs.reporting import Reporter
from bert_jax.training.settings import defaults_of
from bert_jax.training.state import TrainState
from bert_jax.training.steps import train_step
from bert_jax.training.watch import Watch

# ---------------------------------------------------------------------------------------------------------------------
# 1. Training
# ---------------------------------------------------------------------------------------------------------------------


def fit(settings: Settings, run: Path, *, prepared: Prepared, bert: LoadedBert, layout: parallel.Layout) -> Best:
    """Trains all seeds, or goes on; leaves the best model, checkpoints, figures and curves in `run`."""
    training, task = settings.training, prepared.task
    assert prepared.train is not None
    features = prepared.train.features
    rows = rows_of(settings, prepared.parts, bert, layout.shards * training.accumulate)
    plan = TrainingPlan(features, rows, training.batch_size, seeds_of(settings))
    steps = training.epochs * plan.steps_per_epoch

    start = make_start(settings, bert)
    kernel = kernel_for(training.attention, start.model.config, rows, features, layout, seeds=settings.run.seeds)
    optimizer, schedule = optimizer_of(settings, steps, start.model.config.num_hidden_layers)
    create = partial(seeds.create, optimizer=optimizer, seeds=seeds_of(settings), random_bits=training.random_bits)
    given: Any = [jax.device_put(some, layout.shardings(some)) for some in (start.params, start.frozen)]
    state = layout.create(lambda given: create(given[0], frozen=given[1]), given)
    given, start = None, start.as_shapes()  # the state has the arrays now
    step = partial(
        train_step,
        objective=task.objective(start.model.clone(kernel=kernel)),
        optimizer=optimizer,
        schedule=schedule,
        accumulate=training.accumulate,
        skip=training.on_nan == "skip",
    )
    shapes: set[tuple[int, ...]] = set()

    def counted(state: TrainState, batch: Any, axis: str | None = None) -> Any:
        shapes.add(batch["input_ids"].shape)  # runs only while it is traced
        return step(state, batch, axis)

    held_out = held_out_of(settings, prepared, start, rows, rows.usual_rows(features, training.batch_size))
    best = Best(run, settings, start.model, bert.tokenizer, metric=f"eval_{task.metric}")

    def evaluate(state: TrainState) -> dict[str, np.ndarray]:
        row = held_out.scores(state.all_params)
        best.take(int(state.step), row, state.all_params, start.learning)
        return row

    every = training.eval_every or plan.steps_per_epoch
    with Checkpoints(run / CHECKPOINTS, keep=2) as checkpoints:
        first, owed = 0, False
        if checkpoints.latest is not None:
            state, position = checkpoints.restore(state)
            first, owed = position["batch"], OWED in position
            best.recall(position["best"])
            print(f"going on from step {first:,} of {steps:,}")
        elif settings.run.resume:
            print(f"no checkpoint in {run} to go on from: beginning with step 0")
        describe(settings, state, rows, features, steps)
        batches = Batches(
            lambda number: plan(first + number),
            count=steps - first,
            position=lambda given: {"batch": first + given, "best": best.memory()},
        )
        reporter = make_reporter(settings, prepared, run, first_step=first, last_step=steps)
        listening = nullcontext() if settings.run.sweep else Interruption()  # a sweep cannot go on
        with batches, reporter, listening as interruption:
            state = train(
                state,
                batches,
                step=layout.compile_step(seeds.together(counted), state),
                device_put=layout.device_put,
                evaluate=evaluate,
                steps=first if best.selection.done.all() else steps,
                cadence=Cadence(settings.reports.log_every, every, every),
                checkpoints=checkpoints,
                reporter=reporter,
                stop=lambda row: bool(best.selection.done.all()),
                owed=owed,
                watch=Watch(),
                interruption=interruption,
                varied=True,
            )
            reporter.draw()
    if int(state.step) < steps:
        what, waited = task.metric.replace("_", " "), training.patience
        print(f"stopped after step {int(state.step):,} of {steps:,}: no better {what} in {waited} evaluation(s)")
    print(f"compiled for rows x tokens: training {listed(shapes)}; evaluation {listed(held_out.shapes)}")
    best.keep()
    return best


def rows_of(settings: Settings, parts: Sequence[Part], bert: LoadedBert, shards: int) -> Layout:
    """Returns how examples become rows."""
    training = settings.training
    return Layout.fitting(
        [part.features for part in parts],
        batch_size=training.batch_size,
        packed=training.pack,
        pad_id=bert.tokenizer.pad_id,
        shards=shards,
    )


def held_out_of(settings: Settings, prepared: Prepared, start: Start, rows: Layout, num_rows: int) -> Evaluator:
    """Returns what evaluates."""
    layout = mesh_of(settings)
    asked = "plain" if settings.training.attention == "plain" else "auto"  # what trains may not fit here
    config = replace(start.model.config, attention_probs_dropout_prob=0.0)
    kernel = kernel_for(asked, config, rows, prepared.held_out[0].features, layout, seeds=start.seeds)
    return Evaluator(
        prepared.task,
        prepared.held_out,
        start.model.clone(config=config, kernel=kernel),
        {**start.frozen, **start.params},
        start.learning,
        rows,
        num_rows=num_rows,
        layout=layout,
    )


def mesh_of(settings: Settings) -> parallel.MeshLayout:
    """Returns how the devices share what is evaluated, however they share training."""
    return parallel.MeshLayout(parallel.make_mesh(fsdp=settings.training.fsdp, tensor=settings.training.tensor))


def kernel_for(
    asked: str, config: BertConfig, rows: Layout, features: Features, layout: parallel.Layout, *, seeds: int
) -> str | None:
    """Returns the attention kernel that is right for the rows, or None for plain matrix products."""
    mask, devices = rows.sample(features, CHECKED_ROWS)["attention_mask"], layout.devices_in_a_program
    kind = AttentionInputs(mask, rows.slots > 1, devices, seeds=seeds, other_lengths=rows.lengths)
    kernel, why = choose_kernel(asked, config, kind)
    if jax.default_backend() == "gpu":
        print(f"attention: {kernel or 'plain matrix products'} ({why})")
    return kernel


def make_reporter(settings: Settings, prepared: Prepared, run: Path, *, first_step: int, last_step: int) -> Reporter:
    """Returns what takes figures to files and to the screen."""
    metric = prepared.task.metric
    shown = (("held-out loss", "eval_loss", ".3f"), (metric.replace("_", " "), f"eval_{metric}", ".4f"))
    return Reporter(
        run,
        first_step=first_step,
        last_step=last_step,
        panels=(
            ("loss", "loss"),
            (metric.replace("_", " "), metric),
            ("learning rate", "learning_rate"),
            ("tokens / s", "tokens_per_second"),
        ),
        headline=shown,
        seeds=seeds_of(settings),
        quiet=settings.reports.quiet,
    )


def describe(settings: Settings, state: TrainState, rows: Layout, features: Any, steps: int) -> None:
    """Prints what is about to be trained, and how."""
    count = settings.run.seeds
    learning = sum(leaf.size for leaf in jax.tree.leaves(state.params)) // count
    frozen = sum(leaf.size for leaf in jax.tree.leaves(state.frozen))
    print(
        f"training: {steps:,} steps of {settings.training.batch_size} examples, {count} seed(s) together; "
        f"{learning / 1e6:.1f} million parameters learn, {frozen / 1e6:.1f} million do not"
    )
    mean = features.sequences.lengths.mean() * features.group
    per_row = f"{rows.row_length / mean:.1f} in a row of {rows.row_length} tokens" if rows.slots > 1 else "one a row"
    print(f"examples: {mean:.1f} tokens on average, {per_row}")


def listed(shapes: set[tuple[int, ...]]) -> str:
    """Returns shapes in words."""
    return ", ".join(" x ".join(map(str, shape)) for shape in sorted(shapes)) or "none"


# ---------------------------------------------------------------------------------------------------------------------
# 2. What was learned
# ---------------------------------------------------------------------------------------------------------------------


def judge(settings: Settings, prepared: Prepared, bert: LoadedBert, folder: Path) -> dict[str, float]:
    """Lets a model answer what was held out; leaves predictions, pictures and tables in `folder`, returns scores."""
    model = type(bert.model)(replace(bert.config, dtype=settings.training.dtype))
    start = Start(model, {name: jax.tree.map(lambda x: x[None], part) for name, part in bert.params.items()}, {})
    rows = rows_of(settings, prepared.held_out, bert, mesh_of(settings).shards)
    num_rows = rows.usual_rows(prepared.held_out[0].features, settings.training.batch_size)
    held_out = held_out_of(settings, prepared, start, rows, num_rows)
    scores: dict[str, float] = {}
    for part in prepared.held_out:
        found = prepared.task.decode(part, of_seed(held_out.gather(start.params, part)[0], 0))
        path = folder / f"{part.file_prefix}predictions.jsonl"
        with path.open("w", encoding="utf-8", errors="backslashreplace") as file:  # lone surrogates, as JSON escapes
            file.writelines(
                json.dumps(row, ensure_ascii=False) + "\n" for row in prepared.task.predictions(part, found)
            )
        print(f"predictions for {len(part.examples):,} examples in {path}")
        if settings.run.do != "predict":
            scores |= {f"{part.file_prefix}{name}": x for name, x in prepared.task.score(part, found).items()}
        for line in prepared.task.report(folder, part, found):
            print(line)
    for name, value in scores.items():
        print(f"  {name.replace('_', ' '):>30}  {value:.4f}")
    if scores:
        (folder / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
    return scores


# ---------------------------------------------------------------------------------------------------------------------
# 3. All of it in order
# ---------------------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    settings = read_settings(sys.argv[1:] if arguments is None else arguments, description=__doc__ or "")
    check(settings)
    keep_compiled()
    asked, training = settings.run, settings.training
    layout = parallel.make_layout(training.parallel, fsdp=training.fsdp, tensor=training.tensor)
    how = {
        "resume": asked.resume,
        "overwrite": asked.overwrite,
        "may_change": MAY_CHANGE_ON_RESUME,
        "defaults": defaults_of(type(settings)),
    }
    check_run(asked.output, record_of(settings), **how)
    if asked.resume:
        newest_whole_step(Path(asked.output) / CHECKPOINTS)  # says so, and moves it, where a newer one is damaged
    source = Source.find(asked.model)
    settings = with_length(settings, source.trained_length)
    check_model(settings, source.folder, source.config, source.named, model_of(settings))
    prepared = prepare(settings, source)
    check_pairs(source.folder, source.config, prepared.parts)
    bert = source.load(prepared.task, trained=asked.do != "train", **dropouts(training))
    if prepared.train is not None and training.attention not in ("auto", "plain"):
        config = replace(bert.config, dtype=training.dtype)
        rows = rows_of(settings, prepared.parts, bert, layout.shards * training.accumulate)
        kernel_for(training.attention, config, rows, prepared.train.features, layout, seeds=asked.seeds)

    # A run that goes on must find the data it began with: its position means nothing in others.
    read = {f"contents of the {name}": made for name, made in prepared.fingerprints.items()}
    record = record_of(settings) | {"data read": read}
    run = begin_run(asked.output, record, **how)
    if asked.do == "train":
        metric, learn = prepared.task.metric, partial(fit, prepared=prepared, bert=bert, layout=layout)
        if asked.sweep:
            sweep(settings, run, metric, learn)
        else:
            compare_seeds(metric, run, learn(settings, run))
        print("\nThe best model on what was held out:")
        bert = load(run, head=type(bert.model).__name__)
    judge(settings, prepared, bert, run)
    if asked.do == "train":
        print(f"\nThe model is in {run}: bert_jax.load({str(run)!r})")
