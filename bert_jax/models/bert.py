"""BERT as Flax modules: they declare parameters and call the pure functions, and hold no mathematics of their own.

`Bert` is the encoder with a pooler; the other models put a head on the encoder, and a pooler between where the head
reads [CLS]. All read the batch format of this project and answer with `Outputs` under Hugging Face's names. Dropout is
on when, and only when, a "dropout" key is given: `model.apply({"params": params}, input_ids, rngs={"dropout": key})`.

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
    """One part of the parameter table, under its own name in the tree; `weights` is its subtree."""

    config: BertConfig

    def setup(self) -> None:
        assert self.name is not None
        self.weights = declare(self, self.name, self.config)


class Bert(nn.Module):
    """The encoder with its pooler.

    Attributes:
        config: the architecture.
        remat: `none`, `dots`, `full` or `auto`: what the backward pass computes again instead of keeping it.
        unroll: how many layers the compiled loop over the layers writes out a turn.
        kernel: attention in one kernel, one of `functional.attention_kernels.KERNELS`; None = plain matrix products.
        frozen: no gradient reaches the embeddings and so many of the lowest layers; None = everything learns.
    """

    config: BertConfig
    remat: str = "none"
    unroll: int = 1
    kernel: str | None = None
    frozen: int | None = None
    heads: ClassVar[tuple[str, ...]] = ("pooler",)

    def setup(self) -> None:
        if self.remat not in REMAT:
            raise ValueError(f"remat must be one of {', '.join(REMAT)}; got {self.remat!r}")
        if self.kernel not in (None, *KERNELS):
            raise ValueError(f"kernel must be None or one of {', '.join(KERNELS)}; got {self.kernel!r}")
        adapters = ("adapters",) if self.config.lora_rank else ()
        names = ("embeddings", "encoder", *adapters, *self.heads)
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
            input_ids: int [B, T] ([B, C, T] for multiple choice, and so the next three).
            attention_mask: int [B, T], 0 = padding, else the number of the sequence in its row; default: all ones.
            token_type_ids: int [B, T], 0 = segment A, 1 = segment B; default: zeros.
            position_ids: int [B, T]; default: 0 to T-1.
            masked_positions: int [B, P], where the masked-LM head answers; default: every token.
            cls_positions: int [B, S], which tokens speak for a sequence; default: the first, and the axis S is absent.
            output_hidden_states: adds `hidden_states`, L+1 arrays [B, T, D], the embeddings' output first.
            output_attentions: adds `attentions`, L arrays [B, N, T, T], before dropout.

        Returns:
            The entries that this model has: `last_hidden_state` [B, T, D]; `pooler_output` [B, D] or [B, S, D];
            `prediction_logits` [B, P, V] or [B, T, V]; `seq_relationship_logits` [B, 2] or [B, S, 2]; `logits` [B, C]
            or [B, T, C]; `start_logits`, `end_logits` [B, T].

        Raises:
            ValueError: rows longer than the table of positions, or attention weights asked of a kernel.
        """
        B, T = input_ids.shape
        if attention_mask is None:
            attention_mask = jnp.ones_like(input_ids)
        if token_type_ids is None:
            token_type_ids = jnp.zeros_like(input_ids)
        if position_ids is None:
            self.check_length(T)
            position_ids = jnp.broadcast_to(jnp.arange(T, dtype=jnp.int32)[None, :], (B, T))
        embeddings_key, encoder_key, head_key = self.dropout_keys(3)

        with jax.named_scope("embeddings"):
            weights = replicate(self.parts["embeddings"].weights)
            x = F.embeddings(weights, input_ids, token_type_ids, position_ids, config=self.config, key=embeddings_key)
            x = embedded = shard_rows(x)
        with jax.named_scope("encoder"):
            x, hidden_states, attentions = F.encoder(
                self.encoder_weights(),
                x if self.frozen is None else jax.lax.stop_gradient(x),
                F.make_attention_mask(attention_mask) if self.kernel is None else attention_mask,
                config=self.config,
                remat=self.remat,
                unroll=self.unroll,
                frozen_layers=self.frozen or 0,
                kernel=self.kernel,
                output_hidden_states=output_hidden_states,
                output_attentions=output_attentions,
                key=encoder_key,
            )
        outputs = Outputs(last_hidden_state=x)
        if hidden_states is not None:
            outputs["hidden_states"] = (embedded, *hidden_states)
        if output_attentions and attentions is None:
            raise ValueError(f"the attention kernel {self.kernel} does not give its weights back")
        if attentions is not None:
            outputs["attentions"] = tuple(attentions)
        if "pooler" in self.heads:
            with jax.named_scope("pooler"):
                first = x[:, 0] if cls_positions is None else F.select(x, cls_positions)
                outputs["pooler_output"] = F.pooler(self.parts["pooler"].weights, first)
        outputs.update(self.apply_head(outputs, masked_positions=masked_positions, key=head_key))
        return outputs

    def encoder_weights(self) -> Any:
        """Returns the encoder's parameters, with the adapters if there are any."""
        config, weights = self.config, self.parts["encoder"].weights
        if not config.lora_rank:
            return weights
        scale = config.lora_alpha / config.lora_rank
        return F.lora.attach(weights, self.parts["adapters"].weights["encoder"], scale=scale)

    def check_length(self, length: int) -> None:
        limit = self.config.max_position_embeddings
        if length > limit and self.config.position_embedding_type == "absolute":
            raise ValueError(f"rows of {length} tokens are longer than the {limit} of max_position_embeddings")

    def dropout_keys(self, count: int) -> tuple[Array | None, ...]:
        """Returns keys where a "dropout" key was given, else as many None."""
        return tuple(jax.random.split(self.make_rng("dropout"), count)) if self.has_rng("dropout") else (None,) * count

    def apply_head(
        self, outputs: dict[str, Any], *, masked_positions: Array | None, key: Array | None
    ) -> dict[str, Any]:
        """Returns what the head adds to the encoder's outputs: here nothing."""
        return {}

    def masked_lm_logits(self, x: Array, masked_positions: Array | None) -> Array:
        """Returns the masked-LM scores [B, P, V], or [B, T, V] without positions."""
        with jax.named_scope("masked_lm"):
            word_embedding = self.parts["embeddings"].weights["word"]["embedding"]
            x = x if masked_positions is None else F.select(x, masked_positions)
            return F.masked_lm(self.parts["masked_lm"].weights, word_embedding, x, config=self.config)

    def classifier_logits(self, x: Array, key: Array | None) -> Array:
        """Returns the classifier's scores [..., C] after its dropout."""
        rate = self.config.classifier_dropout
        rate = self.config.hidden_dropout_prob if rate is None else rate
        with jax.named_scope("classifier"):
            return F.logits(self.parts["classifier"].weights, F.dropout(x, rate=rate, key=key))


class BertForPreTraining(Bert):
    """Masked LM and next sentence: `prediction_logits` and `seq_relationship_logits`."""

    heads = ("pooler", "masked_lm", "next_sentence")

    def apply_head(self, outputs, *, masked_positions, key):
        return {
            "prediction_logits": self.masked_lm_logits(outputs["last_hidden_state"], masked_positions),
            "seq_relationship_logits": F.logits(self.parts["next_sentence"].weights, outputs["pooler_output"]),
        }


class BertForMaskedLM(Bert):
    """`prediction_logits` at the masked positions, or everywhere."""

    heads = ("masked_lm",)

    def apply_head(self, outputs, *, masked_positions, key):
        return {"prediction_logits": self.masked_lm_logits(outputs["last_hidden_state"], masked_positions)}


class BertForNextSentencePrediction(Bert):
    """`seq_relationship_logits`: 0 = B follows A, 1 = it comes from elsewhere."""

    heads = ("pooler", "next_sentence")

    def apply_head(self, outputs, *, masked_positions, key):
        logits = F.logits(self.parts["next_sentence"].weights, outputs["pooler_output"])
        return {"seq_relationship_logits": logits}


class BertForSequenceClassification(Bert):
    """`logits` [B, C]: classes, labels that may hold together, or the values of a regression."""

    heads = ("pooler", "classifier")

    def apply_head(self, outputs, *, masked_positions, key):
        return {"logits": self.classifier_logits(outputs["pooler_output"], key)}


class BertForTokenClassification(Bert):
    """`logits` [B, T, C], one set of scores a token."""

    heads = ("classifier",)

    def apply_head(self, outputs, *, masked_positions, key):
        return {"logits": self.classifier_logits(outputs["last_hidden_state"], key)}


class BertForQuestionAnswering(Bert):
    """`start_logits` and `end_logits` [B, T]: where the answer begins and ends."""

    heads = ("span",)

    def apply_head(self, outputs, *, masked_positions, key):
        start, end = F.span(self.parts["span"].weights, outputs["last_hidden_state"])
        return {"start_logits": start, "end_logits": end}


class BertForMultipleChoice(Bert):
    """`logits` [B, C] over C choices, one score each (so num_labels is 1); every input is [B, C, T]."""

    heads = ("pooler", "classifier")

    def __call__(self, input_ids, attention_mask=None, token_type_ids=None, position_ids=None, **options):
        inputs = (input_ids, attention_mask, token_type_ids, position_ids)
        rows: list[Any] = [array if array is None else array.reshape(-1, array.shape[-1]) for array in inputs]
        outputs = super().__call__(*rows, **options)
        outputs["logits"] = outputs["logits"].reshape(input_ids.shape[:2])
        return outputs

    def apply_head(self, outputs, *, masked_positions, key):
        return {"logits": self.classifier_logits(outputs["pooler_output"], key)}
