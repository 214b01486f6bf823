"""Which model a checkpoint is: by what its config says, by what its file holds, or by what was asked for.

Models carry Hugging Face's names; only `Bert` is called `BertModel` there.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import fields, replace
from typing import Any

import jax

from bert_jax import models
from bert_jax.config import BertConfig
from bert_jax.models import Bert
from bert_jax.models.bert import ModelPart

MODELS: dict[str, type[Bert]] = {
    "BertModel": models.Bert,
    **{name: getattr(models, name) for name in models.__all__ if name.startswith("BertFor")},
}
SCORES = {models.BertForMultipleChoice: 1, models.BertForQuestionAnswering: 2}  # whatever num_labels says
TRUNK = ("embeddings", "encoder")
HEADS = ("masked_lm", "next_sentence", "classifier", "span")


def model_class(name: str) -> type[Bert]:
    """Returns the model of this name.

    Raises:
        ValueError: there is none.
    """
    if name not in MODELS and name != "Bert":
        raise ValueError(f"there is no model {name!r:.200}; there are {', '.join(MODELS)}")
    return MODELS.get(name, Bert)


def architecture(model: type[Bert]) -> str:
    """Returns what a config.json calls the model."""
    return "BertModel" if model is Bert else model.__name__


def parts_of(model: type[Bert]) -> set[str]:
    """Returns the parts of the tree that the model consists of."""
    return {*TRUNK, *model.heads}


def detect_model(parts: Collection[str]) -> type[Bert]:
    """Returns the model whose head is what a file holds; a pooler alone is no head."""
    if "masked_lm" in parts:
        return models.BertForPreTraining if "next_sentence" in parts else models.BertForMaskedLM
    if "next_sentence" in parts:
        return models.BertForNextSentencePrediction
    if "classifier" in parts:
        return models.BertForSequenceClassification if "pooler" in parts else models.BertForTokenClassification
    return models.BertForQuestionAnswering if "span" in parts else Bert


def require_modest(new: Mapping[str, tuple[int, ...]], read: Any) -> None:
    """Raises ValueError where a config alone asks for more new parameters, by shape, than were read from a file."""
    asked, found = sum(map(math.prod, new.values())), sum(leaf.size for leaf in jax.tree.leaves(read))
    if asked > found:
        raise ValueError(f"the config asks for {asked:,} new parameters, the file holds {found:,}; give label_names")


def init_parts(config: BertConfig, parts: Collection[str], dtype: str, seed: int) -> dict[str, Any]:
    """Returns new parameters for parts of the tree, drawn from a seed."""
    keys = jax.random.split(jax.random.key(seed), len(parts))
    drawn = {
        part: ModelPart(config, name=part).init(key, method=lambda module: module.weights)["params"]
        for part, key in zip(sorted(parts), keys, strict=True)
    }
    return jax.tree.map(lambda leaf: leaf.astype(dtype), drawn)


def adapt_config(config: BertConfig, model: type[Bert], **changes: Any) -> BertConfig:
    """Returns the config with `changes`, made consistent: labels are counted, as many as the model has scores.

    Raises:
        ValueError: a change that names no field, or gives it an impossible value.
    """
    if unknown := changes.keys() - {field.name for field in fields(BertConfig)}:
        raise ValueError(f"{min(unknown)} is not a field of the config")
    if changes.get("label_names"):
        changes["label_names"] = tuple(changes["label_names"])
        changes["num_labels"] = len(changes["label_names"])
    elif changes.get("num_labels", config.num_labels) != config.num_labels:
        changes["label_names"] = None
    if model in SCORES:
        changes |= {"num_labels": SCORES[model], "label_names": None}
    if "span" not in model.heads:
        changes["null_threshold"] = None
    return replace(config, **changes)
