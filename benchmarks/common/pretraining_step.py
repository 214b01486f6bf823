"""One pretraining step, MLM and NSP with AdamW, in bert_jax and in PyTorch, and the FLOP that it needs.

Both take batches in the format of `bert_jax.data`; PyTorch's step takes one sequence per row.

B rows, T tokens per row, P predictions per row, D hidden, F inner, L layers, V vocabulary.
"""

import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax.config import BertConfig
from bert_jax.data.pretraining.masking import predictions_per_row
from bert_jax.models import BertForPreTraining
from bert_jax.training.devices.cost import memory_of
from bert_jax.training.objectives import pretraining
from bert_jax.training.optimizers import make_optimizer, make_schedule
from bert_jax.training.state import TrainState, run_key
from bert_jax.training.steps import train_step

Batch = Mapping[str, np.ndarray]
MASKED_FRACTION = 0.15
IGNORED_LABEL = -100  # PyTorch's cross entropy leaves it out


class JaxStep:
    """The step of bert_jax, compiled ahead of time. A call runs one step, waits for it and returns the loss.

    Args:
        example: a batch with the shapes to compile for.
        **options: of `BertForPreTraining`, such as unroll and remat (default: auto, as in train.py).

    Attributes:
        compile_seconds: time to trace and compile.
        memory: memory of the compiled program, computed by XLA.
    """

    def __init__(self, config: BertConfig, example: Batch, **options: Any) -> None:
        model = BertForPreTraining(config, **{"remat": "auto", **options})
        optimizer = make_optimizer("bert_adamw", make_schedule("constant", peak=1e-4, warmup_steps=0, decay_steps=1))
        step = partial(train_step, objective=pretraining(model), optimizer=optimizer)

        def create(key: jax.Array) -> TrainState:
            params = model.init(key, jnp.zeros((1, 2), jnp.int32))["params"]
            return TrainState.create(params, optimizer, key=run_key(key))

        key = jax.random.key(0)
        self.create = partial(jax.jit(create).lower(key).compile(), key)
        self.state: TrainState | None = None  # created by the first call, so that it counts as that call's memory
        shapes = jax.eval_shape(create, key)
        start = time.perf_counter()
        self.program = jax.jit(step, donate_argnums=0).lower(shapes, dict(example)).compile()
        self.compile_seconds = time.perf_counter() - start
        self.memory = memory_of(self.program, shapes)

    def __call__(self, batch: Batch) -> float:
        state = self.create() if self.state is None else self.state
        self.state, metrics = self.program(state, jax.device_put(dict(batch)))
        return float(metrics["loss"])


def torch_step(
    config: BertConfig, *, compiled: bool = False, gradient_checkpointing: bool = False
) -> Callable[[Batch], float]:
    """Returns the same step in PyTorch and transformers: eager, or under `torch.compile`."""
    import torch
    import transformers

    model = transformers.BertForPreTraining(torch_config(config)).train()
    decayed = []
    not_decayed = []
    for name, parameter in model.named_parameters():
        (not_decayed if name.endswith("bias") or "LayerNorm" in name else decayed).append(parameter)
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": not_decayed, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, eps=1e-6)
    if gradient_checkpointing:
        model.activation_checkpointing_enable()
    forward = torch.compile(model) if compiled else model

    def step(batch: Batch) -> float:
        inputs = {name: torch.from_numpy(array) for name, array in torch_batch(batch).items()}
        loss = forward(**inputs).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return loss.item()

    return step


def torch_config(config: BertConfig) -> Any:
    """Returns the config as a `transformers.BertConfig`."""
    import transformers

    values = {name: value for name, value in config.to_dict().items() if name not in ("dtype", "label_names")}
    return transformers.BertConfig(**values)


def torch_batch(batch: Batch) -> dict[str, np.ndarray]:
    """Returns a batch with one sequence per row as transformers takes it: labels [B, T], ignored unless masked."""
    labels = np.full(batch["input_ids"].shape, IGNORED_LABEL)
    row, slot = np.nonzero(batch["masked_weights"])
    labels[row, batch["masked_positions"][row, slot]] = batch["masked_labels"][row, slot]
    arrays = {name: batch[name] for name in ("input_ids", "token_type_ids", "attention_mask")}
    arrays |= {"labels": labels, "next_sentence_label": batch["next_sentence_labels"][:, 0]}
    return {name: array.astype(np.int64) for name, array in arrays.items()}


def full_batch(config: BertConfig, rows: int, length: int) -> dict[str, np.ndarray]:
    """Returns a batch of random token ids without padding, one sequence per row."""
    random = np.random.default_rng(0)
    shape = (rows, length)
    predictions = predictions_per_row(length, MASKED_FRACTION)
    position_ids = np.broadcast_to(np.arange(length, dtype=np.int32), shape)
    return {
        "input_ids": random.integers(5, config.vocab_size, shape).astype(np.int32),
        "token_type_ids": (position_ids >= length // 2).astype(np.int32),
        "attention_mask": np.ones(shape, np.int32),
        "position_ids": np.array(position_ids),
        "masked_positions": np.sort(random.permuted(np.tile(np.arange(1, length), (rows, 1)), axis=1)[:, :predictions]),
        "masked_labels": random.integers(5, config.vocab_size, (rows, predictions)),
        "masked_weights": np.ones((rows, predictions), np.float32),
        "cls_positions": np.zeros((rows, 1), np.int32),
        "next_sentence_labels": random.integers(0, 2, (rows, 1)),
        "next_sentence_weights": np.ones((rows, 1), np.float32),
    }


def step_flop(config: BertConfig, rows: int, length: int, predictions: float) -> float:
    """Returns the FLOP of the matrix multiplications of a step on full rows, forward and backward.

    Args:
        rows: number of sequences.
        length: tokens per sequence.
        predictions: masked tokens per sequence.
    """
    D = config.hidden_size
    F = config.intermediate_size
    V = config.vocab_size
    tokens = rows * length
    attention_scores = 4 * length * D  # per token: QK^T and the weighted sum of V, 2 FLOP per multiply-add
    kernels = 2 * (4 * D * D + 2 * D * F)
    head = rows * predictions * 2 * (D * D + D * V)
    return 3.0 * (config.num_hidden_layers * tokens * (kernels + attention_scores) + head)


def real_token_flop(config: BertConfig, batch: Batch) -> float:
    """Returns the FLOP that the real tokens of a batch need: no padding, attention within each sequence only."""
    sequence_numbers = np.arange(1, batch["attention_mask"].max() + 1)[None, :, None]
    lengths = (batch["attention_mask"][:, None, :] == sequence_numbers).sum(axis=2)  # [B, sequences]
    layers = sum(step_flop(config, 1, int(length), 0) for length in lengths.ravel())
    masked = batch["masked_weights"].sum() if "masked_weights" in batch else 0
    return layers + step_flop(config, 1, 0, masked)
