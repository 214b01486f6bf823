"""What a step minimises, as a pure function of parameters and batch.

The batch of fine-tuning has `cls_positions`, `labels` and `weights` for each sequence of a row (S of them), or for each
token: several short sequences lie in a row and do not see each other.

References: Devlin et al., BERT, 2018, section 3.1 (the loss of pretraining is the sum of the mean masked-LM likelihood
and the mean next-sentence likelihood), section 4 (fine-tuning).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
from jax import Array

from bert_jax.functional import losses
from bert_jax.models import Bert

Metrics = dict[str, losses.Pair]
Batch = Mapping[str, Array]


@dataclass(frozen=True)
class Objective:
    """Figures of a batch, and which of them are to be made small.

    Attributes:
        model: what answers.
        compute_metrics: (the model's outputs, batch) -> {name: (sum, weight)}.
        losses: the names to minimise, each with the batch entry whose sum is its weight. The total weight of a global
            batch is then known before the first gradient, wherever its parts are.
    """

    model: Bert
    compute_metrics: Callable[[Any, Batch], Metrics]
    losses: Mapping[str, str]

    def apply(self, params, batch: Batch, key: Array | None) -> Any:
        """Returns the model's outputs; dropout is on where there is a key."""
        inputs = (batch[name] for name in ("input_ids", "attention_mask", "token_type_ids", "position_ids"))
        places: dict[str, Any] = {name: batch[name] for name in ("masked_positions", "cls_positions") if name in batch}
        return self.model.apply({"params": params}, *inputs, **places, rngs=None if key is None else {"dropout": key})

    def loss_and_metrics(self, params, batch: Batch, key: Array | None) -> Metrics:
        """Returns the figures of a batch; dropout is on where there is a key."""
        return self.compute_metrics(self.apply(params, batch, key), batch)


def pretraining(model: Bert) -> Objective:
    """Returns the objective of BERT's pretraining: masked LM + next sentence, with the accuracy of both."""

    def compute_metrics(outputs, batch) -> Metrics:
        masked = (outputs.prediction_logits, batch["masked_labels"], batch["masked_weights"])
        sentence = (outputs.seq_relationship_logits, batch["next_sentence_labels"], batch["next_sentence_weights"])
        return {
            "masked_lm_loss": losses.cross_entropy(*masked),
            "masked_lm_accuracy": losses.accuracy(*masked),
            "next_sentence_loss": losses.cross_entropy(*sentence),
            "next_sentence_accuracy": losses.accuracy(*sentence),
        }

    return Objective(
        model, compute_metrics, {"masked_lm_loss": "masked_weights", "next_sentence_loss": "next_sentence_weights"}
    )


def classification(model: Bert, *, problem_type: str, smoothing: float = 0.0) -> Objective:
    """Returns the objective of classes, of labels that may hold together, or of regression (`PROBLEM_TYPES`).

    Every sequence of a row has its own logits, for packed rows at `cls_positions`. The batch has `labels` (int [B, S],
    or float [B, S, C]) and `weights` [B, S]; for multiple choice, where there is one sequence a choice, [B].
    """

    def compute_metrics(outputs, batch) -> Metrics:
        logits, labels, weights = outputs.logits, batch["labels"], batch["weights"]
        options = {"problem_type": problem_type, "smoothing": smoothing}
        measures = {"loss": losses.classification_loss(logits, labels, weights, **options)}
        if problem_type == "single_label_classification":
            measures["accuracy"] = losses.accuracy(logits, labels, weights > 0)
        return measures

    return Objective(model, compute_metrics, {"loss": "weights"})


def tagging(model: Bert, *, smoothing: float = 0.0) -> Objective:
    """Returns the objective of a tag for each token: `labels` int [B, T] count where `weights` [B, T] are not 0."""

    def compute_metrics(outputs, batch) -> Metrics:
        tags = (outputs.logits, batch["labels"], batch["weights"])
        return {"loss": losses.cross_entropy(*tags, smoothing=smoothing), "accuracy": losses.accuracy(*tags)}

    return Objective(model, compute_metrics, {"loss": "weights"})


def question_answering(model: Bert) -> Objective:
    """Returns the objective of an answer's first and last token, each a choice among the tokens of its sequence.

    The batch has `start_positions`, `end_positions` int [B, S], as places in the row, and `weights` [B, S].
    """

    def compute_metrics(outputs, batch) -> Metrics:
        starts, ends, weights = batch["start_positions"], batch["end_positions"], batch["weights"]
        number = jnp.arange(1, starts.shape[1] + 1)[None, :, None]
        own = batch["attention_mask"][:, None, :] == number
        start_logits, end_logits = (
            jnp.where(own, logits[:, None, :].astype(jnp.float32), jnp.finfo(jnp.float32).min)
            for logits in (outputs.start_logits, outputs.end_logits)
        )
        return {
            "loss": losses.span_loss(start_logits, end_logits, starts, ends, weights),
            "start_accuracy": losses.accuracy(start_logits, starts, weights),
            "end_accuracy": losses.accuracy(end_logits, ends, weights),
        }

    return Objective(model, compute_metrics, {"loss": "weights"})
