"""The parameter table: every leaf's name, logical axes and initial values, each declared once.

Shapes follow from the axes and the config, shardings from the axes and a mesh, checkpoints from the names. The table's
top-level entries are the parts of the model: `embeddings`, `encoder`, `pooler` and the heads. A model has some of them.

`layers` is a leading axis of every leaf of the encoder: its kernels have three dimensions and its biases two, as have
kernels elsewhere. So nothing may be decided by the number of dimensions, only by name.

Pretrained parts are initialized like the original, from a normal distribution of `initializer_range` truncated at two
standard deviations (its actual standard deviation is 12 % smaller). Heads for fine-tuning use the full normal
distribution, like transformers; benchmarks/RESULTS.md says what difference that makes. In ModernBERT, kernels whose
result is added to the hidden states start smaller, by sqrt(2 L), so that the sum over L layers does not grow.

References: Devlin et al., BERT, 2018, appendix A.2; google-research/bert `modeling.py` (truncated normal, 0.02).
Shoeybi et al., Megatron-LM, 2019, section 5.1 (division by sqrt(2 L)).
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
from flax import linen as nn

from bert_jax.config import BertConfig

Initializer = Callable[[float], Callable]  # from a standard deviation to an initializer of Flax


class Parameter(NamedTuple):
    """A leaf of the table.

    Attributes:
        axes: its logical axes.
        initializer: of its values.
        modern: what their standard deviation is in ModernBERT: `in` = initializer_range, as in all other families;
            `out` = initializer_range / sqrt(2 L); `final` = 1 / sqrt(D).
    """

    axes: tuple[str, ...]
    initializer: Initializer = nn.initializers.truncated_normal
    modern: str = "in"


def _zeros(_: float) -> Callable:
    return nn.initializers.zeros


def _ones(_: float) -> Callable:
    return nn.initializers.ones


def _dense(
    *axes: str, kernel: Initializer = nn.initializers.truncated_normal, modern: str = "in"
) -> dict[str, Parameter]:
    """Returns a kernel over `axes`, of which the last two are inputs and outputs, and a bias without the inputs."""
    return {"kernel": Parameter(axes, kernel, modern), "bias": Parameter((*axes[:-2], axes[-1]), _zeros)}


def _norm(*axes: str) -> dict[str, Parameter]:
    """Returns the scale and bias of a layer normalization."""
    return {"scale": Parameter(axes, _ones), "bias": Parameter(axes, _zeros)}


def _low_rank(layers: str, inputs: str, outputs: str) -> dict[str, Parameter]:
    """Returns the LoRA factors of a stacked kernel; a is initialized as in LoRA, b with zeros."""
    # Kaiming uniform with a = sqrt(5), the default of torch.nn.Linear that LoRA uses: variance 1 / (3 fan_in).
    uniform = nn.initializers.variance_scaling(1 / 3, "fan_in", "uniform", in_axis=-2, out_axis=-1, batch_axis=(0,))
    return {
        "a": Parameter((layers, inputs, "rank"), lambda _: uniform),
        "b": Parameter((layers, "rank", outputs), _zeros),
    }


PARAMETERS: dict[str, dict[str, Any]] = {
    "embeddings": {
        "word": {"embedding": Parameter(("vocabulary", "embedding"))},
        "position": {"embedding": Parameter(("positions", "embedding"))},
        "token_type": {"embedding": Parameter(("token_types", "embedding"))},
        "norm": _norm("embedding"),
        "projection": _dense("projected", "hidden"),  # of ELECTRA
    },
    "encoder": {
        "attention": {
            "query": _dense("layers", "hidden", "heads"),
            "key": _dense("layers", "hidden", "heads"),
            "value": _dense("layers", "hidden", "heads"),
            "output": _dense("layers", "heads", "hidden", modern="out"),
            "norm": _norm("layers", "hidden"),
        },
        "feed_forward": {
            "up": _dense("layers", "hidden", "inner"),
            "gate": _dense("layers", "hidden", "inner"),  # of ModernBERT
            "down": _dense("layers", "inner", "hidden", modern="out"),
            "norm": _norm("layers", "hidden"),
        },
    },
    "final_norm": _norm("hidden"),  # of ModernBERT, whose layers do not end with a norm
    "pooler": _dense("hidden", "pooled"),
    "masked_lm": {
        "transform": _dense("hidden", "transformed"),
        "norm": _norm("transformed"),
        "bias": Parameter(("vocabulary",), _zeros),  # the decoder's kernel is the word embedding
    },
    "next_sentence": _dense("hidden", "next_sentence"),
    # Before the classifier in other families than BERT, in the pooler's place; `summary`: multiple choice with ELECTRA.
    # ModernBERT has one layer for all heads, the masked-LM head's transform and norm included.
    "prediction_head": {"transform": _dense("hidden", "transformed", modern="out"), "norm": _norm("transformed")},
    "pre_classifier": _dense("hidden", "pooled", kernel=nn.initializers.normal),
    "summary": _dense("hidden", "pooled", kernel=nn.initializers.normal),
    "classifier": _dense("hidden", "labels", kernel=nn.initializers.normal, modern="final"),
    "span": _dense("hidden", "span", kernel=nn.initializers.normal),
}
# LoRA: an adapter for every kernel of the encoder, with the same path below `adapters`.
PARAMETERS["adapters"] = {
    "encoder": {
        block: {
            name: _low_rank(*entry["kernel"].axes)
            for name, entry in PARAMETERS["encoder"][block].items()
            if name != "norm"
        }
        for block in PARAMETERS["encoder"]
    }
}


BIASES = {  # field of ModernBERT's config: the entries that have a bias if it is true
    "norm_bias": ("embeddings/norm", "encoder/attention/norm", "encoder/feed_forward/norm", "final_norm",
                  "prediction_head/norm"),
    "attention_bias": tuple(f"encoder/attention/{name}" for name in ("query", "key", "value", "output")),
    "mlp_bias": tuple(f"encoder/feed_forward/{name}" for name in ("up", "gate", "down")),
    "classifier_bias": ("prediction_head/transform",),
    "decoder_bias": ("masked_lm",),
}  # fmt: skip


def axis_sizes(config: BertConfig) -> dict[str, int]:
    """Returns the size of each logical axis."""
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
        # Axes of equal size are distinguished because they are sharded differently. `heads` is all heads, N * H.
        **dict.fromkeys(("hidden", "heads", "pooled"), config.hidden_size),
        **dict.fromkeys(("embedding", "projected", "transformed"), config.embedding_size or config.hidden_size),
    }


def entries_of(part: str, config: BertConfig) -> dict[str, Any]:
    """Returns the table's entries of a part of the model, without those that this model does not have."""
    absent = _absent(config)

    def present(entries: dict[str, Any], path: str) -> dict[str, Any]:
        paths = {name: f"{path}/{name}" for name in entries if f"{path}/{name}".removeprefix("adapters/") not in absent}
        return {
            name: entries[name] if isinstance(entries[name], Parameter) else present(entries[name], below)
            for name, below in paths.items()
        }

    return present(PARAMETERS[part], part)


def _absent(config: BertConfig) -> set[str]:
    """Returns the paths of the table's entries that this model does not have."""
    absent = set()
    if config.family.is_modern or config.position_embedding_type == "sinusoidal":
        absent.add("embeddings/position")
    if not config.family.has_token_types:
        absent.add("embeddings/token_type")
    if config.embedding_size in (None, config.hidden_size):
        absent.add("embeddings/projection")
    if not config.family.is_modern:
        return absent | {"encoder/feed_forward/gate"}
    absent |= {"masked_lm/transform", "masked_lm/norm"}
    return absent | {f"{path}/bias" for field, paths in BIASES.items() if not getattr(config, field) for path in paths}


def logical_axes(tree) -> Any:
    """Returns `tree` with each leaf replaced by the tuple of its logical axes.

    The tree may be the parameters, or contain trees of the same names as an optimizer's state does: only the dict keys
    on a leaf's path count. A leaf under no dict key, such as a step counter, is not a parameter and has no axes.

    Raises:
        KeyError: a leaf that is not in the table, with its path.
    """

    def axes(path, _leaf):
        entry: Any = PARAMETERS
        # An optimizer's state wraps the parameters in tuples and dataclasses, whose keys are not dict keys.
        keys = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        for key in keys:
            if not isinstance(entry, dict) or key not in entry:
                raise KeyError(f"BERT has no parameter {'/'.join(map(str, keys))}")
            entry = entry[key]
        return entry.axes if keys else ()

    return jax.tree_util.tree_map_with_path(axes, tree)


def _deviation(entry: Parameter, config: BertConfig) -> float:
    """Returns the standard deviation of a leaf's initial values, before the truncation."""
    if entry.modern == "in" or not config.family.is_modern:
        return config.initializer_range
    if entry.modern == "final":
        return 1 / math.sqrt(config.hidden_size)
    return config.initializer_range / math.sqrt(2 * config.num_hidden_layers)


def declare(module: nn.Module, part: str, config: BertConfig) -> dict[str, Any]:
    """Declares the parameters of a part of the model in `module` and returns them as a subtree."""
    sizes = axis_sizes(config)
    dtype = "float64" if config.dtype == "float64" else "float32"

    def initialize(key, entry):
        if isinstance(entry, Parameter):
            initializer = entry.initializer(_deviation(entry, config))
            return initializer(key, tuple(sizes[axis] for axis in entry.axes), dtype)
        # Keys follow the order of the table: reordering or inserting entries changes the initial values of a seed.
        keys = jax.random.split(key, len(entry))
        return {name: initialize(key, child) for key, (name, child) in zip(keys, entry.items(), strict=True)}

    entries = entries_of(part, config)
    return {name: module.param(name, initialize, entry) for name, entry in entries.items()}
