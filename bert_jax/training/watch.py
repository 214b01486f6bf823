"""Warnings while a run can still be saved: the loss jumps, or stays on a plateau.

References: Chowdhery et al., PaLM, 2022, section 5.1 (loss spikes). google-research/bert issue 746: masked-LM losses
that stay near 7, which is the entropy of word frequencies.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

WINDOW = 100  # steps, of the running mean of the loss
SPIKE_DEVIATIONS = 6.0  # standard deviations above the running mean
MIN_CHANGE = 0.1  # nats: less is noise


class Watch:
    """Looks at the metrics of every step and evaluation, and returns a warning if there is a reason for one.

    Args:
        baseline: held-out loss, in nats, of a model that knows only word frequencies; None = no check for a plateau.
        loss: name of the metric that `baseline` belongs to.
        warmup_steps: no check for a plateau up to this step, because the warm-up stays on it.
    """

    def __init__(self, *, baseline: float | None = None, loss: str = "masked_lm_loss", warmup_steps: int = 0) -> None:
        self.baseline = baseline
        self.loss = f"eval_{loss}"
        self.warmup_steps = warmup_steps
        self.mean = 0.0
        self.mean_square = 0.0
        self.count = 0
        self.last_warning = -math.inf
        self.last_evaluation = math.inf

    def __call__(self, row: Mapping[str, Any]) -> str | None:
        """Returns a warning of one line, or None.

        Args:
            row: `step`, and the metrics of a training step (with `loss`) or of an evaluation. Metrics of K seeds are
                arrays [K]; their mean is compared.
        """
        if "loss" in row:
            return self._check_spike(row["step"], float(np.mean(row["loss"])))
        return self._check_plateau(row["step"], float(np.mean(row.get(self.loss, math.nan))))

    def _check_spike(self, step: int, loss: float) -> str | None:
        """Compares a loss with the running mean; warns once per window."""
        if not math.isfinite(loss):
            return None
        mean = self.mean
        deviation = math.sqrt(max(self.mean_square - mean**2, 0.0))
        spike = self.count >= WINDOW and loss > mean + max(SPIKE_DEVIATIONS * deviation, MIN_CHANGE)
        self.count += 1
        # A plain mean over the first steps, an exponential one over about WINDOW steps afterwards.
        weight = max(1 / self.count, 1 / WINDOW)
        self.mean += weight * (loss - self.mean)
        self.mean_square += weight * (loss**2 - self.mean_square)
        if not spike or step < self.last_warning + WINDOW:
            return None
        self.last_warning = step
        return (
            f"the loss jumped from {mean:.3f} to {loss:.3f}; if it does not come back, start again with a lower "
            "learning rate or a longer warm-up"
        )

    def _check_plateau(self, step: int, loss: float) -> str | None:
        """Compares a held-out loss with the baseline, and with the evaluation before."""
        previous = self.last_evaluation
        self.last_evaluation = loss
        if self.baseline is None or step <= self.warmup_steps or not loss > self.baseline - MIN_CHANGE:
            return None
        if not previous - loss < MIN_CHANGE:  # the first evaluation, or the loss still falls
            return None
        return (
            f"held-out MLM loss {loss:.2f} is no better than the unigram baseline ({self.baseline:.2f}); try a "
            "larger range of initial weights, a larger batch or another learning rate, and look for duplicate lines in "
            "the corpus"
        )
