"""The families of models: BERT's encoder with other embeddings, heads, or names of keys and classes.

A family is one entry of `FAMILIES`, under its `model_type` in Hugging Face's config.json. The names of its tensors are
in `interop.names`.

References: Devlin et al., BERT, 2018. Liu et al., RoBERTa, 2019. Conneau et al., XLM-R, 2020. Martin et al., CamemBERT,
2020. Sanh et al., DistilBERT, 2019. Clark et al., ELECTRA, 2020. Warner et al., ModernBERT, 2024.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bert_jax.modern_config import MODERN_FIELDS


@dataclass(frozen=True)
class Family:
    """How a family differs from BERT; the defaults are those of BERT.

    Attributes:
        title: the name in messages.
        class_prefix: of Hugging Face's classes: `Roberta` in `RobertaForMaskedLM`.
        is_modern: whether the layers are those of `functional.modern`, and the heads share a prediction head. Only then
            are the fields of `modern_config` used.
        offset_positions: whether the first position of a sequence is pad_token_id + 1 instead of 0.
        has_token_types: whether there is a table of token types.
        has_segments: whether the second text of a pair has another token type than the first.
        has_pooler: whether the encoder alone has a pooler.
        has_next_sentence: whether there is a next-sentence head.
        sequence_layer: the part that makes one vector of a sequence, for its classifier.
        choice_layer: the same for multiple choice.
        layer_act: the activation of `pre_classifier` and `summary`; the pooler's is tanh.
        layer_dropout: whether there is dropout before `pre_classifier`, too.
        masked_lm_act: the activation of the masked-LM head; None: `hidden_act`.
        tokens_use_hidden_dropout: whether `classifier_dropout` is for classifiers of sequences only.
        keys: keys of config.json with another name, by the name here.
        defaults: values of keys that a config.json omits, by the name here.
        fixed: keys of config.json that must have this value if they are given.
        without: fields of the config that the family does not have; they keep their defaults.
    """

    title: str
    class_prefix: str
    is_modern: bool = False
    offset_positions: bool = False
    has_token_types: bool = True
    has_segments: bool = True
    has_pooler: bool = True
    has_next_sentence: bool = False
    sequence_layer: str = "pooler"
    choice_layer: str = "pooler"
    layer_act: str = "tanh"
    layer_dropout: bool = False
    masked_lm_act: str | None = None
    tokens_use_hidden_dropout: bool = False
    keys: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Any] = field(default_factory=dict)
    fixed: Mapping[str, Any] = field(default_factory=dict)
    without: tuple[str, ...] = ("embedding_size", "span_dropout")

    @property
    def unused_fields(self) -> tuple[str, ...]:
        """All fields of the config that the family does not have."""
        return self.without if self.is_modern else (*self.without, *MODERN_FIELDS)


ROBERTA = Family(
    "RoBERTa",
    "Roberta",
    offset_positions=True,
    has_segments=False,
    sequence_layer="pre_classifier",
    layer_dropout=True,
    masked_lm_act="gelu",
    defaults={"vocab_size": 50265, "pad_token_id": 1},
)
FAMILIES = {
    "bert": Family("BERT", "Bert", has_next_sentence=True),
    "roberta": ROBERTA,
    "xlm-roberta": replace(ROBERTA, title="XLM-RoBERTa", class_prefix="XLMRoberta", defaults={"pad_token_id": 1}),
    "camembert": replace(ROBERTA, title="CamemBERT", class_prefix="Camembert", defaults={"pad_token_id": 1}),
    "distilbert": Family(
        "DistilBERT",
        "DistilBert",
        has_token_types=False,
        has_segments=False,
        has_pooler=False,
        sequence_layer="pre_classifier",
        choice_layer="pre_classifier",
        layer_act="relu",
        tokens_use_hidden_dropout=True,
        keys={
            "hidden_size": "dim",
            "num_hidden_layers": "n_layers",
            "num_attention_heads": "n_heads",
            "intermediate_size": "hidden_dim",
            "hidden_act": "activation",
            "hidden_dropout_prob": "dropout",
            "attention_probs_dropout_prob": "attention_dropout",
            "classifier_dropout": "seq_classif_dropout",
            "span_dropout": "qa_dropout",
        },
        defaults={"num_hidden_layers": 6, "classifier_dropout": 0.2, "span_dropout": 0.1},
        without=("embedding_size", "layer_norm_eps", "type_vocab_size"),
    ),
    "electra": Family(
        "ELECTRA",
        "Electra",
        has_pooler=False,
        sequence_layer="pre_classifier",
        choice_layer="summary",
        layer_act="gelu",
        layer_dropout=True,
        masked_lm_act="gelu",
        defaults={"embedding_size": 128, "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024},
        fixed={"summary_type": "first", "summary_use_proj": True, "summary_activation": "gelu"},
        without=("span_dropout",),
    ),
    "modernbert": Family(
        "ModernBERT",
        "ModernBert",
        is_modern=True,
        has_token_types=False,
        has_segments=False,
        has_pooler=False,
        sequence_layer="prediction_head",
        choice_layer="prediction_head",
        keys={
            "hidden_act": "hidden_activation",
            "layer_norm_eps": "norm_eps",
            "hidden_dropout_prob": "embedding_dropout",
            "attention_probs_dropout_prob": "attention_dropout",
        },
        defaults={
            "vocab_size": 50368,
            "num_hidden_layers": 22,
            "intermediate_size": 1152,
            "hidden_dropout_prob": 0.0,
            "attention_probs_dropout_prob": 0.0,
            "classifier_dropout": 0.0,
            "max_position_embeddings": 8192,
            "layer_norm_eps": 1e-5,
            "pad_token_id": 50283,
        },
        without=("embedding_size", "span_dropout", "type_vocab_size", "position_embedding_type"),
    ),
}


def family_of(model_type: Any) -> Family:
    """Returns the family of a `model_type`.

    Raises:
        ValueError: there is none.
    """
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise ValueError(f"model_type must be one of {', '.join(FAMILIES)}; got {model_type!r:.60}")
    return FAMILIES[model_type]
