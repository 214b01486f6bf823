"""What the loss says of a run while it can still be helped: a spike, or a plateau that it does not leave.

References: Chowdhery et al., PaLM, 2022, section 5.1 (spikes). google-research/bert issue 746: masked-LM losses that
stay near 7, which is the plateau of word frequencies.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

SPAN = 100  # steps that the running mean of the loss looks back on
SPREADS = 6.0  # standard deviations above it that make a spike
LEAST = 0.1  # nats; noise around a loss near 0 is no spike, and a plateau is left by more than this


class Watch:
    """Warns; asked with the figures of every step and of every evaluation.

    Args:
        floor: the held-out loss, in nats, that word frequencies alone come to; None = none is known.
        loss: the name of the figure that it is a floor of.
        after: the step up to which no plateau is looked for: a warm-up stays on it.
    """

    def __init__(self, *, floor: float | None = None, loss: str = "masked_lm_loss", after: int = 0) -> None:
        self.floor, self.loss, self.after = floor, f"eval_{loss}", after
        self.mean, self.square, self.seen, self.told = 0.0, 0.0, 0, -math.inf
        self.held_out = math.inf

    def __call__(self, row: Mapping[str, Any]) -> str | None:
        """Returns a warning in one line, or None.

        Args:
            row: `step` and `loss`, or `step` and the figures of an evaluation.
        """
        if "loss" in row:
            return self.spike(row["step"], float(np.mean(row["loss"])))
        return self.plateau(row["step"], float(np.mean(row.get(self.loss, math.nan))))

    def spike(self, step: int, loss: float) -> str | None:
        """Compares a loss with those of the steps before; at most one warning in each span of steps."""
        if not math.isfinite(loss):
            return None
        spread = math.sqrt(max(self.square - self.mean**2, 0.0))
        found = self.seen >= SPAN and loss > self.mean + max(SPREADS * spread, LEAST)
        usual, self.seen = self.mean, self.seen + 1
        share = max(1 / self.seen, 1 / SPAN)
        self.mean += share * (loss - self.mean)
        self.square += share * (loss**2 - self.square)
        if not found or step < self.told + SPAN:
            return None
        self.told = step
        return (
            f"step {step}: warning: the loss jumped from {usual:.3f} to {loss:.3f}; if it does not come back, begin "
            "again with a lower learning rate or a longer warm-up"
        )

    def plateau(self, step: int, loss: float) -> str | None:
        """Compares a held-out loss with word frequencies alone, and with the evaluation before."""
        before, self.held_out = self.held_out, loss
        if self.floor is None or step <= self.after or not loss > self.floor - LEAST:
            return None
        if not before - loss < LEAST:  # still falling, or the first evaluation
            return None
        return (
            f"step {step}: warning: held-out masked LM loss {loss:.2f} is stuck where word frequencies alone come to "
            f"{self.floor:.2f}; try a higher --initializer-range, a larger batch, another learning rate, and look for "
            "duplicate lines in the corpus"
        )
