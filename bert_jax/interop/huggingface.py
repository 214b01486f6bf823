"""Hugging Face's folder layout: reads config.json, writes config.json and model.safetensors.

transformers loads what is written without missing or unexpected keys: layers are numbered, kernels have their outputs
first, and the tied decoder is omitted.
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
from safetensors import SafetensorError
from safetensors.numpy import save_file

from bert_jax.config import BertConfig
from bert_jax.files import replaced, write_file
from bert_jax.functional.embeddings import sinusoidal_positions
from bert_jax.interop.assembly import to_state_dict
from bert_jax.interop.formats.weights import name_file_in_errors, read_json
from bert_jax.interop.heads import adapt_config, architecture
from bert_jax.messages import first_line
from bert_jax.models import Bert


def read_config(folder: str | Path) -> tuple[BertConfig, str | None]:
    """Returns the config in config.json, and the name of the model's class if there is one.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is not the config of a supported family.
    """
    path = Path(folder) / "config.json"
    values = read_json(path)
    with name_file_in_errors(path, TypeError, AttributeError, LookupError, OverflowError):
        config = BertConfig.from_dict(values)
        if all(name == f"LABEL_{index}" for index, name in enumerate(config.label_names or ())):
            config = replace(config, label_names=None)  # transformers writes these where there are no names
        architectures = values.get("architectures") or [None]
        if not isinstance(architectures, list) or not isinstance(architectures[0], str | None):
            raise ValueError(f"architectures must be a list of names of classes, got {architectures!r:.60}")
        return config, architectures[0]


def is_untied(folder: str | Path) -> bool:
    """Returns whether config.json says that the masked-LM decoder is another matrix than the word embedding."""
    return read_json(Path(folder) / "config.json").get("tie_word_embeddings") is False


def write_model(folder: str | Path, model: Bert, params: Mapping[str, Any], *, dtype: str | None = None) -> None:
    """Writes config.json and model.safetensors, in `dtype` or that of the parameters.

    Sinusoidal positions, which transformers does not have, are written as a table of learned positions.

    Raises:
        OSError: the file cannot be written, for example because the disk is full.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    if config.position_embedding_type == "sinusoidal":
        config = replace(config, position_embedding_type="absolute")
        positions = jnp.arange(config.max_position_embeddings)[None, :]
        word = params["embeddings"]["word"]["embedding"]
        table = sinusoidal_positions(positions, word.shape[-1], jnp.float32)[0].astype(word.dtype)  # [positions, E]
        params = {**params, "embeddings": {**params["embeddings"], "position": {"embedding": table}}}
    tensors = to_state_dict(params, prefix=type(model) is not Bert, dtype=dtype, model_type=config.model_type)
    write_config(folder, type(model), config, dtype=next(iter(tensors.values())).dtype.name)
    try:
        with replaced(folder / "model.safetensors") as part:
            save_file(tensors, part, metadata={"format": "pt"})
            shutil.copymode(folder / "config.json", part)  # safetensors creates files that only their owner can read
    except SafetensorError as error:  # safetensors' exception for a failed write
        raise OSError(f"{folder / 'model.safetensors'}: not written ({first_line(error)})") from None


def write_config(folder: str | Path, model: type[Bert], config: BertConfig, *, dtype: str | None = None) -> None:
    """Writes config.json with the name of the model; `dtype` is that of the weights in the folder."""
    values = {"architectures": [architecture(model, config.model_type)], **adapt_config(config, model).to_dict()}
    if dtype is not None:
        values["dtype"] = dtype
    write_file(Path(folder) / "config.json", json.dumps(values, indent=2) + "\n")
