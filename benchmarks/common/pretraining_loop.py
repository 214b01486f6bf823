"""The training loop of `bert_jax.pretraining.pretrain`, as it has prepared it, to be timed in turns."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from unittest import mock

import jax

from bert_jax.pretraining import pretrain
from bert_jax.pretraining.settings import Settings


class TrainingReached(Exception):
    """Ends a run where its training loop would start."""


@dataclass
class TrainingLoop:
    """The loop of a run; a call takes `steps` of its steps and waits for them.

    Attributes:
        state, batches, step, device_put: see `bert_jax.training.loop.train`.
        tokens: real tokens, padding excluded, in all steps so far.
        taken: steps so far.
    """

    state: Any
    batches: Any
    step: Callable
    device_put: Callable
    steps: int
    tokens: int = 0
    taken: int = 0

    def __call__(self) -> None:
        metrics = None
        for _ in range(self.steps):
            batch = next(self.batches)
            self.tokens += int((batch["attention_mask"] != 0).sum())
            self.taken += 1
            self.state, metrics = self.step(self.state, self.device_put(batch))
        jax.block_until_ready(metrics)


def with_training_loops(
    runs: Mapping[str, Settings], steps: int, use: Callable[[dict[str, TrainingLoop]], None]
) -> None:
    """Starts runs of different folders, each up to its training loop, and calls `use` with the loops by name.

    Args:
        steps: of each loop, per call.
    """
    loops: dict[str, TrainingLoop] = {}

    def start(names: tuple[str, ...]) -> None:
        if not names:
            use(loops)
            return

        def train(state, batches, *, step, device_put, **others) -> None:
            loops[names[0]] = TrainingLoop(state, batches, step, device_put, steps)
            start(names[1:])
            raise TrainingReached

        # The next run starts inside this one, because the batches are closed when the run ends.
        with mock.patch("bert_jax.pretraining.phase_run.train", train), suppress(TrainingReached):
            pretrain(runs[names[0]])

    start(tuple(runs))
