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
from bert_jax.interop.heads import MODELS, adapt_config, architecture, detect_model, known_model, parts_of
from bert_jax.interop.loading import CHECKPOINTS, locate
from bert_jax.models import Bert


def inspect(source: str) -> dict[str, Any]:
    """Returns `source`, `model`, `config`, `parameters` by part and in total, and `heads`: classes that can load it.

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
        "config": config.to_dict(),
        "parameters": {**counts, "total": sum(counts.values())},
        "heads": [
            architecture(model, config.model_type) for model in MODELS.values() if loads_as(model, config, counts)
        ],
    }


def loads_as(model: type[Bert], config: BertConfig, parts: Collection[str]) -> bool:
    """Returns whether the parts of a file are all that the model needs, and its classifier has the right size."""
    if "next_sentence" in model.heads and not config.family.has_next_sentence:
        return False
    same_scores = "classifier" not in model.heads or adapt_config(config, model).num_labels == config.num_labels
    return parts_of(model, config) <= set(parts) and same_scores


def report(found: dict[str, Any]) -> str:
    """Returns the result of `inspect` as text."""
    lines = [f"{found['model']} in {found['source']}", ""]
    lines += [f"  {name:<30} {json.dumps(value, ensure_ascii=False)}" for name, value in found["config"].items()]
    lines += ["", "parameters"]
    lines += [f"  {name:<15} {count:>15,}" for name, count in found["parameters"].items()]
    return "\n".join([*lines, "", "loads as " + ", ".join(found["heads"])])
