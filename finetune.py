"""Fine-tune a BERT: to classify, to tag, to answer questions, to choose; leaves a model that the pipelines load.

python finetune.py classification --model runs/demo -- film reviews, negative or positive.

python finetune.py tokens --model SOURCE --train train.conll --dev dev.conll --output RUN -- named entities.

python finetune.py squad --model SOURCE --train train-v1.1.json --dev dev-v1.1.json --output RUN -- answers in a text.

python finetune.py multiple-choice --model SOURCE --train train.csv --dev val.csv --output RUN -- SWAG.
"""

# Read it from top to bottom: 1 the model to start from, 2 training, 3 what was learned, 4 sweeps, 5 all of it in order.
# The settings are in bert_jax/tools/finetuning.py, the tasks in bert_jax/tasks.
#
# References: Devlin et al., BERT, 2018, section 4 and appendix A.3.

import itertools
import json
import shutil
import sys
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.data.batches import Batches
from bert_jax.data.finetuning import Layout, TrainingPlan
from bert_jax.functional import adapters
from bert_jax.interop import huggingface
from bert_jax.interop.heads import TRUNK, initial
from bert_jax.interop.loading import load, locate, read_vocabulary
from bert_jax.models import Bert
from bert_jax.tasks.task import Part, Task, gather, of_seed
from bert_jax.tokenization import Tokenizer
from bert_jax.tools import exits
from bert_jax.tools.finetuning import MAY_CHANGE_ON_RESUME, Settings, as_record, check, read_settings
from bert_jax.tools.finetuning_data import Prepared, prepare
from bert_jax.training import parallel, seeds
from bert_jax.training.checkpoints import CHECKPOINTS, Checkpoints, newest_whole_step
from bert_jax.training.interruption import Interruption
from bert_jax.training.loop import Cadence, train
from bert_jax.training.metrics import read_metrics
from bert_jax.training.optimizers import Depth, make_optimizer, make_schedule
from bert_jax.training.reporting import Reporter
from bert_jax.training.runs import begin_run, check_run
from bert_jax.training.state import TrainState
from bert_jax.training.steps import answer_step, train_step

# ---------------------------------------------------------------------------------------------------------------------
# 1. The model to start from
# ---------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Start:
    """Where training starts.

    Attributes:
        model: the module.
        params: what learns, each leaf with an axis of the K seeds in front.
        frozen: what does not learn, without.
    """

    model: Bert
    params: dict[str, Any]
    frozen: dict[str, Any]


def make_start(settings: Settings, task: Task, source: Path) -> Start:
    """Loads the model, with a new head for each seed unless it has the very one that is asked for."""
    training, all_seeds = settings.training, seeds_of(settings)
    changes = dict(task.changes)
    if training.dropout is not None:
        names = ("hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout")
        changes |= dict.fromkeys(names, training.dropout)
    bert = load(source, head=task.model.__name__, new_head=not has_head(source, task), dtype="float32", **changes)
    if training.freeze is not None and training.freeze > bert.config.num_hidden_layers:
        raise ValueError(f"--freeze {training.freeze}: the model has {bert.config.num_hidden_layers} layers")
    config = replace(bert.config, dtype=training.dtype, lora_rank=training.lora_rank, lora_alpha=training.lora_alpha)
    model = task.model(config, remat=training.remat, frozen=training.freeze)
    new = set(bert.params) if settings.run.from_scratch else set(bert.new_parts)
    new |= {"adapters"} if training.lora_rank else set()
    print(f"{source}: {bert!r}; newly initialised: {', '.join(sorted(new)) or 'nothing'}")
    learning = set(bert.params) | new
    learning -= set(TRUNK) if training.lora_rank else set()
    drawn = [initial(config, new, "float32", seed) for seed in all_seeds]
    params = {
        part: jax.tree.map(lambda *leaves: jnp.stack(leaves), *({**bert.params, **one}[part] for one in drawn))
        for part in sorted(learning)
    }
    return Start(model, params, {part: bert.params[part] for part in sorted(set(bert.params) - learning)})


def seeds_of(settings: Settings) -> tuple[int, ...]:
    """Returns the seeds that are trained together."""
    return tuple(range(settings.run.seed, settings.run.seed + settings.run.seeds))


def has_head(source: Path, task: Task) -> bool:
    """Says whether a model was made for this very task, so that its head can be kept."""
    config, named = huggingface.read_config(source)
    names = task.changes.get("label_names")
    return named == task.model.__name__ and (names is None or config.label_names == names)


def save(folder: Path, model: Bert, params: dict[str, Any], tokenizer: Tokenizer) -> None:
    """Writes a model of one seed in Hugging Face's layout, adapters merged into the kernels."""
    config = model.config
    if config.lora_rank:
        added = params.pop("adapters")
        scale = config.lora_alpha / config.lora_rank
        params["encoder"] = adapters.merged(params["encoder"], added["encoder"], scale=scale)
    plain = type(model)(replace(config, lora_rank=0, dtype="float32"))
    folder.mkdir(parents=True, exist_ok=True)
    huggingface.write_model(folder, plain, params, dtype=None)
    tokenizer.save(folder)


# ---------------------------------------------------------------------------------------------------------------------
# 2. Training
# ---------------------------------------------------------------------------------------------------------------------


class HeldOut:
    """Evaluates K seeds at once on every part that was held out.

    Args:
        start: the model, and which parts of the tree have an axis of seeds.
        rows: how examples become rows, `num_rows` of them a batch.
    """

    def __init__(
        self, prepared: Prepared, start: Start, rows: Layout, *, num_rows: int, layout: parallel.MeshLayout
    ) -> None:
        self.task, self.parts = prepared.task, prepared.held_out
        step = seeds.answers_of_all(partial(answer_step, objective=self.task.objective(start.model)), set(start.params))
        self.gather = partial(
            gather,
            layout.compile_evaluation(step, {**start.frozen, **start.params}),
            layout=rows,
            num_rows=num_rows,
            place=layout.place,
            per_token=self.task.per_token,
        )

    def scores(self, params: Any) -> dict[str, np.ndarray]:
        """Returns the scores of all seeds, [K] each, named `eval_...`."""
        row: dict[str, np.ndarray] = {}
        for part in self.parts:
            answers, measures = self.gather(params, part)
            scores = [self.task.score(part, of_seed(answers, place)) for place in range(len(measures["loss"]))]
            found = {"loss": measures["loss"]} | {name: np.array([one[name] for one in scores]) for name in scores[0]}
            row |= {f"eval_{part.file_prefix}{name}": values for name, values in found.items()}
        return row


class Best:
    """Keeps each seed's best model, and at the end the best of all in the run's folder.

    Attributes:
        selection: what is the best, and whether a better one is still waited for.
    """

    def __init__(self, run: Path, settings: Settings, task: Task, model: Bert, tokenizer: Tokenizer) -> None:
        self.run, self.seeds, self.model, self.tokenizer = run, seeds_of(settings), model, tokenizer
        self.selection = seeds.Selection(f"eval_{task.metric}", len(self.seeds), patience=settings.training.patience)

    def folder(self, place: int) -> Path:
        """Returns where a seed's best model is."""
        return self.run if len(self.seeds) == 1 else self.run / "seeds" / str(self.seeds[place])

    def recall(self, step: int) -> None:
        """Takes in what a run that goes on had found by a step."""
        for row in evaluations(self.run, self.seeds):
            if row["step"] <= step:
                self.selection.improved(row["step"], row)

    def take(self, step: int, row: dict[str, np.ndarray], params: Any, learning: Collection[str]) -> None:
        """Saves the models of the seeds for which an evaluation is the best so far."""
        for place in np.flatnonzero(self.selection.improved(step, row)).tolist():
            save(self.folder(place), self.model, seeds.of_seed(params, learning, place), self.tokenizer)

    def keep(self) -> None:
        """Copies the best seed's model into the run's folder."""
        folder = self.folder(int(self.selection.best.argmax()))
        if folder != self.run:
            shutil.copytree(folder, self.run, dirs_exist_ok=True)


def evaluations(run: Path, all_seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Returns the evaluations of a run, figures as arrays [K]."""
    found: dict[int, list[dict[str, Any]]] = {}
    for row in read_metrics(run / "metrics.jsonl"):
        if any(name.startswith("eval_") for name in row):
            found.setdefault(row["step"], []).append(row)
    return [
        {"step": step} | {name: np.array([row[name] for row in rows]) for name in rows[0] if name.startswith("eval_")}
        for step, rows in sorted(found.items())
        if len(rows) == len(all_seeds)
    ]


def fit(settings: Settings, prepared: Prepared, source: Path, run: Path, tokenizer: Tokenizer) -> seeds.Selection:
    """Trains all seeds, or goes on; leaves the best model, checkpoints, figures and curves in `run`."""
    training, task = settings.training, prepared.task
    assert prepared.train is not None
    features = prepared.train.features
    layout = parallel.make_layout(training.parallel, fsdp=training.fsdp)
    rows = rows_of(settings, [prepared.train, *prepared.held_out], tokenizer, layout.shards * training.accumulate)
    plan = TrainingPlan(features, rows, training.batch_size, seeds_of(settings))
    steps = training.epochs * plan.steps_per_epoch

    start = make_start(settings, task, source)
    optimizer, schedule = optimizer_of(settings, steps, start.model.config.num_hidden_layers)
    create = partial(seeds.create, optimizer=optimizer, seeds=seeds_of(settings))
    state = layout.create(lambda given: create(given[0], frozen=given[1]), (start.params, start.frozen))
    step = partial(
        train_step,
        objective=task.objective(start.model),
        optimizer=optimizer,
        schedule=schedule,
        accumulate=training.accumulate,
    )
    held_out = HeldOut(
        prepared,
        start,
        rows,
        num_rows=rows.usual_rows(features, training.batch_size),
        layout=parallel.MeshLayout(parallel.make_mesh(fsdp=training.fsdp)),
    )
    best = Best(run, settings, task, start.model, tokenizer)

    def evaluate(state: TrainState) -> dict[str, np.ndarray]:
        row = held_out.scores(state.all_params)
        best.take(int(state.step), row, state.all_params, set(start.params))
        return row

    every = training.eval_every or plan.steps_per_epoch
    with Checkpoints(run / CHECKPOINTS, keep=1) as checkpoints:
        first = 0
        if checkpoints.latest is not None:
            state, position = checkpoints.restore(state)
            first = position["batch"]
            best.recall(first)
            print(f"going on from step {first:,} of {steps:,}")
        describe(settings, state, rows, features, steps)
        batches = Batches(
            lambda number: plan(first + number), count=steps - first, position=lambda given: {"batch": first + given}
        )
        reporter = make_reporter(settings, prepared, run, first_step=first, last_step=steps)
        listening = nullcontext() if settings.run.sweep else Interruption()  # a sweep cannot go on
        with batches, reporter, listening as interruption:
            train(
                state,
                batches,
                step=layout.compile_step(seeds.together(step), state),
                place=layout.place,
                evaluate=evaluate,
                steps=steps,
                cadence=Cadence(settings.reports.log_every, every, every),
                checkpoints=checkpoints,
                reporter=reporter,
                stop=lambda row: bool(best.selection.done.all()),
                interruption=interruption,
            )
            reporter.draw()
    best.keep()
    return best.selection


def rows_of(settings: Settings, parts: Sequence[Part], tokenizer: Tokenizer, shards: int) -> Layout:
    """Returns how examples become rows."""
    training = settings.training
    return Layout.fitting(
        [part.features for part in parts],
        batch_size=training.batch_size,
        packed=training.pack,
        pad_id=tokenizer.pad_id,
        shards=shards,
    )


def optimizer_of(settings: Settings, steps: int, num_layers: int) -> tuple[Any, Any]:
    """Returns the optimizer and its schedule."""
    training = settings.training
    schedule = make_schedule(
        training.schedule,
        peak=training.learning_rate,
        warmup_steps=round(training.warmup_share * steps),
        decay_steps=steps,
    )
    optimizer = make_optimizer(
        training.optimizer,
        schedule,
        weight_decay=training.weight_decay,
        clip_norm=training.clip_norm or None,
        depth=Depth(num_layers, training.layer_decay, training.freeze),
    )
    return optimizer, schedule


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


# ---------------------------------------------------------------------------------------------------------------------
# 3. What was learned
# ---------------------------------------------------------------------------------------------------------------------


def judge(settings: Settings, prepared: Prepared, source: Path, folder: Path) -> dict[str, float]:
    """Lets a model answer what was held out; leaves predictions, pictures and tables in `folder`, returns scores."""
    bert = load(source, head=prepared.task.model.__name__, **prepared.task.changes)
    model = prepared.task.model(replace(bert.config, dtype=settings.training.dtype))
    start = Start(model, {name: jax.tree.map(lambda x: x[None], part) for name, part in bert.params.items()}, {})
    layout = parallel.MeshLayout(parallel.make_mesh())
    rows = rows_of(settings, prepared.held_out, bert.tokenizer, layout.shards)
    num_rows = rows.usual_rows(prepared.held_out[0].features, settings.training.batch_size)
    held_out = HeldOut(prepared, start, rows, num_rows=num_rows, layout=layout)
    scores: dict[str, float] = {}
    for part in prepared.held_out:
        answers = of_seed(held_out.gather(start.params, part)[0], 0)
        path = folder / f"{part.file_prefix}predictions.jsonl"
        with path.open("w", encoding="utf-8") as file:
            file.writelines(
                json.dumps(row, ensure_ascii=False) + "\n" for row in prepared.task.predictions(part, answers)
            )
        print(f"predictions for {len(part.examples):,} examples in {path}")
        if settings.run.do != "predict":
            found = prepared.task.score(part, answers)
            scores |= {f"{part.file_prefix}{name}": value for name, value in found.items()}
            print("\n".join(prepared.task.report(folder, part, answers)))
    for name, value in scores.items():
        print(f"  {name.replace('_', ' '):>30}  {value:.4f}")
    return scores


def compare_seeds(settings: Settings, task: Task, run: Path, selection: seeds.Selection) -> None:
    """Prints each seed's best score, their mean and deviation, and which of them collapsed to one class."""
    best, all_seeds = selection.best, seeds_of(settings)
    rows = {row["step"]: row for row in evaluations(run, all_seeds)}
    print(f"\n{task.metric.replace('_', ' ')}, best evaluation of each seed:")
    for place, seed in enumerate(all_seeds):
        row = rows[int(selection.step[place])]
        collapsed = "eval_collapsed" in row and row["eval_collapsed"][place] > 0
        note = "  collapsed: it gives one class to everything" if collapsed else ""
        kept = "  kept" if place == int(best.argmax()) else ""
        print(f"  seed {seed:>3}  {best[place]:.4f}  step {selection.step[place]:,}{kept}{note}")
    if len(all_seeds) > 1:
        print(f"  mean {best.mean():.4f}, standard deviation {best.std(ddof=1):.4f}, best {best.max():.4f}")


# ---------------------------------------------------------------------------------------------------------------------
# 4. Sweeps
# ---------------------------------------------------------------------------------------------------------------------


def sweep(settings: Settings, prepared: Prepared, source: Path, run: Path, tokenizer: Tokenizer) -> None:
    """Trains every combination of learning rate, batch size and epochs; ranks them and keeps the best one's model."""
    grid = settings.run
    combinations = itertools.product(grid.sweep_learning_rates, grid.sweep_batch_sizes, grid.sweep_epochs)
    ranked: list[tuple[float, float, str, Path]] = []
    for rate, size, epochs in combinations:
        name = f"rate {rate:g}, batch {size}, epochs {epochs}"
        folder = run / "sweep" / f"{rate:g}-{size}-{epochs}"
        folder.mkdir(parents=True)
        print(f"\n{name}")
        training = replace(settings.training, learning_rate=rate, batch_size=size, epochs=epochs)
        one = replace(settings, training=training)
        best = fit(one, prepared, source, folder, tokenizer).best
        ranked.append((float(best.mean()), float(best.max()), name, folder))
    ranked.sort(key=lambda entry: -entry[0])
    print(f"\n{prepared.task.metric.replace('_', ' ')}   mean    best")
    for mean, best, name, _ in ranked:
        print(f"          {mean:8.4f} {best:7.4f}  {name}")
    table = [{"mean": mean, "best": best, "settings": name} for mean, best, name, _ in ranked]
    (run / "sweep.json").write_text(json.dumps(table, indent=2) + "\n", encoding="utf-8")
    winner = ranked[0][3]
    for path in winner.iterdir():
        if path.is_file():
            shutil.copy2(path, run)


# ---------------------------------------------------------------------------------------------------------------------
# 5. All of it in order
# ---------------------------------------------------------------------------------------------------------------------


def main(arguments: Sequence[str] | None = None) -> None:
    settings = read_settings(sys.argv[1:] if arguments is None else arguments, description=__doc__ or "")
    check(settings)
    asked, record, output = settings.run, as_record(settings), Path(settings.run.output)
    how = {"resume": asked.resume, "overwrite": asked.overwrite, "may_change": MAY_CHANGE_ON_RESUME}
    check_run(output, record, **how)
    if asked.resume:
        newest_whole_step(output / CHECKPOINTS)  # says so, and moves it, where a newer one is damaged
    source = locate(asked.model)
    config, _ = huggingface.read_config(source)
    tokenizer = read_vocabulary(source, config)
    if tokenizer is None:
        raise ValueError(f"{source}: no vocabulary here; wanted tokenizer.json or vocab.txt")
    longest = getattr(settings.data, "max_length", 0)
    if config.position_embedding_type == "absolute" and longest > config.max_position_embeddings:
        raise ValueError(f"--max-length {longest} is beyond the model's {config.max_position_embeddings} positions")
    prepared = prepare(settings, tokenizer, config)

    run = begin_run(output, record, **how)
    if asked.do == "train":
        if asked.sweep:
            sweep(settings, prepared, source, run, tokenizer)
        else:
            compare_seeds(settings, prepared.task, run, fit(settings, prepared, source, run, tokenizer))
        print("\nThe best model on what was held out:")
    scores = judge(settings, prepared, run if asked.do == "train" else source, run)
    if asked.do == "evaluate":
        (run / "scores.json").write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
    if asked.do == "train":
        print(f"\nThe model is in {run}: bert_jax.load({str(run)!r})")


if __name__ == "__main__":
    exits.run(main, "finetune.py")
