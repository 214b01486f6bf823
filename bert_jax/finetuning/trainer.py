"""Training in fine-tuning: the model, state and step of all seeds, resuming, and the call of the loop."""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bert_jax.config import BertConfig
from bert_jax.data.finetuning.batches import BatchShape, Features, RowFormat, TrainingBatches
from bert_jax.data.prefetch import Batches
from bert_jax.finetuning.model import (
    BestModel,
    initial_parameters,
    make_ensemble,
    new_parts,
    optimizer_and_schedule,
    training_config,
)
from bert_jax.finetuning.settings import Settings
from bert_jax.interop.loading import LoadedBert
from bert_jax.messages import counted
from bert_jax.models import Bert
from bert_jax.tasks.base import PreparedData, Split
from bert_jax.tasks.evaluation import Evaluator
from bert_jax.training.devices import parallel, processes
from bert_jax.training.devices.compilations import CompilationCounter
from bert_jax.training.devices.kernel_choice import CHECKED_ROWS, AttentionInputs, choose_kernel
from bert_jax.training.loop import Cadence, Session, train
from bert_jax.training.runs.checkpoints import Checkpoints
from bert_jax.training.runs.interruption import receive_signals
from bert_jax.training.runs.lock import RunLock
from bert_jax.training.runs.manifests import CHECKPOINTS
from bert_jax.training.runs.reporting import Reporter
from bert_jax.training.runs.tracking import Tracker
from bert_jax.training.seeds import SeedEnsemble
from bert_jax.training.state import TrainState
from bert_jax.training.steps import train_step
from bert_jax.training.watch import Watch

RATE_PANELS = (("learning rate", "learning_rate"), ("tokens / s", "tokens_per_second"))  # of curves.png


class Trainer:
    """One training of all seeds; `train` runs it. Nothing large is created before.

    Args:
        data: the task and its splits, the training split among them.
        bert: the model to start from.
        layout: the devices of a training step.
        lock: the lock on the run's folder; None if this process does not hold it.
        test_kernel: whether to test the attention kernel on this machine; False if the layout is a `Target`'s.

    Raises:
        ValueError: the attention kernel that the settings name cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        data: PreparedData,
        bert: LoadedBert,
        layout: parallel.Layout,
        lock: RunLock | None,
        *,
        test_kernel: bool = True,
    ) -> None:
        assert data.train is not None
        training = settings.training
        self.settings = settings
        self.data = data
        self.bert = bert
        self.layout = layout
        self.lock = lock
        self.task = data.task
        self.features = data.train.features
        self.ensemble = make_ensemble(settings, bert)
        self.row_format = choose_rows(settings, data.splits, bert, layout.shards * settings.devices.accumulate)
        self.batches = [
            TrainingBatches(self.features, self.row_format, training.batch_size, seed) for seed in self.ensemble.seeds
        ]
        self.steps_per_epoch = self.batches[0].steps_per_epoch
        self.steps = training.epochs * self.steps_per_epoch
        self.config = training_config(training, bert.config)
        self.kernel = _attention_kernel(
            settings.devices.attention,
            self.config,
            self.row_format,
            self.features,
            layout,
            random_bits=settings.devices.random_bits,
            seeds=settings.run.seeds,
            test=test_kernel,
        )
        self.model = type(bert.model)(
            self.config, remat=settings.devices.remat, frozen=settings.training.freeze, kernel=self.kernel
        )
        self.optimizer, self.schedule = optimizer_and_schedule(settings, self.steps, self.config.num_hidden_layers)

    def train(self, run: Path, tracker: Tracker | None = None) -> BestModel:
        """Trains all seeds, or resumes; leaves the best model, checkpoints, metrics and curves in `run`.

        Args:
            tracker: gets the metrics and curves too.

        Raises:
            NotFinite: a loss or a gradient became NaN or infinite.
            Interrupted: a signal asked the run to end, and it has saved a checkpoint.
        """
        state, step = self._build()
        evaluator = self._evaluator(state)
        best = BestModel(run, self.settings, self.model, self.bert.tokenizer, self.task, self.ensemble)

        with Checkpoints(run / CHECKPOINTS, keep=2, lock=self.lock) as checkpoints:
            state, first = self._resume(state, checkpoints, best, run)
            self._print_sizes(state)
            reporter = self._reporter(run, first, tracker)
            # A sweep receives no signals, because it cannot be resumed.
            run_settings = self.settings.run
            signals = nullcontext() if run_settings.sweep else receive_signals(run_settings.save_on_signal)
            with self._batches_from(first) as batches, reporter, signals as interruption:

                def evaluate(state: TrainState) -> dict[str, np.ndarray]:
                    metrics = evaluator.metrics(state.all_params, interruption)
                    best.update(int(state.step), metrics, state.all_params)
                    return metrics

                state = train(
                    state,
                    batches,
                    step=step,
                    device_put=self.layout.device_put_whole,
                    evaluate=evaluate,
                    steps=self.steps,
                    session=Session(checkpoints, reporter, self._cadence(), Watch(), interruption),
                    stop=lambda metrics: bool(best.selection.done.all()),
                    varied_shapes=True,
                )
                reporter.draw()
        if int(state.step) < self.steps:
            metric = self.task.metric.replace("_", " ")
            reason = f"{metric} did not improve in {counted(self.settings.training.patience, 'evaluation')}"
            print(f"stopped early after step {int(state.step):,} of {self.steps:,}: {reason}")
        trained = _list_shapes(step, len(self.ensemble))
        print(f"compiled for rows x tokens: training {trained}; evaluation {_list_shapes(evaluator.predict)}")
        best.export()
        processes.barrier("the best model is saved")
        return best

    def _build(self) -> tuple[TrainState, CompilationCounter]:
        """Returns the initial state on the devices, and the compiled step of all seeds."""
        new = ", ".join(sorted(new_parts(self.settings, self.bert))) or "nothing"
        print(f"{self.settings.run.model}: {self.bert!r}; newly initialized: {new}")
        # The initial parameters are local to this function: once it returns, the state alone holds them.
        given: Any = [
            jax.tree.map(parallel.put_whole, tree, self.layout.shardings(tree))
            for tree in initial_parameters(self.settings, self.bert, self.ensemble)
        ]
        state = self.layout.create(self.state, given)
        return state, CompilationCounter(self.layout.compile_step(self.step(self.model), state))

    def state(self, given: Any) -> TrainState:
        """Returns the state before the first step, for the trees of `initial_parameters`."""
        params, frozen = given
        random_bits = self.settings.devices.random_bits
        return self.ensemble.create(params, self.optimizer, frozen=frozen, random_bits=random_bits)

    def step(self, model: Bert) -> Callable:
        """Returns the pure (state, batch, axis) -> (state, metrics) of all seeds."""
        step = partial(
            train_step,
            objective=self.task.objective(model),
            optimizer=self.optimizer,
            schedule=self.schedule,
            accumulate=self.settings.devices.accumulate,
            skip=self.settings.training.on_nan == "skip",
        )
        return self.ensemble.step(step)

    def _evaluator(self, state: TrainState) -> Evaluator:
        """Returns the evaluator of the held-out splits; it keeps the shapes of the parameters, not the arrays."""
        shapes = jax.eval_shape(lambda params: params, state.all_params)
        return make_evaluator(self.settings, self.data, self.model, shapes, self.ensemble, self.row_format)

    def _resume(
        self, state: TrainState, checkpoints: Checkpoints, best: BestModel, run: Path
    ) -> tuple[TrainState, int]:
        """Returns the state and step of the newest checkpoint, or the start if there is none."""
        if checkpoints.latest is None:
            if self.settings.run.resume:
                print(f"no checkpoint in {run} to resume from: starting at step 0")
            return state, 0
        state, position = checkpoints.restore(state)
        best.resume(position["batch"])
        processes.barrier("the evaluations before are read")  # the first process cuts metrics.jsonl next
        print(f"resuming from step {position['batch']:,} of {self.steps:,}")
        return state, position["batch"]

    def _batches_from(self, first: int) -> Batches:
        """Returns the training batches from index `first`, made ahead of time in a thread."""
        return Batches(
            lambda index: ensemble_batch(self.ensemble, self.batches, first + index),
            count=self.steps - first,
            position=lambda given: {"batch": first + given},
        )

    def _cadence(self) -> Cadence:
        # Each evaluation has a checkpoint of its step, so that a resumed run knows every evaluation before it.
        every = self.settings.training.eval_every or self.steps_per_epoch
        return Cadence(self.settings.reports.log_every, every, every)

    def _print_sizes(self, state: TrainState) -> None:
        """Prints the size of the training: steps, parameters, rows."""
        settings = self.settings
        rows = self.row_format
        seeds = settings.run.seeds
        trained = sum(leaf.size for leaf in jax.tree.leaves(state.params)) // seeds
        frozen = sum(leaf.size for leaf in jax.tree.leaves(state.frozen))
        together = "1 seed" if seeds == 1 else f"{seeds} seeds together"
        print(
            f"training: {counted(self.steps, 'step')} of {counted(settings.training.batch_size, 'example')}, "
            f"{together}; {trained:,} trained parameters, {frozen:,} frozen"
        )
        mean = self.features.sequences.lengths.mean() * self.features.group
        packed = f"{rows.row_length / mean:.1f} per row of {rows.row_length} tokens"
        print(f"examples: {mean:.1f} tokens on average, {packed if rows.slots > 1 else 'one per row'}")

    def _reporter(self, run: Path, first_step: int, tracker: Tracker | None) -> Reporter:
        """Returns the reporter that writes metrics to files and to the screen."""
        metric = self.task.metric
        title = metric.replace("_", " ")
        return Reporter(
            run,
            first_step=first_step,
            last_step=self.steps,
            panels=(("loss", "loss"), (title, metric), *RATE_PANELS),
            headline=(("held-out loss", "eval_loss", ".3f"), (title, f"eval_{metric}", ".4f")),
            seeds=self.settings.run.all_seeds,
            quiet=self.settings.reports.quiet,
            tracker=tracker,
        )


def ensemble_batch(ensemble: SeedEnsemble, sources: Sequence[TrainingBatches], index: int) -> dict[str, np.ndarray]:
    """Returns a training batch of all seeds, [B, K, ...], of which each seed's `sources` entry builds its own [B, ...].

    Each seed has its own order of the data and packs its own rows. Example: of K = 2 seeds one packs its examples into
    7 rows of 40 tokens, the other into 8 rows. The batch is [8, 2, 40]; the first seed's last row is padding.
    """
    rows_of_seeds = [source.rows(index) for source in sources]
    shapes = [source.shape(rows) for source, rows in zip(sources, rows_of_seeds, strict=True)]
    shape = BatchShape(*map(max, zip(*shapes, strict=True)))
    batches = [source.build(rows, shape) for source, rows in zip(sources, rows_of_seeds, strict=True)]
    return ensemble.stack_batches(batches)


def choose_rows(settings: Settings, splits: list[Split], bert: LoadedBert, shards: int) -> RowFormat:
    """Returns how examples become rows: lengths, packing, and a number of rows that `shards` divides."""
    return RowFormat.choose(
        [split.features for split in splits],
        batch_size=settings.training.batch_size,
        packed=settings.training.pack,
        pad_id=bert.tokenizer.pad_id,
        shards=shards,
    )


def make_evaluator(
    settings: Settings, data: PreparedData, model: Bert, params: Any, ensemble: SeedEnsemble, row_format: RowFormat
) -> Evaluator:
    """Returns the evaluator of the held-out splits, on a mesh of all devices.

    Its attention kernel is chosen separately from that of training, because there is no dropout.

    Args:
        params: the parameter tree of the ensemble, or its shapes.
    """
    layout = evaluation_layout(settings)
    features = data.held_out[0].features
    rows = row_format.expected_rows((data.train or data.held_out[0]).features, settings.training.batch_size)
    # Not more than a micro-batch of training, and a number that the devices divide.
    unit = layout.shards * features.group
    num_rows = -(-rows // (settings.devices.accumulate * unit)) * unit
    attention = "plain" if settings.devices.attention == "plain" else "auto"
    config = replace(model.config, attention_probs_dropout_prob=0.0)
    kernel = _attention_kernel(attention, config, row_format, features, layout, seeds=len(ensemble))
    return Evaluator(
        data.task,
        data.held_out,
        model.clone(config=config, kernel=kernel),
        params,
        ensemble,
        row_format,
        num_rows=num_rows,
        layout=layout,
    )


def evaluation_layout(settings: Settings) -> parallel.MeshLayout:
    """Returns the mesh that shares an evaluation, also if training uses pmap."""
    return parallel.MeshLayout(parallel.make_mesh(fsdp=settings.devices.fsdp, tensor=settings.devices.tensor))


def _attention_kernel(
    attention: str,
    config: BertConfig,
    row_format: RowFormat,
    features: Features,
    layout: parallel.Layout,
    *,
    random_bits: str = "hashed",
    seeds: int,
    test: bool = True,
) -> str | None:
    """Returns the attention kernel to use for these rows, or None for plain matrix products.

    Raises:
        ValueError: `attention` names a kernel that cannot be used here.
    """
    mask = row_format.sample(features, CHECKED_ROWS)["attention_mask"]
    tensor = layout.mesh.shape.get("tensor", 1)
    inputs = AttentionInputs(mask, row_format.slots > 1, random_bits, seeds, row_format.lengths, tensor)
    platform = parallel.platform_of(layout.mesh)
    kernel, why = choose_kernel(attention, config, inputs, platform=platform, test=test)
    if platform != "cpu":
        print(f"attention: {kernel or 'plain matrix products'} ({why})")
    return kernel


def _list_shapes(step: CompilationCounter, seeds: int = 1) -> str:
    """Returns the shapes that a step was compiled for, as rows of one seed x tokens: `32 x 6, 32 x 8`.

    Example: `input_ids` [32, 2, 6] of 2 seeds are 32 x 6, and so is the pmap batch [8, 4, 2, 6] on 8 devices.
    """
    shapes = sorted({(math.prod(shape[:-1]) // seeds, shape[-1]) for shape in step.shapes})
    return ", ".join(f"{rows} x {tokens}" for rows, tokens in shapes) or "none"
