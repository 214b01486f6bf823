"""`bert_jax.load`: from a run's folder to a model that answers from Python."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from bert_jax import models
from bert_jax.config import BertConfig
from bert_jax.models import Bert, Outputs
from bert_jax.tokenization import Tokenizer
from bert_jax.training.checkpoints import restore_params

IDS = ("input_ids", "token_type_ids", "position_ids", "masked_positions", "cls_positions")


@dataclass(frozen=True)
class LoadedBert:
    """A model with its parameters and tokenizer; called on arrays, it runs jitted.

    Attributes:
        model: the Flax module.
        params: the parameter tree.
        tokenizer: texts to ids and back.
    """

    model: Bert
    params: Mapping[str, Any]
    tokenizer: Tokenizer

    @property
    def config(self) -> BertConfig:
        return self.model.config

    def __call__(
        self,
        input_ids: Any,
        *,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        **inputs: Any,
    ) -> Outputs:
        """Runs the forward pass, without dropout; compiled once a shape.

        Args:
            input_ids: int [B, T].
            **inputs: `attention_mask`, `token_type_ids`, `position_ids`, `masked_positions`, `cls_positions`: what the
                model takes, as arrays or nested lists.

        Returns:
            The model's named outputs, see `Bert.__call__`.

        Raises:
            ValueError: an id outside its table, or rows longer than the table of positions.
        """
        arrays = {"input_ids": input_ids} | {name: array for name, array in inputs.items() if array is not None}
        arrays = {name: self.checked(name, array) for name, array in arrays.items()}
        return self.compiled(self.params, arrays, output_hidden_states, output_attentions)

    @cached_property
    def compiled(self) -> Any:
        """The jitted forward pass."""

        def forward(params, arrays, output_hidden_states, output_attentions):
            return self.model.apply(
                {"params": params},
                **arrays,
                output_hidden_states=output_hidden_states,
                output_attentions=output_attentions,
            )

        return jax.jit(forward, static_argnums=(2, 3))

    def checked(self, name: str, array: Any) -> Any:
        """Returns `array` as int32, once its values are known to lie within their table."""
        values = np.asarray(array)
        if not np.issubdtype(values.dtype, np.integer) and values.dtype != bool:
            raise ValueError(f"{name} must hold whole numbers, got {values.dtype}")
        limits = {
            "input_ids": self.config.vocab_size,
            "token_type_ids": self.config.type_vocab_size,
            "position_ids": self.config.max_position_embeddings,
        }
        limit = limits.get(name)
        if limit and values.size and not (values.min() >= 0 and values.max() < limit):
            worst = values.max() if values.max() >= limit else values.min()
            raise ValueError(f"{name} holds {worst}; it must lie between 0 and {limit - 1}")
        return jnp.asarray(values, jnp.int32)


def load(source: str | Path, *, head: str | None = None) -> LoadedBert:
    """Loads the newest checkpoint of a run.

    Args:
        source: the run's folder.
        head: the name of another model than the one that was trained, `Bert` for one; its parts must have been trained.

    Raises:
        FileNotFoundError: no such folder, or no run in it.
        ValueError: an unknown `head`, or one that the run did not train.
    """
    folder = Path(source)
    if not (folder / "config.json").is_file():
        raise FileNotFoundError(f"{source}: no config.json here; wanted the folder of a run")
    config = BertConfig.load(folder / "config.json")
    trained = architecture(folder)
    wanted = head or trained
    known = [name for name in models.__all__ if name.startswith("Bert")]
    for name in (wanted, trained):
        if name not in known:
            raise ValueError(f"{source}: there is no model {name!r}; there are {', '.join(known)}")
    missing = set(getattr(models, wanted).heads) - set(getattr(models, trained).heads)
    if missing:
        raise ValueError(f"{source}: {wanted} needs {', '.join(sorted(missing))}, which {trained} does not have")
    model = getattr(models, wanted)(config)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 1), jnp.int32))["params"]
    params = restore_params(folder / "checkpoints", shapes)
    return LoadedBert(model, params, Tokenizer.load(folder))


def save_config(folder: str | Path, model: Bert) -> None:
    """Writes `config.json` with the name of the model in it."""
    values = {"architectures": [type(model).__name__], **model.config.to_dict()}
    (Path(folder) / "config.json").write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def architecture(folder: str | Path) -> str:
    """Returns the name of the model that a `config.json` speaks of; `Bert` when it names none."""
    names = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8")).get("architectures")
    return names[0] if names else "Bert"
