"""One pretraining step, here and in PyTorch, side by side on this machine.

The two take turns (A B A B ...) on the same batch shape, float32, AdamW, and each reports the median of its steps: a
machine that slows down slows both. `--compile` adds `torch.compile`. GFLOP/s are counted as 6 x parameters in matrix
products x tokens, plus attention and the masked share of the head.

    python benchmarks/train_step.py --preset base --rows 8 --length 128
"""

import argparse
import statistics
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from timing import interleaved, matmul_rate, record, spread

from bert_jax.config import PRESETS, BertConfig
from bert_jax.data.masking import enough_predictions
from bert_jax.models import BertForPreTraining
from bert_jax.training.objectives import pretraining
from bert_jax.training.optimizers import make_optimizer, make_schedule
from bert_jax.training.state import TrainState
from bert_jax.training.steps import train_step


def full_batch(config: BertConfig, rows: int, length: int, predictions: int) -> dict[str, np.ndarray]:
    """A batch without padding, random ids."""
    random = np.random.default_rng(0)
    return {
        "input_ids": random.integers(5, config.vocab_size, (rows, length)).astype(np.int32),
        "token_type_ids": np.repeat(np.arange(length)[None, :] >= length // 2, rows, axis=0).astype(np.int32),
        "attention_mask": np.ones((rows, length), np.int32),
        "position_ids": np.repeat(np.arange(length, dtype=np.int32)[None, :], rows, axis=0),
        "masked_positions": np.sort(random.permuted(np.tile(np.arange(1, length), (rows, 1)), axis=1)[:, :predictions]),
        "masked_labels": random.integers(5, config.vocab_size, (rows, predictions)),
        "masked_weights": np.ones((rows, predictions), np.float32),
        "cls_positions": np.zeros((rows, 1), np.int32),
        "next_sentence_labels": random.integers(0, 2, (rows, 1)),
        "next_sentence_weights": np.ones((rows, 1), np.float32),
    }


def ours(config: BertConfig, batch):
    """Returns a function that does one step and waits for it, and the seconds it took to compile."""
    model = BertForPreTraining(config)
    optimizer = make_optimizer("bert_adamw", make_schedule("constant", peak=1e-4, warmup_steps=0, decay_steps=1))
    step = partial(train_step, objective=pretraining(model), optimizer=optimizer)

    @jax.jit
    def create(key):
        params = model.init(key, jnp.zeros((1, 2), jnp.int32))["params"]
        return TrainState.create(params, optimizer, key=key)

    state = create(jax.random.key(0))
    on_device = jax.device_put(batch)
    began = time.perf_counter()
    compiled = jax.jit(step, donate_argnums=0).lower(state, on_device).compile()
    seconds = time.perf_counter() - began

    def run():
        nonlocal state
        state, figures = compiled(state, on_device)
        figures["loss"].block_until_ready()

    return run, seconds


def theirs(config: BertConfig, batch, *, compiled: bool):
    """The same step by PyTorch and transformers: eager, or under `torch.compile`."""
    import torch
    import transformers

    values = {name: value for name, value in config.to_dict().items() if name not in ("dtype", "label_names")}
    model = transformers.BertForPreTraining(transformers.BertConfig(**values)).train()
    plain = [p for name, p in model.named_parameters() if name.endswith("bias") or "LayerNorm" in name]
    decayed = [p for name, p in model.named_parameters() if not (name.endswith("bias") or "LayerNorm" in name)]
    groups = [{"params": decayed, "weight_decay": 0.01}, {"params": plain, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, eps=1e-6)
    labels = np.full(batch["input_ids"].shape, -100)
    np.put_along_axis(labels, batch["masked_positions"], batch["masked_labels"], axis=1)
    arrays = {
        "input_ids": batch["input_ids"],
        "token_type_ids": batch["token_type_ids"],
        "attention_mask": batch["attention_mask"],
        "labels": labels,
        "next_sentence_label": batch["next_sentence_labels"][:, 0],
    }
    tensors = {name: torch.from_numpy(array.astype(np.int64)) for name, array in arrays.items()}
    called = torch.compile(model) if compiled else model

    def run():
        optimizer.zero_grad(set_to_none=True)
        called(**tensors).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return run


def matrix_flop(config: BertConfig, rows: int, length: int, predictions: int) -> float:
    """Floating-point operations of the matrix products of one step, forward and backward."""
    D, F, L, V = config.hidden_size, config.intermediate_size, config.num_hidden_layers, config.vocab_size
    tokens = rows * length
    layer = tokens * (2 * (4 * D * D + 2 * D * F) + 4 * length * D)
    head = rows * predictions * 2 * (D * D + D * V)
    return 3.0 * (L * layer + head)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="base")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--hidden-act", default="gelu")
    parser.add_argument("--compile", action="store_true", help="also torch.compile")
    parser.add_argument("--alone", action="store_true", help="without PyTorch")
    parser.add_argument("--record", action="store_true", help="keep the results in RESULTS.md")
    options = parser.parse_args()

    config = BertConfig.preset(
        options.preset,
        hidden_act=options.hidden_act,
        hidden_dropout_prob=options.dropout,
        attention_probs_dropout_prob=options.dropout,
    )
    predictions = enough_predictions(options.length, 0.15)
    batch = full_batch(config, options.rows, options.length, predictions)
    run, compile_seconds = ours(config, batch)
    contestants = {"bert_jax": run}
    if not options.alone:
        contestants["PyTorch eager"] = theirs(config, batch, compiled=False)
    if options.compile:
        contestants["torch.compile"] = theirs(config, batch, compiled=True)
    seconds = interleaved(contestants, options.rounds, warmup=2)

    flop = matrix_flop(config, options.rows, options.length, predictions)
    mine, rate = statistics.median(seconds["bert_jax"]), matmul_rate()
    lines = [
        f"{options.preset}, {options.rows} x {options.length}, dropout {options.dropout:g}, {options.hidden_act}, "
        f"{jax.devices()[0].device_kind}; bert_jax compiled in {compile_seconds:.1f} s; matrix products alone: "
        f"{rate:.0f} GFLOP/s",
        "",
        "| | s a step, median (min to max) | GFLOP/s | of the machine's | bert_jax is faster by |",
        "|---|---|---|---|---|",
    ]
    for name, times in seconds.items():
        median = statistics.median(times)
        ratio = "" if name == "bert_jax" else f"{median / mine:.2f}x"
        reached = flop / median / 1e9
        lines.append(f"| {name} | {spread(times)} | {reached:.0f} | {reached / rate:.0%} | {ratio} |")
    record(
        f"A train step: {options.preset}, {options.rows} x {options.length}, dropout {options.dropout:g}",
        "\n".join(lines),
    )


if __name__ == "__main__":
    main()
