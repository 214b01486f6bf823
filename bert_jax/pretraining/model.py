"""What a pretraining run computes: the model, the optimizer, the state before the first step, and the step."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from bert_jax.config import BertConfig
from bert_jax.models import Bert, BertForMaskedLM, BertForPreTraining
from bert_jax.pretraining.settings import Settings
from bert_jax.text.tokenizer import Tokenizer
from bert_jax.training.devices.kernel_choice import AttentionInputs, choose_kernel
from bert_jax.training.devices.processes import broadcast_from_first
from bert_jax.training.objectives import Objective, masked_lm, pretraining
from bert_jax.training.optimizers import Schedule, make_optimizer, make_schedule
from bert_jax.training.state import TrainState, run_key
from bert_jax.training.steps import evaluation_step, ranking_step, train_step


@dataclass(frozen=True)
class Computation:
    """The functions that a run compiles.

    Attributes:
        model: with the attention kernel that is correct for its rows.
    """

    settings: Settings
    model: Bert
    optimizer: optax.GradientTransformation
    schedule: Schedule

    @classmethod
    def make(
        cls, settings: Settings, config: BertConfig, mask: np.ndarray, *, platform: str, test_kernel: bool = True
    ) -> "Computation":
        """Makes model and optimizer.

        Args:
            config: of the model, with the vocabulary of the run.
            mask: int [B, T], the attention mask of a batch, on which a kernel must be correct.
            platform: of the devices that the step is compiled for, see `parallel.platform_of`.
            test_kernel: whether to test the attention kernel on this machine; False if the step is for another one.
        """
        config = config.for_platform(platform)
        inputs = AttentionInputs(
            mask, settings.batches.packing, settings.devices.random_bits, tensor=settings.devices.tensor
        )
        # One process chooses for all: different machines might disagree, and all must run the same program.
        chosen = broadcast_from_first(
            "the attention kernel is chosen",
            lambda: json.dumps(
                choose_kernel(settings.devices.attention, config, inputs, platform=platform, test=test_kernel)
            ).encode(),
        )
        kernel, reason = json.loads(chosen)
        on_gpu = platform == "gpu"
        if platform != "cpu":
            print(f"attention: {kernel or 'plain matrix products'} ({reason})")
        unroll = settings.training.unroll or (config.num_hidden_layers if on_gpu else 1)
        model = model_class(settings)(config, remat=settings.devices.remat, unroll=unroll, kernel=kernel)
        return cls(settings, model, *_make_optimizer(settings))

    def state(self, key: jax.Array, params: Any = None) -> TrainState:
        """Returns the state before the first step, with new parameters or the given ones."""
        parameters_key, rest = jax.random.split(key)
        if params is None:
            # Parameters do not depend on the shape of a batch: the smallest one, [1, 2], is traced.
            params = self.model.init(parameters_key, jnp.zeros((1, 2), jnp.int32))["params"]
        return TrainState.create(params, self.optimizer, key=run_key(rest, self.settings.devices.random_bits))

    def step(self, model: Bert | None = None) -> Callable:
        """Returns the pure (state, batch, axis) -> (state, metrics) of the model, or of another one."""
        return partial(
            train_step,
            objective=self._objective(model or self.model),
            optimizer=self.optimizer,
            schedule=self.schedule,
            accumulate=self.settings.devices.accumulate,
            skip=self.settings.training.on_nan == "skip",
        )

    def evaluation_step(self) -> Callable:
        """Returns the pure (params, batch, axis) -> {name: (sum, weight)}."""
        return partial(evaluation_step, objective=self._objective(self.model))

    def ranking_step(self) -> Callable:
        """Returns the pure (params, batch, axis) -> the NSP scores of all pairs, see `ranking_step`."""
        return partial(ranking_step, objective=self._objective(self.model))

    def _objective(self, model: Bert) -> Objective:
        return pretraining(model) if self.settings.batches.next_sentence else masked_lm(model)


def _make_optimizer(settings: Settings) -> tuple[optax.GradientTransformation, Schedule]:
    """Returns the optimizer and its learning-rate schedule."""
    options = settings.optimizer
    schedule = make_schedule(
        options.schedule,
        peak=options.learning_rate,
        warmup_steps=options.warmup_steps,
        decay_steps=options.decay_steps,
        decay_share=options.decay_share,
    )
    optimizer = make_optimizer(
        options.optimizer,
        schedule,
        weight_decay=options.weight_decay,
        beta1=options.beta1,
        beta2=options.beta2,
        clip_norm=options.clip_norm or None,  # 0 disables clipping
    )
    return optimizer, schedule


def model_class(settings: Settings) -> type[Bert]:
    """Returns the model with the heads of the objective."""
    return BertForPreTraining if settings.batches.next_sentence else BertForMaskedLM


def model_config(settings: Settings, tokenizer: Tokenizer) -> BertConfig:
    """Returns the configuration of the model, with the vocabulary of a tokenizer.

    The embedding of a model that training continues from may have more rows than its vocabulary has tokens. Its
    pad_token_id stays, whatever the tokenizer's is: RoBERTa's positions depend on it.

    Raises:
        ValueError: rows longer than the position table, whose first rows may depend on the tokenizer.
    """
    own = settings.model
    if settings.run.model is not None:
        return replace(own, vocab_size=max(tokenizer.vocab_size, own.vocab_size))
    config = replace(own, vocab_size=tokenizer.vocab_size, pad_token_id=tokenizer.pad_id)
    length = settings.batches.max_length
    if config.position_embedding_type == "absolute" and length > config.max_length:
        raise ValueError(
            f"`max_length={length}` exceeds the {config.max_length} positions that `max_position_embeddings="
            f"{config.max_position_embeddings}` leaves for a tokenizer with padding token {config.pad_token_id}"
        )
    return config
