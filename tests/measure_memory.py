"""Prints, as JSON, the bytes that a training step was planned to take, and those that it took."""

import ctypes
import json
import re
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp

from bert_jax.config import BertConfig
from bert_jax.data.loader import PretrainingSettings
from bert_jax.models import BertForPreTraining
from bert_jax.training import parallel
from bert_jax.training.objectives import pretraining
from bert_jax.training.optimizers import make_optimizer
from bert_jax.training.plan import memory_of
from bert_jax.training.state import TrainState
from bert_jax.training.steps import train_step

PROCESS = Path("/proc/self")


def resident(name: str) -> int:
    """VmRSS, what is resident, or VmHWM, the most that has been."""
    found = re.search(rf"{name}:\s+(\d+) kB", (PROCESS / "status").read_text())
    assert found is not None
    return int(found.group(1)) * 1024


def main() -> None:
    model = BertForPreTraining(BertConfig.preset("mini", vocab_size=5000))
    optimizer = make_optimizer("bert_adamw", lambda step: 0.1)

    def create(key):
        return TrainState.create(model.init(key, jnp.zeros((1, 2), jnp.int32))["params"], optimizer, key=key)

    layout, key = parallel.make_layout(), jax.random.key(0)
    shapes, batch = jax.eval_shape(create, key), PretrainingSettings(max_length=128).blank(16)
    step = layout.compile_step(partial(train_step, objective=pretraining(model), optimizer=optimizer), shapes)
    program = step.lower(shapes, layout.shapes(batch)).compile()
    make = jax.jit(create).lower(key).compile()

    ctypes.CDLL(None).malloc_trim(0)  # what the compiler has left
    before = resident("VmRSS")
    (PROCESS / "clear_refs").write_text("5")  # the high-water mark starts again
    state = make(key)
    for _ in range(2):
        state, figures = program(state, layout.place(batch))
        jax.block_until_ready(figures)
    print(json.dumps([memory_of(program, shapes, layout).total, resident("VmHWM") - before]))


if __name__ == "__main__":
    main()
