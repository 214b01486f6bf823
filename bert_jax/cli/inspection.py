"""A description of a checkpoint, made without reading its weights."""

import json
import math
from collections.abc import Collection
from typing import Any

from bert_jax.config import BertConfig
from bert_jax.interop import huggingface
from bert_jax.interop.assembly import index_tensors
from bert_jax.interop.checkpoint_reader import CheckpointReader
from bert_jax.interop.formats.weights import open_weights
from bert_jax.interop.heads import MODELS, adapt_config, architecture, detect_model, known_model, parts_of, usable_parts
from bert_jax.interop.loading import CHECKPOINTS, locate, read_vocabulary
from bert_jax.models import Bert
from bert_jax.text.tokenizer import Tokenizer


def inspect(source: str) -> dict[str, Any]:
    """Returns what a folder has, without reading its weights.

    The keys are `source`; `model`, the class; `family`; `tokenizer`, its kind, size and special tokens, or None;
    `config`; `parameters`, by part and in total; and `heads`, the classes that can load it.

    Raises:
        FileNotFoundError, ValueError: those of `bert_jax.load`.
    """
    folder = locate(source)
    config, named = huggingface.read_config(folder)
    counts: dict[str, int] = {}
    if (folder / CHECKPOINTS).is_dir():
        for path, shape in CheckpointReader(folder / CHECKPOINTS).shapes.items():
            part = path.split("/")[0]
            counts[part] = counts.get(part, 0) + math.prod(shape)
    else:
        for tensor in index_tensors(open_weights(folder), config.model_type).slots.values():
            counts[tensor.location.part] = counts.get(tensor.location.part, 0) + math.prod(tensor.shape)
    return {
        "source": str(folder),
        "model": architecture(
            known_model(named, config.model_type) or detect_model(counts, config.model_type), config.model_type
        ),
        "family": config.family.title,
        "tokenizer": describe_tokenizer(read_vocabulary(folder, config)),
        "config": config.to_dict(),
        "parameters": {**counts, "total": sum(counts.values())},
        "heads": [
            architecture(model, config.model_type) for model in MODELS.values() if loads_as(model, config, counts)
        ],
    }


def describe_tokenizer(tokenizer: Tokenizer | None) -> dict[str, Any] | None:
    """Returns `kind`, `size`, `special_tokens` by role and `max_length` of a tokenizer; None for none."""
    if tokenizer is None:
        return None
    return {
        "kind": tokenizer.kind,
        "size": tokenizer.vocab_size,
        "special_tokens": tokenizer.roles,
        "max_length": tokenizer.max_length,
    }


def loads_as(model: type[Bert], config: BertConfig, parts: Collection[str]) -> bool:
    """Returns whether the parts of a file are all that the model needs, and its classifier has the right size."""
    if "next_sentence" in model.heads and not config.family.has_next_sentence:
        return False
    same_scores = "classifier" not in model.heads or adapt_config(config, model).num_labels == config.num_labels
    required = parts_of(model, config)
    return required <= usable_parts(parts, required, config.model_type) and same_scores


def report(found: dict[str, Any]) -> str:
    """Returns the result of `inspect` as text."""
    lines = [f"{found['model']} in {found['source']}", "", f"family      {found['family']}"]
    tokenizer = found["tokenizer"]
    if tokenizer is None:
        lines += ["tokenizer   none", "", "config"]
    else:
        special = ", ".join(f"{role} {token}" for role, token in tokenizer["special_tokens"].items())
        length = "" if tokenizer["max_length"] is None else f", rows of up to {tokenizer['max_length']:,}"
        lines += [f"tokenizer   {tokenizer['kind']}, {tokenizer['size']:,} tokens ({special}){length}", "", "config"]
    lines += [f"  {name:<30} {json.dumps(value, ensure_ascii=False)}" for name, value in found["config"].items()]
    lines += ["", "parameters"]
    lines += [f"  {name:<15} {count:>15,}" for name, count in found["parameters"].items()]
    return "\n".join([*lines, "", "loads as " + ", ".join(found["heads"])])
