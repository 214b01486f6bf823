"""What a step minimises, as a pure function of parameters and batch.

References: Devlin et al., BERT, 2018, section 3.1: the loss of pretraining is the sum of the mean masked-LM likelihood
and the mean next-sentence likelihood.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from jax import Array

from bert_jax.functional import losses
from bert_jax.models import Bert

Measures = dict[str, losses.Pair]


@dataclass(frozen=True)
class Objective:
    """Figures of a batch, and which of them are to be made small.

    Attributes:
        measure: (params, batch, key) -> {name: (sum, weight)}; dropout is on where key is not None.
        losses: the names to minimise, each with the batch entry whose sum is its weight. The total weight of a global
            batch is then known before the first gradient, wherever its parts are.
    """

    measure: Callable[[Any, Mapping[str, Array], Array | None], Measures]
    losses: Mapping[str, str]


def pretraining(model: Bert) -> Objective:
    """Returns the objective of BERT's pretraining: masked LM + next sentence, with the accuracy of both."""

    def measure(params, batch, key) -> Measures:
        outputs: Any = model.apply(
            {"params": params},
            batch["input_ids"],
            batch["attention_mask"],
            batch["token_type_ids"],
            batch["position_ids"],
            masked_positions=batch["masked_positions"],
            cls_positions=batch["cls_positions"],
            rngs=None if key is None else {"dropout": key},
        )
        masked = (outputs.prediction_logits, batch["masked_labels"], batch["masked_weights"])
        sentence = (outputs.seq_relationship_logits, batch["next_sentence_labels"], batch["next_sentence_weights"])
        return {
            "masked_lm_loss": losses.masked_lm_loss(*masked),
            "masked_lm_accuracy": losses.accuracy(*masked),
            "next_sentence_loss": losses.next_sentence_loss(*sentence),
            "next_sentence_accuracy": losses.accuracy(*sentence),
        }

    return Objective(measure, {"masked_lm_loss": "masked_weights", "next_sentence_loss": "next_sentence_weights"})
