"""BERT and its heads as Flax Linen modules."""

from bert_jax.models.bert import Bert
from bert_jax.models.heads import (
    BertForMaskedLM,
    BertForMultipleChoice,
    BertForNextSentencePrediction,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from bert_jax.models.outputs import Outputs
from bert_jax.models.parameters import logical_axes

__all__ = [
    "Bert", "BertForMaskedLM", "BertForMultipleChoice", "BertForNextSentencePrediction", "BertForPreTraining",
    "BertForQuestionAnswering", "BertForSequenceClassification", "BertForTokenClassification", "Outputs",
    "logical_axes",
]  # fmt: skip
