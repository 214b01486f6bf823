"""Messages of a pretraining run: model size before training, training summary at the end."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from bert_jax.config import BertConfig
from bert_jax.data.prefetch import Batch
from bert_jax.interop.loading import TrainedRun
from bert_jax.messages import counted
from bert_jax.pipelines import FillMask
from bert_jax.pretraining.checks import with_mask
from bert_jax.pretraining.phases import Phase
from bert_jax.pretraining.settings import Settings
from bert_jax.training.runs.metrics import ranking_accuracy, read_metrics, unigram_entropy
from bert_jax.training.state import TrainState

TOO_FEW_TOKENS = 0.15  # nats; above it the entropy of the held-out tokens is so low that a good model can be above it


@dataclass(frozen=True)
class Baseline:
    """What a model without any context would reach on the held-out rows.

    Attributes:
        sequences: number of sentence pairs, or of runs of sentences if there are no pairs.
        entropy: of the masked tokens, in nats: the MLM loss of the best constant prediction.
        masked_tokens: how many there are.
        bias: by how much the entropy of so few tokens is too low at least, in nats (Miller, Note on the Bias of
            Information Estimates, 1955).
        majority: fraction of the more frequent next-sentence label: the accuracy of the best constant answer; None
            without pairs.
    """

    sequences: int
    entropy: float
    masked_tokens: int
    bias: float
    majority: float | None

    @classmethod
    def of(cls, batches: Iterable[Batch]) -> "Baseline":
        sequences = 0
        words = []
        labels = []
        for batch in batches:
            sequences += int(batch["attention_mask"].max(axis=1).sum())  # those of a row are numbered from 1
            words.append(batch["masked_labels"][batch["masked_weights"] > 0])
            if "next_sentence_labels" in batch:
                labels.append(batch["next_sentence_labels"][batch["next_sentence_weights"] > 0])
        majority = None
        if labels:
            random = np.concatenate(labels).mean()  # label 1: the second sentence is a random one
            majority = float(max(random, 1 - random))
        found = np.concatenate(words)
        bias = (len(np.unique(found)) - 1) / (2 * max(len(found), 1))
        return cls(sequences, unigram_entropy([found]), len(found), bias, majority)


def describe_model(config: BertConfig, state: TrainState) -> None:
    """Prints the size of the model."""
    count = sum(leaf.size for leaf in jax.tree.leaves(state.params))
    layers = counted(config.num_hidden_layers, "layer")
    devices = counted(jax.device_count(), f"{jax.devices()[0].platform} device")
    print(
        f"model: {layers} of {config.hidden_size}, vocabulary {config.vocab_size:,}, {count:,} parameters, on {devices}"
    )


def describe_phase(settings: Settings, phase: Phase, rows_per_pass: int) -> str:
    """Returns a line about the training of a phase; `settings` are those of the phase."""
    optimizer = settings.optimizer
    batch_size = settings.training.batch_size
    name = f"phase {phase.number} of {phase.num_phases}" if phase.num_phases > 1 else "training"
    until = f"until step {optimizer.decay_steps:,}"
    decay = {"constant": "", "warmup-stable-decay": f" {until}"}.get(optimizer.schedule, f" decay {until}")
    return (
        f"{name}: {counted(phase.steps, 'step')} of {counted(batch_size, 'row')} of {phase.max_length} tokens, "
        f"{phase.steps * batch_size / rows_per_pass:.1f} passes over the corpus; "
        f"learning rate {optimizer.learning_rate:g} after {counted(optimizer.warmup_steps, 'step')} of warm-up, "
        f"{optimizer.schedule}{decay}"
    )


def final_metrics(run: Path) -> dict[str, float]:
    """Returns the last evaluation in metrics.jsonl.

    Raises:
        ValueError: there is none.
    """
    file = run / "metrics.jsonl"
    evaluations = [row for row in read_metrics(file) if "eval_loss" in row]
    if not evaluations:
        raise ValueError(f"{file}: no evaluation (no row with eval_loss)")
    return evaluations[-1]


def summarize(settings: Settings, trained: TrainedRun, baseline: Baseline, ranking: float) -> None:
    """Prints the final metrics next to the baseline, fills some masks, and prints how to load the model."""
    _print_metrics(trained.metrics, baseline, ranking)
    if settings.reports.fill_mask:
        fill = FillMask(trained.model)
        print(f"  most likely words for each {fill.mask_token}:")
        for text in settings.reports.fill_mask:
            found = fill(with_mask(text, fill.mask_token))
            words = ", ".join(f"{one['token_str']} {one['score']:.0%}" for one in found)
            print(f"    {text}\n      {words}")
    print(f"\nThe model is in {trained.folder}: bert_jax.load({str(trained.folder)!r})")


def nsp_ranking_accuracy(step: Callable, params: Any, batches: Iterable[Any]) -> float:
    """Returns how often the model scores a true next sentence above a random one, over all pairs of the two kinds.

    Args:
        step: (params, batch) -> `scores`, `labels` and `weights` of all its pairs; compiled.
        batches: on the devices.
    """
    scores = []
    labels = []
    for batch in batches:
        pairs = jax.device_get(step(params, batch))
        real = pairs["weights"] > 0  # the other slots hold no pair
        scores.append(pairs["scores"][real])
        labels.append(pairs["labels"][real])
    return ranking_accuracy(np.concatenate(scores), np.concatenate(labels))


def _print_metrics(metrics: dict[str, float], baseline: Baseline, ranking: float) -> None:
    """Prints held-out metrics next to the baseline."""
    loss = metrics["eval_masked_lm_loss"]
    difference = baseline.entropy - loss
    side = "below" if difference > 0 else "above"
    kind = "sequence" if baseline.majority is None else "sentence pair"
    print(f"\nHeld-out metrics after {counted(int(metrics['step']), 'step')}, on {counted(baseline.sequences, kind)}:")
    print(f"  masked LM loss          {loss:.3f} nats, perplexity {metrics['eval_perplexity']:.1f}")
    print(f"  unigram baseline        {baseline.entropy:.3f} nats: the model is {abs(difference):.2f} {side} it")
    if baseline.bias > TOO_FEW_TOKENS:
        few = counted(baseline.masked_tokens, "token")
        print(f"                          (too low: of {few} only; hold out more text)")
    if baseline.majority is not None:
        print(
            f"  next-sentence accuracy  {metrics['eval_next_sentence_accuracy']:.1%} "
            f"(majority label: {baseline.majority:.1%})"
        )
    if not math.isnan(ranking):
        print(f"  NSP ranking accuracy    {ranking:.1%} (a true next sentence above a random one; chance: 50%)")
