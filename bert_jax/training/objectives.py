"""What a training step minimizes, as a pure function of parameters and batch.

A row may hold several sequences, which do not attend to one another. So batches for fine-tuning have `labels` and
`weights` for each sequence of a row, [B, S], or for each token, [B, T].

Axes: B batch, T token, S sequence of a row, P predictions, C classes, V vocabulary.

References: Devlin et al., BERT, 2018, section 3.1 (the loss of pretraining is the sum of the mean masked-LM likelihood
and the mean next-sentence likelihood), section 4 (fine-tuning); Liu et al., RoBERTa, 2019, section 4.2 (without next
sentences).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from bert_jax.functional import losses
from bert_jax.models import Bert

Metrics = dict[str, losses.Pair]  # {name: (sum, weight)}
Batch = Mapping[str, Array]


@dataclass(frozen=True)
class Objective:
    """The metrics of a batch, and which of them are the losses.

    Attributes:
        model: the module.
        compute_metrics: (outputs of the model, batch) -> {name: (sum, weight)}.
        losses: {name of a metric to minimize: the batch entry whose sum is its weight}. So a step knows the total
            weight of a global batch before the first gradient, however the batch is split.
    """

    model: Bert
    compute_metrics: Callable[[Any, Batch], Metrics]
    losses: Mapping[str, str]

    def apply(self, params, batch: Batch, key: Array | None) -> Any:
        """Returns the model's outputs; with dropout if there is a key."""
        inputs = (batch[name] for name in ("input_ids", "attention_mask", "token_type_ids", "position_ids"))
        names = ("masked_positions", "cls_positions")
        positions: dict[str, Any] = {name: batch[name] for name in names if name in batch}
        rngs = None if key is None else {"dropout": key}
        return self.model.apply({"params": params}, *inputs, **positions, rngs=rngs)

    def loss_and_metrics(self, params, batch: Batch, key: Array | None) -> Metrics:
        """Returns the metrics of a batch, the losses among them; with dropout if there is a key."""
        return self.compute_metrics(self.apply(params, batch, key), batch)


def pretraining(model: Bert) -> Objective:
    """Returns the objective of BERT's pretraining: masked LM + next sentence, with the accuracy of both."""

    def compute_metrics(outputs, batch) -> Metrics:
        sentence = (outputs.seq_relationship_logits, batch["next_sentence_labels"], batch["next_sentence_weights"])
        return _masked_lm_metrics(outputs, batch) | {
            "next_sentence_loss": losses.cross_entropy(*sentence),
            "next_sentence_accuracy": losses.accuracy(*sentence),
        }

    return Objective(
        model, compute_metrics, {"masked_lm_loss": "masked_weights", "next_sentence_loss": "next_sentence_weights"}
    )


def masked_lm(model: Bert) -> Objective:
    """Returns the objective of pretraining with masked words alone, as in RoBERTa."""
    return Objective(model, _masked_lm_metrics, {"masked_lm_loss": "masked_weights"})


def _masked_lm_metrics(outputs, batch: Batch) -> Metrics:
    masked = (outputs.prediction_logits, batch["masked_labels"], batch["masked_weights"])
    return {"masked_lm_loss": losses.cross_entropy(*masked), "masked_lm_accuracy": losses.accuracy(*masked)}


def classification(model: Bert, *, problem_type: str, smoothing: float = 0.0) -> Objective:
    """Returns the objective of classification, multi-label classification or regression (`PROBLEM_TYPES`).

    Each sequence of a row has its own logits, in packed rows at `cls_positions`. The batch has `labels` (int [B, S], or
    float [B, S, C]) and `weights` [B, S]; [B] for multiple choice, where each choice is a row.
    """

    def compute_metrics(outputs, batch) -> Metrics:
        labels = batch["labels"]
        weights = batch["weights"]
        loss = losses.classification_loss(
            outputs.logits, labels, weights, problem_type=problem_type, smoothing=smoothing
        )
        metrics = {"loss": loss}
        if problem_type == "single_label_classification":
            metrics["accuracy"] = losses.accuracy(outputs.logits, labels, weights > 0)
        return metrics

    return Objective(model, compute_metrics, {"loss": "weights"})


def tagging(model: Bert, *, smoothing: float = 0.0) -> Objective:
    """Returns the objective of token classification: `labels` int [B, T] with `weights` [B, T]."""

    def compute_metrics(outputs, batch) -> Metrics:
        tags = (outputs.logits, batch["labels"], batch["weights"])
        return {"loss": losses.cross_entropy(*tags, smoothing=smoothing), "accuracy": losses.accuracy(*tags)}

    return Objective(model, compute_metrics, {"loss": "weights"})


def question_answering(model: Bert) -> Objective:
    """Returns the objective of extractive question answering: the first and the last token of the answer.

    The batch has `start_positions` and `end_positions`, int [B, S], as positions in the row, and `weights` [B, S]. Each
    is a choice among the tokens of its own sequence only.
    """

    def compute_metrics(outputs, batch) -> Metrics:
        starts = batch["start_positions"]
        ends = batch["end_positions"]
        weights = batch["weights"]
        # Logits [B, T] -> [B, S, T]: sequence s keeps the logits of its tokens, which attention_mask numbers s + 1.
        # Example: mask 1 1 2 2 2 0, so sequence 0 sees tokens 0 and 1, sequence 1 the tokens 2 to 4.
        number = jnp.arange(1, starts.shape[1] + 1)[None, :, None]
        is_own = batch["attention_mask"][:, None, :] == number  # [B, S, T]
        start_logits, end_logits = (
            jnp.where(is_own, logits[:, None, :].astype(jnp.float32), jnp.finfo(jnp.float32).min)
            for logits in (outputs.start_logits, outputs.end_logits)
        )
        return {
            "loss": losses.span_loss(start_logits, end_logits, starts, ends, weights),
            "start_accuracy": losses.accuracy(start_logits, starts, weights),
            "end_accuracy": losses.accuracy(end_logits, ends, weights),
        }

    return Objective(model, compute_metrics, {"loss": "weights"})
