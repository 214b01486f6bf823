"""What Hugging Face calls a tensor, and what it is called here: one table, read in both directions.

A line of the table pairs a module of theirs with a subtree of ours. Their layers are numbered in the name, ours are
stacked on a leading axis. PyTorch's classes call a kernel, a scale and an embedding all `weight`, and store a kernel
outputs first; the Flax classes use our names and our order. Older files say `gamma` and `beta`, leave out the prefix
`bert.`, repeat the tied decoder, or carry buffers that are no parameters: all of that is known here and nowhere else.
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
# The decoder of the masked-LM head is the word embedding and the bias of `cls.predictions` once more.
REPEATED = {
    "cls.predictions.decoder.weight": ("embeddings/word/embedding", False),
    "cls.predictions.decoder.kernel": ("embeddings/word/embedding", True),
    "cls.predictions.decoder.bias": ("masked_lm/bias", False),
}
BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")
PREFIX = "bert."
PREFIXED = ("embeddings", "encoder", "pooler")  # what lies below it
LEAVES = {"weight": ("kernel", "embedding", "scale"), "gamma": ("scale",), "beta": ("bias",), "bias": ("bias",),
          "kernel": ("kernel",), "embedding": ("embedding",), "scale": ("scale",)}  # fmt: skip
LAYER = re.compile(r"(?<=^encoder\.layer\.)(0|[1-9][0-9]{0,5})(?=\.)")


class Place(NamedTuple):
    """Where a tensor of a file belongs.

    Attributes:
        path: the leaf, `encoder/attention/query/kernel`.
        layer: its place on the leaf's leading axis; None where the leaf is not stacked.
        transposed: it lies outputs first.
        part: the part of the tree that asks for it.
        repeats: it only says again what another tensor says.
    """

    path: str
    layer: int | None
    transposed: bool
    part: str
    repeats: bool = False


def place(name: str) -> Place | None:
    """Returns where the tensor of this name belongs, or None for a buffer that is no parameter.

    Raises:
        KeyError: BERT has no such tensor.
    """
    short = name.removeprefix(PREFIX)
    if short in BUFFERS:
        return None
    if short in REPEATED:
        path, transposed = REPEATED[short]
        return Place(path, None, transposed, "masked_lm", repeats=True)
    module, _, leaf = short.rpartition(".")
    numbered = LAYER.search(module)
    ours = MODULES.get(LAYER.sub("{}", module))
    if "{" in name or (name != short and not short.startswith(PREFIXED)):
        ours = None
    known = subtree(ours) if ours else {}
    for candidate in LEAVES.get(leaf, ()) if leaf not in ("gamma", "beta") or "scale" in known else ():
        if isinstance(known.get(candidate), Parameter):
            transposed = leaf == "weight" and candidate == "kernel"
            layer = int(numbered[0]) if numbered else None
            return Place(f"{ours}/{candidate}", layer, transposed, f"{ours}/".split("/")[0])
    raise KeyError(name)


def hf_name(path: str, layer: int | None = None, *, prefix: bool = True) -> str:
    """Returns what PyTorch's classes call a leaf, or one layer of it; `BertModel` alone leaves the prefix out."""
    ours, _, leaf = path.rpartition("/")
    module = THEIRS[ours].format("*" if layer is None else layer)
    start = PREFIX if prefix and module.startswith(PREFIXED) else ""
    return f"{start}{module}.{'bias' if leaf == 'bias' else 'weight'}"


def leaf_shapes(config: BertConfig, parts: Collection[str]) -> dict[str, tuple[int, ...]]:
    """Returns the path and shape of every leaf of these parts of the tree, stacked leaves with their layers first."""
    sizes = axis_sizes(config)
    leaves = [leaf for part in PARAMETERS if part in parts for leaf in walk(PARAMETERS[part], part)]
    shapes = {path: tuple(sizes[axis] for axis in entry.axes) for path, entry in leaves}
    if config.position_embedding_type == "sinusoidal":
        shapes.pop("embeddings/position/embedding", None)
    return shapes


def is_stacked(path: str) -> bool:
    """Says whether a leaf has the layers on its leading axis."""
    return subtree(path).axes[0] == "layers"


def subtree(path: str) -> Any:
    """Returns the entry of the parameter table at `path`."""
    entry: Any = PARAMETERS
    for key in path.split("/"):
        entry = entry[key]
    return entry


def walk(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields (path, leaf) of a tree of dicts."""
    if not isinstance(tree, Mapping):
        yield path, tree
        return
    for name, child in tree.items():
        yield from walk(child, f"{path}/{name}" if path else name)


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the tree of dicts that paths with their leaves are."""
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


THEIRS = {ours: theirs for theirs, ours in MODULES.items()}
