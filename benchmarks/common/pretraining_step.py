"""One step of pretraining, masked LM and next sentence with AdamW: here and in PyTorch, on any batch.

Both take batches in the format of `bert_jax.data`; the other reads one sequence a row.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import BertConfig
from bert_jax.models import BertForPreTraining
from bert_jax.training.devices.cost import memory_of
from bert_jax.training.objectives import pretraining
from bert_jax.training.optimizers import make_optimizer, make_schedule
from bert_jax.training.state import TrainState, run_key
from bert_jax.training.steps import train_step

Batch = Mapping[str, np.ndarray]


class Ours:
    """The step, compiled for batches of the shapes of `like`; called, it does one, waits for it and returns the loss.

    Args:
        **options: of `BertForPreTraining`: unroll, remat, which is `auto` as in train.py where nothing is said.

    Attributes:
        seconds: that it took to trace and to compile.
        memory: that it needs, by XLA's account of the compiled program.
    """

    def __init__(self, config: BertConfig, like: Batch, **options: Any) -> None:
        model = BertForPreTraining(config, **{"remat": "auto", **options})
        optimizer = make_optimizer("bert_adamw", make_schedule("constant", peak=1e-4, warmup_steps=0, decay_steps=1))
        step = partial(train_step, objective=pretraining(model), optimizer=optimizer)

        def create(key: jax.Array) -> TrainState:
            params = model.init(key, jnp.zeros((1, 2), jnp.int32))["params"]
            return TrainState.create(params, optimizer, key=run_key(key))

        key = jax.random.key(0)
        self.create = partial(jax.jit(create).lower(key).compile(), key)
        self.state: TrainState | None = None  # made with the first step
        shapes = jax.eval_shape(create, key)
        began = time.perf_counter()
        self.program = jax.jit(step, donate_argnums=0).lower(shapes, dict(like)).compile()
        self.seconds = time.perf_counter() - began
        self.memory = memory_of(self.program, shapes)

    def __call__(self, batch: Batch) -> float:
        state = self.create() if self.state is None else self.state
        self.state, figures = self.program(state, jax.device_put(dict(batch)))
        return float(figures["loss"])


def theirs(config: BertConfig, *, compiled: bool = False, again: bool = False) -> Callable[[Batch], float]:
    """Returns the same step by PyTorch and transformers: eager, or under `torch.compile`.

    Args:
        again: compute each layer again in the backward pass instead of keeping what it held.
    """
    import torch
    import transformers

    model = transformers.BertForPreTraining(as_torch_has(config)).train()
    plain = [p for name, p in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    decayed = [p for name, p in model.named_parameters() if not (name.endswith("bias") or "LayerNorm" in name)]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, eps=1e-6)
    if again:
        model.activation_checkpointing_enable()
    called = torch.compile(model) if compiled else model

    def run(batch: Batch) -> float:
        loss = called(**{name: torch.from_numpy(array) for name, array in as_torch_reads(batch).items()}).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return run


def as_torch_has(config: BertConfig) -> Any:
    """Returns the architecture as transformers has it."""
    import transformers

    values = {name: value for name, value in config.to_dict().items() if name not in ("dtype", "label_names")}
    return transformers.BertConfig(**values)


def as_torch_reads(batch: Batch) -> dict[str, np.ndarray]:
    """Returns a batch of one sequence a row as transformers has it: labels are -100 where nothing is asked."""
    labels = np.full(batch["input_ids"].shape, -100)
    row, slot = np.nonzero(batch["masked_weights"])
    labels[row, batch["masked_positions"][row, slot]] = batch["masked_labels"][row, slot]
    arrays = {name: batch[name] for name in ("input_ids", "token_type_ids", "attention_mask")}
    arrays |= {"labels": labels, "next_sentence_label": batch["next_sentence_labels"][:, 0]}
    return {name: array.astype(np.int64) for name, array in arrays.items()}


def matrix_flop(config: BertConfig, rows: int, length: int, predictions: float) -> float:
    """Floating-point operations of the matrix products of one step, forward and backward.

    Args:
        rows, length: sequences, and the tokens of each.
        predictions: masked tokens of each.
    """
    D, F, L, V = config.hidden_size, config.intermediate_size, config.num_hidden_layers, config.vocab_size
    tokens = rows * length
    layer = tokens * (2 * (4 * D * D + 2 * D * F) + 4 * length * D)
    head = rows * predictions * 2 * (D * D + D * V)
    return 3.0 * (L * layer + head)


def real_flop(config: BertConfig, batch: Batch) -> float:
    """Operations of the matrix products that the real tokens of a batch ask for, attention within a sequence alone."""
    numbers = np.arange(1, batch["attention_mask"].max() + 1)[None, :, None]
    lengths = (batch["attention_mask"][:, None, :] == numbers).sum(axis=2)
    layers = sum(matrix_flop(config, 1, int(length), 0) for length in lengths.ravel())
    masked = batch["masked_weights"].sum() if "masked_weights" in batch else 0
    return layers + matrix_flop(config, 1, 0, masked)
