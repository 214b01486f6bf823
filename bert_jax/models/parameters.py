"""The parameter tree, declared once: every leaf's name, logical axes and initial values.

Sizes follow from the axes and the config, shardings from the axes and a mesh, checkpoints from the names. Each model
takes the parts of the table it consists of. `layers` is a leading axis, so a kernel of the encoder has three
dimensions and a bias two: nothing may be decided by counting dimensions, only by name.

What is pretrained starts as the original has it, from a normal distribution of `initializer_range` that is cut at two
deviations, and so is 12 % narrower than it says. Heads of fine-tuning start from a whole one, as transformers has it
(benchmarks/RESULTS.md says what that changed).

References: Devlin et al., BERT, 2018, appendix A.2; google-research/bert `modeling.py` (truncated normal, 0.02).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import linen as nn

from bert_jax.config import BertConfig


class Parameter(NamedTuple):
    """One leaf: its logical axes, and how it starts: the initializer for an `initializer_range`."""

    axes: tuple[str, ...]
    initializer: Callable[[float], Callable] = nn.initializers.truncated_normal


def zeros(_: float) -> Callable:
    """Starts a leaf with zeros, whatever the range."""
    return nn.initializers.zeros


def ones(_: float) -> Callable:
    """Starts a leaf with ones, whatever the range."""
    return nn.initializers.ones


def dense(*axes: str, kernel: Callable[[float], Callable] = nn.initializers.truncated_normal) -> dict[str, Parameter]:
    """A kernel over `axes`, inputs before outputs, and a bias without the inputs; axes before those two are stacked."""
    return {"kernel": Parameter(axes, kernel), "bias": Parameter((*axes[:-2], axes[-1]), zeros)}


def norm(*axes: str) -> dict[str, Parameter]:
    """The scale and bias of a layer normalisation."""
    return {"scale": Parameter(axes, ones), "bias": Parameter(axes, zeros)}


def low_rank(layers: str, inputs: str, outputs: str) -> dict[str, Parameter]:
    """The two thin matrices beside a stacked kernel: a starts as LoRA has it, b at zero."""
    uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform", in_axis=-2, out_axis=-1, batch_axis=(0,))
    return {
        "a": Parameter((layers, inputs, "rank"), lambda _: uniform),
        "b": Parameter((layers, "rank", outputs), zeros),
    }


PARAMETERS: dict[str, dict[str, Any]] = {
    "embeddings": {
        "word": {"embedding": Parameter(("vocabulary", "hidden"))},
        "position": {"embedding": Parameter(("positions", "hidden"))},
        "token_type": {"embedding": Parameter(("token_types", "hidden"))},
        "norm": norm("hidden"),
    },
    "encoder": {
        "attention": {
            "query": dense("layers", "hidden", "heads"),
            "key": dense("layers", "hidden", "heads"),
            "value": dense("layers", "hidden", "heads"),
            "output": dense("layers", "heads", "hidden"),
            "norm": norm("layers", "hidden"),
        },
        "feed_forward": {
            "up": dense("layers", "hidden", "inner"),
            "down": dense("layers", "inner", "hidden"),
            "norm": norm("layers", "hidden"),
        },
    },
    "pooler": dense("hidden", "pooled"),
    "masked_lm": {
        "transform": dense("hidden", "transformed"),
        "norm": norm("transformed"),
        "bias": Parameter(("vocabulary",), zeros),
    },
    "next_sentence": dense("hidden", "next_sentence"),
    "classifier": dense("hidden", "labels", kernel=nn.initializers.normal),
    "span": dense("hidden", "span", kernel=nn.initializers.normal),
}
PARAMETERS["adapters"] = {
    "encoder": {
        block: {
            name: low_rank(*entry["kernel"].axes)
            for name, entry in PARAMETERS["encoder"][block].items()
            if name != "norm"
        }
        for block in PARAMETERS["encoder"]
    }
}


def axis_sizes(config: BertConfig) -> dict[str, int]:
    """Returns the length of each logical axis. `heads` is all heads side by side, num_attention_heads x head size."""
    D = config.hidden_size
    return {
        "vocabulary": config.vocab_size,
        "positions": config.max_position_embeddings,
        "token_types": config.type_vocab_size,
        "layers": config.num_hidden_layers,
        "inner": config.intermediate_size,
        "labels": config.num_labels,
        "next_sentence": 2,
        "span": 2,
        "rank": config.lora_rank,
        **dict.fromkeys(("hidden", "heads", "pooled", "transformed"), D),
    }


def logical_axes(tree) -> Any:
    """Returns `tree` with each leaf replaced by the tuple of its logical axes.

    The tree may be the parameters or hold trees of the same names, as an optimizer's state does: the dict keys on a
    leaf's path name it. A leaf under no dict key is no parameter and has no axes.

    Raises:
        KeyError: a leaf that the table does not know, by its path.
    """

    def axes(path, _leaf):
        entry: Any = PARAMETERS
        keys = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        for key in keys:
            if not isinstance(entry, dict) or key not in entry:
                raise KeyError(f"no parameter of BERT is called {'/'.join(map(str, keys))}")
            entry = entry[key]
        return entry.axes if keys else ()

    return jax.tree_util.tree_map_with_path(axes, tree)


def declare(module: nn.Module, part: str, config: BertConfig) -> dict[str, Any]:
    """Declares a part of the table as parameters of `module` and returns its subtree."""
    sizes = axis_sizes(config)
    dtype = "float64" if config.dtype == "float64" else "float32"

    def initialise(key, entry):
        if isinstance(entry, Parameter):
            start = entry.initializer(config.initializer_range)
            return start(key, tuple(sizes[axis] for axis in entry.axes), dtype)
        keys = jax.random.split(key, len(entry))
        return {name: initialise(key, child) for key, (name, child) in zip(keys, entry.items(), strict=True)}

    entries = PARAMETERS[part]
    if part == "embeddings" and config.position_embedding_type == "sinusoidal":
        entries = {name: entry for name, entry in entries.items() if name != "position"}
    return {name: module.param(name, initialise, entry) for name, entry in entries.items()}
