"""The forward pass and its weights as one portable file of StableHLO, which runs without this package.

>>> from jax import export
>>> exported = export.deserialize(open("bert.stablehlo", "rb").read())  # doctest: +SKIP
>>> exported.call(input_ids, attention_mask, token_type_ids)["last_hidden_state"]  # doctest: +SKIP

The number of rows and their length are symbolic, so one file serves every shape. JAX guarantees to read such a file for
at least six months, on every platform it was lowered for. Other compilers can read the StableHLO module inside.

References: JAX documentation, Exporting and serializing staged-out computations.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jax import export as jax_export

from bert_jax.files import write_file
from bert_jax.models import Bert, BertForMultipleChoice


def export_model(path: str | Path, model: Bert, params: Mapping[str, Any], *, platforms: Sequence[str]) -> None:
    """Writes the forward pass, without dropout, for these JAX platforms.

    The exported function takes `input_ids`, `attention_mask` and `token_type_ids`, int32 [B, T], and returns the dict
    of the model's outputs.

    Raises:
        ValueError: a model whose inputs are not [B, T].
    """
    if isinstance(model, BertForMultipleChoice):
        raise ValueError("BertForMultipleChoice cannot be exported: its inputs are [B, C, T]")
    params = jax.tree.map(jnp.asarray, params)

    def forward(input_ids: jax.Array, attention_mask: jax.Array, token_type_ids: jax.Array) -> dict[str, jax.Array]:
        outputs: Any = model.apply({"params": params}, input_ids, attention_mask, token_type_ids)
        return dict(outputs)  # a plain dict, because the file cannot contain our `Outputs` class

    limits = ["T >= 1", f"T <= {model.config.max_length}"]
    shape = jax_export.symbolic_shape("B, T", constraints=limits)
    rows = jax.ShapeDtypeStruct(shape, jnp.int32)
    exported = jax_export.export(jax.jit(forward), platforms=platforms)(rows, rows, rows)
    write_file(path, bytes(exported.serialize()))
