"""The models with a head: what they put on the encoder of `models.bert`, and what they return.

References: Devlin et al., BERT, 2018, sections 3.1 and 4.
"""

from typing import Any

from bert_jax import functional as F
from bert_jax.models.bert import Bert


class BertForPreTraining(Bert):
    """Masked LM and next-sentence prediction: `prediction_logits` and `seq_relationship_logits`."""

    heads = ("pooler", "masked_lm", "next_sentence")

    def apply_head(self, outputs, *, masked_positions, key):
        return {
            "prediction_logits": self.masked_lm_logits(outputs["last_hidden_state"], masked_positions),
            "seq_relationship_logits": F.logits(self.parts["next_sentence"].weights, outputs["pooler_output"]),
        }


class BertForMaskedLM(Bert):
    """Masked LM: `prediction_logits` at the masked positions, or at every token."""

    heads = ("masked_lm",)

    def apply_head(self, outputs, *, masked_positions, key):
        return {"prediction_logits": self.masked_lm_logits(outputs["last_hidden_state"], masked_positions)}


class BertForNextSentencePrediction(Bert):
    """Next-sentence prediction: `seq_relationship_logits`; label 0 = B follows A, 1 = B is from elsewhere."""

    heads = ("pooler", "next_sentence")

    def apply_head(self, outputs, *, masked_positions, key):
        logits = F.logits(self.parts["next_sentence"].weights, outputs["pooler_output"])
        return {"seq_relationship_logits": logits}


class BertForSequenceClassification(Bert):
    """Classification, multi-label classification or regression of a sequence: `logits` [B, C]."""

    heads = ("pooler", "classifier")

    @classmethod
    def pooling_layer(cls, config):
        return config.family.sequence_layer

    def apply_head(self, outputs, *, masked_positions, key):
        return {"logits": self.classifier_logits(outputs["pooler_output"], self.config.sequence_dropout, key)}


class BertForTokenClassification(Bert):
    """Classification of every token: `logits` [B, T, C]."""

    heads = ("classifier",)

    def apply_head(self, outputs, *, masked_positions, key):
        config = self.config
        whole = config.family.tokens_use_hidden_dropout
        rate = config.hidden_dropout_prob if whole else config.sequence_dropout
        return {"logits": self.classifier_logits(self.token_vectors(outputs["last_hidden_state"]), rate, key)}


class BertForQuestionAnswering(Bert):
    """Extractive question answering: `start_logits` and `end_logits` [B, T] of the answer."""

    heads = ("span",)

    def apply_head(self, outputs, *, masked_positions, key):
        config = self.config
        rate = config.sequence_dropout if config.family.is_modern else config.span_dropout
        x = F.dropout(self.token_vectors(outputs["last_hidden_state"]), rate=rate, key=key)
        start, end = F.span(self.parts["span" if "span" in self.parts else "classifier"].weights, x)
        return {"start_logits": start, "end_logits": end}


class BertForMultipleChoice(BertForSequenceClassification):
    """Choice among C texts: `logits` [B, C] from inputs [B, C, T]. One score per choice, so `num_labels` is 1.

    Inputs [B, T] are choices in rows of their own, or packed: `logits` [B, 1], or [B, S, 1] with `cls_positions`.
    """

    @classmethod
    def pooling_layer(cls, config):
        return config.family.choice_layer

    def __call__(self, input_ids, attention_mask=None, token_type_ids=None, position_ids=None, **options):
        inputs = (input_ids, attention_mask, token_type_ids, position_ids)
        if input_ids.ndim == 2:
            return super().__call__(*inputs, **options)
        # [B, C, T] -> [B * C, T]: the choices of an example become rows, and their scores [B * C, 1] a row again.
        rows: list[Any] = [array if array is None else array.reshape(-1, array.shape[-1]) for array in inputs]
        outputs = super().__call__(*rows, **options)
        outputs["logits"] = outputs["logits"].reshape(input_ids.shape[:2])
        return outputs
