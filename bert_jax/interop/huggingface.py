"""A folder as Hugging Face lays it out: its config.json read, and config.json with model.safetensors written.

transformers loads what is written with no key missing and none unexpected: layers are numbered, kernels lie outputs
first, and the decoder, which is tied, is left to be tied.
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
from bert_jax.functional.embeddings import sinusoidal_positions
from bert_jax.interop.assembly import to_state_dict
from bert_jax.interop.formats.tensors import one_line
from bert_jax.interop.formats.weights import blame, read_json
from bert_jax.interop.heads import adapt_config, architecture
from bert_jax.models import Bert


def read_config(folder: str | Path) -> tuple[BertConfig, str | None]:
    """Reads config.json: the sizes, and the name of the model, if it has one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it describes no BERT.
    """
    path = Path(folder) / "config.json"
    values = read_json(path)
    with blame(path, TypeError, AttributeError, LookupError, OverflowError):
        config, names = BertConfig.from_dict(values), values.get("architectures")
        if all(name == f"LABEL_{index}" for index, name in enumerate(config.label_names or ())):
            config = replace(config, label_names=None)  # transformers makes them up where there are none
        return config, str(names[0]) if names else None


def write_model(folder: str | Path, model: Bert, params: Mapping[str, Any], *, dtype: str | None = None) -> None:
    """Writes config.json and model.safetensors, in `dtype` or that of the parameters.

    Sinusoidal positions, which transformers does not know, are written as the table that they amount to.

    Raises:
        OSError: it cannot be written, as on a full disk.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    config = model.config
    if config.position_embedding_type == "sinusoidal":
        config = replace(config, position_embedding_type="absolute")
        positions = jnp.arange(config.max_position_embeddings)[None, :]
        kind = params["embeddings"]["word"]["embedding"].dtype
        table = sinusoidal_positions(positions, config.hidden_size, jnp.float32)[0].astype(kind)
        params = {**params, "embeddings": {**params["embeddings"], "position": {"embedding": table}}}
    tensors = to_state_dict(params, prefix=type(model) is not Bert, dtype=dtype)
    write_config(folder, type(model), config, dtype=next(iter(tensors.values())).dtype.name)
    unfinished = folder / "model.safetensors.part"
    try:
        save_file(tensors, unfinished, metadata={"format": "pt"})
    except SafetensorError as error:  # which is how the library says it
        unfinished.unlink(missing_ok=True)
        raise OSError(f"{folder / 'model.safetensors'}: not written ({one_line(error)})") from None
    shutil.copymode(folder / "config.json", unfinished)  # the library makes files that only their owner reads
    unfinished.replace(folder / "model.safetensors")


def write_config(folder: str | Path, model: type[Bert], config: BertConfig, *, dtype: str | None = None) -> None:
    """Writes config.json with the name of the model in it; `dtype` is that of the weights beside it."""
    values = {"architectures": [architecture(model)], **adapt_config(config, model).to_dict()}
    if dtype is not None:
        values["dtype"] = dtype
    (Path(folder) / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")
