"""Which model a checkpoint is: the one that the caller names, that its config names, or that its tensors fit.

Models have Hugging Face's names, except that `Bert` is called `BertModel` there. Another family's names, such as
`RobertaForMaskedLM`, mean the same models: the family is in the config.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from typing import Any

import jax

from bert_jax import models
from bert_jax.config import BertConfig
from bert_jax.families import FAMILIES
from bert_jax.interop.names import NAMES
from bert_jax.models import Bert
from bert_jax.models.bert import ModelPart

MODELS: dict[str, type[Bert]] = {
    "BertModel": models.Bert,
    **{name: getattr(models, name) for name in models.__all__ if name.startswith("BertFor")},
}
SAME_MODEL = {
    "BertLMHeadModel": "BertForMaskedLM",  # the class of decoders; its tensors are those of the other
    "ElectraForPreTraining": "BertModel",  # the discriminator, whose head is not used
}
FIXED_NUM_LABELS = {models.BertForMultipleChoice: 1, models.BertForQuestionAnswering: 2}
TRUNK = ("embeddings", "encoder", "final_norm")
HEADS = ("masked_lm", "next_sentence", "pre_classifier", "summary", "classifier", "span")


def model_class(name: str) -> type[Bert]:
    """Returns the model class of this name.

    Raises:
        ValueError: there is none.
    """
    model = known_model(name)
    if model is None:
        raise ValueError(f"there is no model {name!r:.200}; there are {', '.join(MODELS)}")
    return model


def known_model(name: str | None, model_type: str | None = None) -> type[Bert] | None:
    """Returns the model class of this name, or None if there is none, such as a user's own class.

    Args:
        model_type: the family whose names are known; default: all.
    """
    if name == "Bert":
        return Bert
    name = SAME_MODEL.get(name or "", name or "")
    for family in FAMILIES.values() if model_type is None else (FAMILIES[model_type], FAMILIES["bert"]):
        if name.startswith(f"{family.class_prefix}For") or name == f"{family.class_prefix}Model":
            return MODELS.get(f"Bert{name.removeprefix(family.class_prefix)}")
    return None


def architecture(model: type[Bert], model_type: str = "bert") -> str:
    """Returns the name of the model in `architectures` of a config.json."""
    kind = "Model" if model is Bert else model.__name__.removeprefix("Bert")
    return f"{FAMILIES[model_type].class_prefix}{kind}"


def parts_of(model: type[Bert], config: BertConfig) -> set[str]:
    """Returns the names of the model's parts.

    Raises:
        ValueError: the config's family has no such model.
    """
    return {"embeddings", "encoder", *model.parts_above(config)}


def usable_parts(parts: Collection[str], required: Collection[str], model_type: str) -> set[str]:
    """Returns the parts of a file without a classifier that has another name in the model that requires some.

    The classifier of sequences of RoBERTa and ELECTRA is `classifier.out_proj`, that of tokens is `classifier`.
    """
    two_names = "classifier.out_proj" in NAMES[model_type].modules
    if two_names and ("pre_classifier" in parts) != ("pre_classifier" in required):
        return {*parts} - {"classifier"}
    return {*parts}


def detect_model(parts: Collection[str], model_type: str = "bert") -> type[Bert]:
    """Returns the model whose head is among the parts of a file; a pooler alone is not a head.

    The classifiers of ModernBERT all have the same tensors: without a name they are those of sequences.
    """
    family = FAMILIES[model_type]
    if "masked_lm" in parts:
        return models.BertForPreTraining if "next_sentence" in parts else models.BertForMaskedLM
    if "next_sentence" in parts:
        return models.BertForNextSentencePrediction
    if "summary" in parts:
        return models.BertForMultipleChoice
    if "classifier" in parts:
        is_sequence = family.sequence_layer in parts
        return models.BertForSequenceClassification if is_sequence else models.BertForTokenClassification
    if "prediction_head" in parts:  # a decoder without a bias
        return models.BertForMaskedLM
    return models.BertForQuestionAnswering if "span" in parts else Bert


def check_new_size(new: Mapping[str, tuple[int, ...]], loaded: Any) -> None:
    """Raises ValueError if the new leaves, by shape, have more parameters than were loaded from the file.

    A config.json of a few bytes can claim 10^12 labels; without this check their classifier would be allocated.
    """
    required = sum(map(math.prod, new.values()))
    found = sum(leaf.size for leaf in jax.tree.leaves(loaded))
    if required > found:
        raise ValueError(
            f"the config's number of labels requires {required:,} new parameters, the whole file has {found:,}; "
            "correct the config, or give `label_names` to `bert_jax.load`"
        )


def init_parts(config: BertConfig, parts: Collection[str], dtype: str, seed: int) -> dict[str, Any]:
    """Returns newly initialized parameters for parts of the model."""
    keys = jax.random.split(jax.random.key(seed), len(parts))
    params = {
        part: ModelPart(config, name=part).init(key, method=lambda module: module.weights)["params"]
        for part, key in zip(sorted(parts), keys, strict=True)
    }
    return jax.tree.map(lambda leaf: leaf.astype(dtype), params)


def adapt_config(config: BertConfig, model: type[Bert], **changes: Any) -> BertConfig:
    """Returns the config with `changes`, and with the number of labels that the model and `label_names` require.

    Raises:
        ValueError: a change that is not a field of the config, or an impossible value.
    """
    if unknown := changes.keys() - {field.name for field in fields(BertConfig)}:
        raise ValueError(f"{min(unknown)} is not a field of the config")
    if changes.get("label_names"):
        changes["label_names"] = tuple(changes["label_names"])
        changes["num_labels"] = len(changes["label_names"])
    elif changes.get("num_labels", config.num_labels) != config.num_labels:
        changes["label_names"] = None  # the old names do not fit another number of labels
    if model in FIXED_NUM_LABELS:
        changes |= {"num_labels": FIXED_NUM_LABELS[model], "label_names": None}
    if changes.get("num_labels", config.num_labels) != config.num_labels or changes.get("problem_type"):
        changes["activation_fn"] = None  # another head, or another loss
    if "span" not in model.heads:
        changes["null_threshold"] = None
    return replace(config, **changes)
