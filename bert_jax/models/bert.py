"""BERT as a Flax module, which declares parameters and calls the pure functions of `bert_jax.functional`.

`Bert` is the encoder with a pooler. The models of `models.heads` put a head on the encoder, with the pooler between
them if the head reads [CLS]. The config's `model_type` makes them models of another family, see `bert_jax.families`:
some have no pooler, or another layer in its place.

All take the same batch (see `Bert.__call__`) and return `Outputs` under Hugging Face's names. Dropout is active if and
only if a "dropout" key is given: `model.apply({"params": params}, input_ids, rngs={"dropout": key})`.

References: Devlin et al., BERT, 2018.
"""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import Array

from bert_jax import functional as F
from bert_jax.config import BertConfig
from bert_jax.functional.attention_kernels import KERNELS
from bert_jax.functional.encoder import REMAT
from bert_jax.models.outputs import Outputs
from bert_jax.models.parameters import declare
from bert_jax.models.sharding import replicate, shard_rows


class ModelPart(nn.Module):
    """The parameters of one part of the model (`embeddings`, `encoder`, `pooler` or a head) under its name."""

    config: BertConfig

    def setup(self) -> None:
        assert self.name is not None
        self.weights = declare(self, self.name, self.config)


class Bert(nn.Module):
    """The encoder with its pooler.

    Attributes:
        config: the architecture.
        remat: what the backward pass recomputes instead of storing: `none`, `dots`, `full` or `auto`, see
            `functional.encoder`.
        unroll: number of layers per iteration of the compiled loop.
        kernel: fused attention kernel, one of `functional.attention_kernels.KERNELS`; None = plain matrix products.
        frozen: number of layers, from the bottom, that receive no gradient; the embeddings receive none either. None =
            everything is trained, 0 = everything but the embeddings.
        heads: the parts above the encoder, in BERT; `parts_above` returns those of any family.
    """

    config: BertConfig
    remat: str = "none"
    unroll: int = 1
    kernel: str | None = None
    frozen: int | None = None
    heads: ClassVar[tuple[str, ...]] = ("pooler",)

    @classmethod
    def pooling_layer(cls, config: BertConfig) -> str | None:
        """Returns the part that makes one vector of a sequence, if the model has one."""
        return "pooler" if config.family.has_pooler else None

    @classmethod
    def parts_above(cls, config: BertConfig) -> tuple[str, ...]:
        """Returns the names of the parts above the encoder.

        Raises:
            ValueError: the family has no such model.
        """
        if "next_sentence" in cls.heads and not config.family.has_next_sentence:
            raise ValueError(f"{config.family.title} has no next-sentence head, so there is no {cls.__name__} of it")
        layers = (cls.pooling_layer(config) if part == "pooler" else part for part in cls.heads)
        parts = tuple(part for part in layers if part is not None)
        return cls._modern_parts(config, parts) if config.family.is_modern else parts

    @classmethod
    def _modern_parts(cls, config: BertConfig, parts: tuple[str, ...]) -> tuple[str, ...]:
        """Returns ModernBERT's parts in place of BERT's: every head has the prediction head, also that of answers."""
        head = ("prediction_head",) if parts else ()
        others = ("classifier" if part == "span" else part for part in parts if part != "prediction_head")
        return ("final_norm", *head, *(part for part in others if part != "masked_lm" or config.decoder_bias))

    def setup(self) -> None:
        if self.config.dtype == "auto":
            raise ValueError("dtype auto is for settings: a model needs float32, bfloat16 or float64")
        if self.remat not in REMAT:
            raise ValueError(f"remat must be one of {', '.join(REMAT)}; got {self.remat!r}")
        if self.kernel not in (None, *KERNELS):
            raise ValueError(f"kernel must be None or one of {', '.join(KERNELS)}; got {self.kernel!r}")
        if self.kernel is not None and self.config.family.is_modern:
            raise ValueError(
                f"kernel must be None for {self.config.family.title}: {self.kernel} has no local attention"
            )
        adapters = ("adapters",) if self.config.lora_rank else ()
        # Flax derives the key of a parameter from its path: an embedding starts with the same values in every model,
        # whatever the other parts are.
        names = ("embeddings", "encoder", *adapters, *self.parts_above(self.config))
        self.parts = {name: ModelPart(self.config, name=name) for name in names}

    def __call__(
        self,
        input_ids: Array,
        attention_mask: Array | None = None,
        token_type_ids: Array | None = None,
        position_ids: Array | None = None,
        *,
        masked_positions: Array | None = None,
        cls_positions: Array | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
    ) -> Outputs:
        """Runs the model.

        Args:
            input_ids: int [B, T]; [B, C, T] for multiple choice, as are the next three.
            attention_mask: int [B, T], 0 = padding, otherwise the number of the sequence in its row; default: ones.
            token_type_ids: int [B, T], 0 = segment A, 1 = segment B; default: zeros. Ignored without token types.
            position_ids: int [B, T], from 0 in every sequence; default: 0 to T-1, without padding for RoBERTa.
            masked_positions: int [B, P], the positions that the masked-LM head predicts; default: all T.
            cls_positions: int [B, S], the [CLS] token of each sequence in a row; default: the first token, without S.
            output_hidden_states: add `hidden_states`, L+1 arrays [B, T, D], the first from the embeddings.
            output_attentions: add `attentions`, L arrays [B, N, T, T], before dropout.

        Returns:
            Those of the following that the model has: `last_hidden_state` [B, T, D]; `pooler_output` [B, D] or
            [B, S, D]; `prediction_logits` [B, P, V] or [B, T, V]; `seq_relationship_logits` [B, 2] or [B, S, 2];
            `logits` [B, C] or [B, T, C]; `start_logits` and `end_logits` [B, T].

        Raises:
            ValueError: rows longer than the position table, or `output_attentions` with a kernel.
        """
        embeddings_key, encoder_key, head_key = self._dropout_keys(3)
        if attention_mask is None:
            attention_mask = jnp.ones_like(input_ids)
        if position_ids is None:
            position_ids = self._default_positions(input_ids)
        x = self._embed(input_ids, token_type_ids, position_ids, key=embeddings_key)
        outputs = self._encode(
            x, attention_mask, position_ids, output_hidden_states, output_attentions, key=encoder_key
        )
        layer = self.pooling_layer(self.config) if "pooler" in self.heads else None
        if layer is not None:
            with jax.named_scope(layer):
                x = self._sequence_vectors(outputs["last_hidden_state"], attention_mask, cls_positions)
                outputs["pooler_output"] = self._pool(layer, x, head_key)
        outputs.update(self.apply_head(outputs, masked_positions=masked_positions, key=head_key))
        return outputs

    def apply_head(self, outputs: Outputs, *, masked_positions: Array | None, key: Array | None) -> dict[str, Any]:
        """Returns the head's outputs, to be added to the encoder's; `Bert` itself has none."""
        return {}

    def masked_lm_logits(self, x: Array, masked_positions: Array | None) -> Array:
        """Returns the masked-LM logits for x [B, T, D]: [B, P, V], or [B, T, V] without positions."""
        with jax.named_scope("masked_lm"):
            word_embedding = self.parts["embeddings"].weights["word"]["embedding"]
            x = x if masked_positions is None else F.select(x, masked_positions)
            # ModernBERT's transform and norm are in the part that its other heads have too.
            parts = (self.parts[name].weights for name in ("prediction_head", "masked_lm") if name in self.parts)
            weights = {name: entry for part in parts for name, entry in part.items()}
            return F.masked_lm(weights, word_embedding, x, config=self.config)

    def token_vectors(self, x: Array) -> Array:
        """Returns what the classifiers of tokens read, [B, T, D], for the last hidden state x [B, T, D]."""
        if "prediction_head" not in self.parts:
            return x
        with jax.named_scope("prediction_head"):
            return F.prediction_head(self.parts["prediction_head"].weights, x, config=self.config)

    def classifier_logits(self, x: Array, rate: float, key: Array | None) -> Array:
        """Returns the classifier's logits [..., C] for x [..., D], after dropout."""
        with jax.named_scope("classifier"):
            return F.logits(self.parts["classifier"].weights, F.dropout(x, rate=rate, key=key))

    def _sequence_vectors(self, x: Array, attention_mask: Array, cls_positions: Array | None) -> Array:
        """Returns one vector of each sequence, [B, D] or [B, S, D]: of its first token, or ModernBERT's mean."""
        if self.config.family.is_modern and self.config.classifier_pooling == "mean":
            return F.mean_pool(x, attention_mask, cls_positions)
        return x[:, 0] if cls_positions is None else F.select(x, cls_positions)

    def _pool(self, layer: str, x: Array, key: Array | None) -> Array:
        """Returns the output of the layer between the vectors of sequences, x [..., D], and their classifier."""
        if layer == "prediction_head":
            return F.prediction_head(self.parts[layer].weights, x, config=self.config)
        family = self.config.family
        if layer == "pre_classifier" and family.layer_dropout and key is not None:
            x = F.dropout(x, rate=self.config.sequence_dropout, key=jax.random.fold_in(key, 1))
        act = "tanh" if layer == "pooler" else family.layer_act
        return F.pooler(self.parts[layer].weights, x, act=act)

    def _default_positions(self, input_ids: Array) -> Array:
        """Returns 0 to T-1 in every row, int [B, T]; RoBERTa does not count padding, on either side.

        Raises:
            ValueError: rows longer than the position table.
        """
        B, T = input_ids.shape
        config = self.config
        if config.position_embedding_type == "absolute" and config.max_length < T:
            unused = f", the first {config.position_offset} unused" if config.position_offset else ""
            limit = f"max_position_embeddings {config.max_position_embeddings}{unused}"
            raise ValueError(f"rows of {T} tokens exceed {limit}")
        if config.family.offset_positions:  # for <pad> <pad> a b: 0, 0, 0, 1
            return jnp.maximum(jnp.cumsum(input_ids != config.pad_token_id, axis=1, dtype=jnp.int32) - 1, 0)
        return jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32)[None, :], (B, T))

    def _embed(
        self, input_ids: Array, token_type_ids: Array | None, position_ids: Array, *, key: Array | None
    ) -> Array:
        """Returns the embeddings' output [B, T, D]."""
        if token_type_ids is None:
            token_type_ids = jnp.zeros_like(input_ids)
        with jax.named_scope("embeddings"):
            weights = replicate(self.parts["embeddings"].weights)  # see `models.sharding`
            return shard_rows(
                F.embeddings(weights, input_ids, token_type_ids, position_ids, config=self.config, key=key)
            )

    def _encode(
        self,
        x: Array,
        attention_mask: Array,
        position_ids: Array,
        hidden_states: bool,
        attentions: bool,
        *,
        key: Array | None,
    ) -> Outputs:
        """Returns the encoder's outputs for the embeddings' output x [B, T, D]."""
        if attentions and self.kernel is not None:
            raise ValueError(f"output_attentions: the attention kernel {self.kernel} does not return its weights")
        with jax.named_scope("encoder"):
            last, layer_outputs, layer_attentions = F.encoder(
                self._encoder_weights(),
                x if self.frozen is None else jax.lax.stop_gradient(x),
                F.make_attention_mask(attention_mask) if self.kernel is None else attention_mask,
                position_ids,
                config=self.config,
                remat=self.remat,
                unroll=self.unroll,
                frozen_layers=self.frozen or 0,
                kernel=self.kernel,
                output_hidden_states=hidden_states,
                output_attentions=attentions,
                key=key,
            )
            if "final_norm" in self.parts:
                last = F.layer_norm(self.parts["final_norm"].weights, last, eps=self.config.layer_norm_eps)
        outputs = Outputs(last_hidden_state=last)
        if layer_outputs is not None:
            outputs["hidden_states"] = (x, *layer_outputs[:-1], last)
        if layer_attentions is not None:
            outputs["attentions"] = tuple(layer_attentions)
        return outputs

    def _encoder_weights(self) -> Any:
        """Returns the encoder's parameters, with LoRA adapters attached if there are any."""
        config = self.config
        weights = self.parts["encoder"].weights
        if not config.lora_rank:
            return weights
        scale = config.lora_alpha / config.lora_rank
        return F.lora.attach(weights, self.parts["adapters"].weights["encoder"], scale=scale)

    def _dropout_keys(self, count: int) -> tuple[Array | None, ...]:
        """Returns `count` keys if a "dropout" key was given, otherwise `count` times None."""
        return tuple(jax.random.split(self.make_rng("dropout"), count)) if self.has_rng("dropout") else (None,) * count
