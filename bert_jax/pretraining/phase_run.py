"""One phase of a pretraining run: its rows, the programs compiled for their length, and its training."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from bert_jax.config import BertConfig
from bert_jax.data.prefetch import Batch
from bert_jax.pretraining.corpus import Corpus
from bert_jax.pretraining.model import Computation
from bert_jax.pretraining.phases import Phase
from bert_jax.pretraining.settings import Settings
from bert_jax.pretraining.summary import Baseline, describe_phase, nsp_ranking_accuracy
from bert_jax.training.devices import parallel
from bert_jax.training.loop import Cadence, Session, train
from bert_jax.training.runs.checkpoints import Checkpoints
from bert_jax.training.runs.interruption import Interruption, until_requested
from bert_jax.training.runs.metrics import evaluate
from bert_jax.training.runs.reporting import Reporter
from bert_jax.training.state import TrainState
from bert_jax.training.watch import Watch


@dataclass(frozen=True)
class PhaseRun:
    """A phase that is about to begin.

    Attributes:
        settings: of the run, with the phase's rows.
        corpus: the text in those rows.
        baseline: on the held-out rows.
    """

    phase: Phase
    settings: Settings
    corpus: Corpus
    computation: Computation
    layout: parallel.Layout
    baseline: Baseline

    @classmethod
    def of(
        cls, phase: Phase, settings: Settings, corpus: Corpus, config: BertConfig, layout: parallel.Layout
    ) -> "PhaseRun":
        """Prepares a phase of a run with these settings; `corpus` is in the rows of any phase.

        Args:
            config: of the model, with the vocabulary of the run.
        """
        settings = settings.of_phase(phase)
        if corpus.settings != settings:
            corpus = corpus.with_settings(settings)
        with corpus.held_out_batches() as batches:
            first_batch = next(batches)
            baseline = Baseline.of(chain([first_batch], batches))
        computation = Computation.make(
            settings, config, first_batch["attention_mask"], platform=parallel.platform_of(layout.mesh)
        )
        return cls(phase, settings, corpus, computation, layout, baseline)

    def train(
        self,
        state: TrainState,
        *,
        start_row: int,
        checkpoints: Checkpoints,
        reporter: Reporter,
        interruption: Interruption,
    ) -> TrainState:
        """Trains from the state's step to the last one of the phase, which is evaluated and saved.

        The seed fixes the order of the rows, so the position in the data is the index of the next row.

        Args:
            start_row: index of the first row to read.

        Raises:
            NotFinite, Interrupted, NotSaved: see `training.loop.train`.
        """
        settings = self.settings
        reports = settings.reports
        shard = parallel.slice_to_read(self.layout)
        evaluation_step = self.layout.compile_evaluation(self.computation.evaluation_step(), state.params)

        # The same rows with the same masks each time, so that evaluations can be compared.
        def evaluate_held_out(state: TrainState) -> dict[str, float]:
            with self.corpus.held_out_batches(shard) as held_out:
                batches = until_requested(self._evaluation_batches(held_out), interruption)
                return evaluate(evaluation_step, state.params, batches)

        cadence = Cadence(reports.log_every, reports.eval_every, reports.checkpoint_every)
        warmup_steps = settings.optimizer.warmup_steps
        watch = Watch(baseline=self.baseline.entropy, warmup_steps=warmup_steps)
        checkpoints.comparable_after = self.phase.first_step  # held-out rows have the length of the phase
        with self.corpus.training_batches(start_row=start_row, shard=shard) as batches:
            reporter.log(describe_phase(settings, self.phase, batches.rows_per_pass))
            reporter.begin_phase(self.phase.number if self.phase.num_phases > 1 else None)
            return train(
                state,
                batches,
                step=self.layout.compile_step(self.computation.step(), state),
                device_put=self.layout.device_put,
                evaluate=evaluate_held_out,
                steps=self.phase.last_step,
                session=Session(checkpoints, reporter, cadence, watch, interruption),
                score=lambda metrics: float(metrics["eval_loss"]),
                rewind=settings.training.on_nan == "rewind",
            )

    def ranking_accuracy(self, state: TrainState) -> float:
        """Returns the NSP ranking accuracy of a state on the held-out rows; NaN if the run has no sentence pairs."""
        if not self.settings.batches.next_sentence:
            return math.nan
        step = self.layout.compile_evaluation(self.computation.ranking_step(), state.params)
        with self.corpus.held_out_batches(parallel.slice_to_read(self.layout)) as held_out:
            return nsp_ranking_accuracy(step, state.params, self._evaluation_batches(held_out))

    def _evaluation_batches(self, batches: Iterable[Batch]) -> Iterator[Any]:
        """Yields held-out rows on the devices, at most as many at a time as a micro-batch of training has."""
        for batch in batches:
            yield from map(self.layout.device_put, parallel.micro_batches(batch, self.settings.devices.accumulate))
