"""The names of tensors in Hugging Face's files, and the leaves of our parameter tree that they fill: one table.

A line of `MODULES` pairs a module of Hugging Face with a subtree of ours. Their layers are numbered in the name, ours
are stacked on a leading axis:

    bert.encoder.layer.3.output.dense.weight [D, F]  <->  encoder/feed_forward/down/kernel [L, F, D] at 3, transposed

PyTorch's classes call kernels, scales and embeddings all `weight`, and store a kernel with its outputs first. The Flax
classes use our leaf names and our order. Older files say `gamma` and `beta`, omit the prefix `bert.`, repeat the tied
decoder, or contain buffers that are not parameters. All of this is known here and nowhere else.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from bert_jax.config import BertConfig
from bert_jax.models.parameters import PARAMETERS, Parameter, axis_sizes

MODULES = {
    "embeddings.word_embeddings": "embeddings/word",
    "embeddings.position_embeddings": "embeddings/position",
    "embeddings.token_type_embeddings": "embeddings/token_type",
    "embeddings.LayerNorm": "embeddings/norm",
    "encoder.layer.{}.attention.self.query": "encoder/attention/query",
    "encoder.layer.{}.attention.self.key": "encoder/attention/key",
    "encoder.layer.{}.attention.self.value": "encoder/attention/value",
    "encoder.layer.{}.attention.output.dense": "encoder/attention/output",
    "encoder.layer.{}.attention.output.LayerNorm": "encoder/attention/norm",
    "encoder.layer.{}.intermediate.dense": "encoder/feed_forward/up",
    "encoder.layer.{}.output.dense": "encoder/feed_forward/down",
    "encoder.layer.{}.output.LayerNorm": "encoder/feed_forward/norm",
    "pooler.dense": "pooler",
    "cls.predictions.transform.dense": "masked_lm/transform",
    "cls.predictions.transform.LayerNorm": "masked_lm/norm",
    "cls.predictions": "masked_lm",
    "cls.seq_relationship": "next_sentence",
    "classifier": "classifier",
    "qa_outputs": "span",
}
HF_MODULES = {ours: theirs for theirs, ours in MODULES.items()}
# The masked-LM decoder repeats the word embedding and the bias of `cls.predictions`: (leaf, transposed).
REPEATED = {
    "cls.predictions.decoder.weight": ("embeddings/word/embedding", False),
    "cls.predictions.decoder.kernel": ("embeddings/word/embedding", True),
    "cls.predictions.decoder.bias": ("masked_lm/bias", False),
}
BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")
PREFIX = "bert."
PREFIXED = ("embeddings", "encoder", "pooler")  # the modules below the prefix
# The leaf of ours that a tensor's last name component can mean; which one depends on the module.
LEAVES = {"weight": ("kernel", "embedding", "scale"), "gamma": ("scale",), "beta": ("bias",), "bias": ("bias",),
          "kernel": ("kernel",), "embedding": ("embedding",), "scale": ("scale",)}  # fmt: skip
LAYER = re.compile(r"(?<=^encoder\.layer\.)(0|[1-9][0-9]{0,5})(?=\.)")


class Location(NamedTuple):
    """Where a tensor of a file belongs.

    Attributes:
        path: the leaf, such as `encoder/attention/query/kernel`.
        layer: the index on the leaf's leading axis; None if the leaf is not stacked.
        transposed: whether the tensor is stored with its outputs first.
        part: the part of the model that uses the tensor.
        repeats: whether the tensor only repeats another one.
    """

    path: str
    layer: int | None
    transposed: bool
    part: str
    repeats: bool = False


def locate_tensor(name: str) -> Location | None:
    """Returns where the tensor of this name belongs; None for a buffer that is not a parameter.

    Raises:
        KeyError: BERT has no such tensor.
    """
    short = name.removeprefix(PREFIX)
    if short in BUFFERS:
        return None
    if short in REPEATED:
        path, transposed = REPEATED[short]
        return Location(path, None, transposed, "masked_lm", repeats=True)
    module, _, leaf = short.rpartition(".")
    layer = LAYER.search(module)
    subtree = MODULES.get(LAYER.sub("{}", module))
    # Not names of BERT: a literal "{}", and heads below the prefix ("bert.classifier.weight").
    if subtree is None or "{" in name or (name != short and not short.startswith(PREFIXED)):
        raise KeyError(name)
    entry = table_entry(subtree)
    if leaf in ("gamma", "beta") and "scale" not in entry:  # these names are for layer norms only
        raise KeyError(name)
    for candidate in LEAVES.get(leaf, ()):
        if isinstance(entry.get(candidate), Parameter):
            transposed = leaf == "weight" and candidate == "kernel"
            part = subtree.split("/")[0]
            return Location(f"{subtree}/{candidate}", int(layer[0]) if layer else None, transposed, part)
    raise KeyError(name)


def hf_name(path: str, layer: int | None = None, *, prefix: bool = True) -> str:
    """Returns the name of a leaf, or of one of its layers, in PyTorch's classes; only `BertModel` has no prefix."""
    subtree, _, leaf = path.rpartition("/")
    module = HF_MODULES[subtree].format("*" if layer is None else layer)
    start = PREFIX if prefix and module.startswith(PREFIXED) else ""
    return f"{start}{module}.{'bias' if leaf == 'bias' else 'weight'}"


def leaf_shapes(config: BertConfig, parts: Collection[str]) -> dict[str, tuple[int, ...]]:
    """Returns path and shape of every leaf of these parts of the model; stacked leaves start with L."""
    sizes = axis_sizes(config)
    leaves = [leaf for part in PARAMETERS if part in parts for leaf in flatten(PARAMETERS[part], part)]
    shapes = {path: tuple(sizes[axis] for axis in entry.axes) for path, entry in leaves}
    if config.position_embedding_type == "sinusoidal":
        shapes.pop("embeddings/position/embedding", None)
    return shapes


def is_stacked(path: str) -> bool:
    """Returns whether a leaf has the layers on its leading axis."""
    return table_entry(path).axes[0] == "layers"


def table_entry(path: str) -> Any:
    """Returns the entry of the parameter table at `path`: a `Parameter`, or a dict of entries."""
    entry: Any = PARAMETERS
    for key in path.split("/"):
        entry = entry[key]
    return entry


def flatten(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (path, leaf) for every leaf of a tree of dicts."""
    if not isinstance(tree, Mapping):
        yield path, tree
        return
    for name, child in tree.items():
        yield from flatten(child, f"{path}/{name}" if path else name)


def unflatten(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the tree of dicts with these leaves by path; the inverse of `flatten`."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree
