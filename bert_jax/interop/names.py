"""The names of tensors in Hugging Face's files, and the leaves of our parameter tree that they fill: one table each.

`NAMES` has the table of each family. A line pairs a module of Hugging Face with a subtree of ours. Their layers are
numbered in the name, ours are stacked on a leading axis:

    bert.encoder.layer.3.output.dense.weight [D, F]  <->  encoder/feed_forward/down/kernel [L, F, D] at 3, transposed

PyTorch's classes call kernels, scales and embeddings all `weight`, and store a kernel with its outputs first. The Flax
classes use our leaf names and our order. Older files say `gamma` and `beta`, omit the prefix `bert.`, repeat the tied
decoder, or contain buffers that are not parameters. Two tensors of ModernBERT, `Wqkv` and `Wi`, hold several of our
kernels, one below the other; each piece has a name here, such as `Wqkv.1`. All of this is known here and nowhere else.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any, NamedTuple

from bert_jax.config import BertConfig
from bert_jax.models.parameters import PARAMETERS, Parameter, axis_sizes, entries_of

EMBEDDINGS = {
    "embeddings.word_embeddings": "embeddings/word",
    "embeddings.position_embeddings": "embeddings/position",
    "embeddings.token_type_embeddings": "embeddings/token_type",
    "embeddings.LayerNorm": "embeddings/norm",
}
ENCODER = {
    "encoder.layer.{}.attention.self.query": "encoder/attention/query",
    "encoder.layer.{}.attention.self.key": "encoder/attention/key",
    "encoder.layer.{}.attention.self.value": "encoder/attention/value",
    "encoder.layer.{}.attention.output.dense": "encoder/attention/output",
    "encoder.layer.{}.attention.output.LayerNorm": "encoder/attention/norm",
    "encoder.layer.{}.intermediate.dense": "encoder/feed_forward/up",
    "encoder.layer.{}.output.dense": "encoder/feed_forward/down",
    "encoder.layer.{}.output.LayerNorm": "encoder/feed_forward/norm",
}
HEADS = {"classifier": "classifier", "qa_outputs": "span"}
# Heads with a layer before the classifier of sequences; classifiers of tokens and choices have the name in HEADS.
SEQUENCE_HEAD = {"classifier.dense": "pre_classifier", "classifier.out_proj": "classifier"}
BUFFERS = ("embeddings.position_ids", "embeddings.token_type_ids")
# The modules below the prefix.
PREFIXED = ("embeddings", "encoder", "transformer", "pooler", "layers", "final_norm")


class Names(NamedTuple):
    """The names of a family.

    Attributes:
        prefix: in front of the encoder's names, in every class but that of the encoder alone.
        modules: module of Hugging Face -> subtree of ours. Of two modules for one subtree, a model has one.
        decoder: the module of the masked-LM decoder, which repeats the word embedding.
        unused: a module of a head that is not supported.
        pieces: the last names of modules whose tensors hold several of our leaves, and how many.
        from_second_layer: the subtree of ours that the first layer does not use.
    """

    prefix: str
    modules: Mapping[str, str]
    decoder: str
    unused: str | None = None
    pieces: Mapping[str, int] = {}
    from_second_layer: str | None = None

    def module_of(self, subtree: str, parts: Collection[str]) -> str:
        """Returns the module for a subtree of a model that has these parts."""
        with_layer = "pre_classifier" in parts and "classifier.out_proj" in self.modules
        if subtree == "classifier":
            return "classifier.out_proj" if with_layer else "classifier"
        return next(theirs for theirs, ours in self.modules.items() if ours == subtree)

    def repeated(self, name: str) -> tuple[str, bool] | None:
        """Returns the leaf that a tensor of the decoder repeats, and whether it is transposed; None for others."""
        module, _, leaf = name.rpartition(".")
        if module != self.decoder:
            return None
        if leaf == "bias" and self.modules.get(module) != "masked_lm":  # else it is the bias itself
            return "masked_lm/bias", False
        return ("embeddings/word/embedding", leaf == "kernel") if leaf in ("weight", "kernel") else None


ROBERTA = Names(
    "roberta.",
    {
        **EMBEDDINGS,
        **ENCODER,
        "pooler.dense": "pooler",
        "lm_head.dense": "masked_lm/transform",
        "lm_head.layer_norm": "masked_lm/norm",
        "lm_head": "masked_lm",
        **SEQUENCE_HEAD,
        **HEADS,
    },
    decoder="lm_head.decoder",
)
NAMES = {
    "bert": Names(
        "bert.",
        {
            **EMBEDDINGS,
            **ENCODER,
            "pooler.dense": "pooler",
            "cls.predictions.transform.dense": "masked_lm/transform",
            "cls.predictions.transform.LayerNorm": "masked_lm/norm",
            "cls.predictions": "masked_lm",
            "cls.seq_relationship": "next_sentence",
            **HEADS,
        },
        decoder="cls.predictions.decoder",
    ),
    "roberta": ROBERTA,
    "xlm-roberta": ROBERTA,
    "camembert": ROBERTA,
    "distilbert": Names(
        "distilbert.",
        {
            **{theirs: ours for theirs, ours in EMBEDDINGS.items() if ours != "embeddings/token_type"},
            "transformer.layer.{}.attention.q_lin": "encoder/attention/query",
            "transformer.layer.{}.attention.k_lin": "encoder/attention/key",
            "transformer.layer.{}.attention.v_lin": "encoder/attention/value",
            "transformer.layer.{}.attention.out_lin": "encoder/attention/output",
            "transformer.layer.{}.sa_layer_norm": "encoder/attention/norm",
            "transformer.layer.{}.ffn.lin1": "encoder/feed_forward/up",
            "transformer.layer.{}.ffn.lin2": "encoder/feed_forward/down",
            "transformer.layer.{}.output_layer_norm": "encoder/feed_forward/norm",
            "vocab_transform": "masked_lm/transform",
            "vocab_layer_norm": "masked_lm/norm",
            "vocab_projector": "masked_lm",
            "pre_classifier": "pre_classifier",
            **HEADS,
        },
        decoder="vocab_projector",
    ),
    "electra": Names(
        "electra.",
        {
            **EMBEDDINGS,
            "embeddings_project": "embeddings/projection",
            **ENCODER,
            "generator_predictions.dense": "masked_lm/transform",
            "generator_predictions.LayerNorm": "masked_lm/norm",
            "generator_lm_head": "masked_lm",
            "sequence_summary.summary": "summary",
            **SEQUENCE_HEAD,
            **HEADS,
        },
        decoder="generator_lm_head",
        unused="discriminator_predictions",
    ),
    "modernbert": Names(
        "model.",
        {
            "embeddings.tok_embeddings": "embeddings/word",
            "embeddings.norm": "embeddings/norm",
            "layers.{}.attn_norm": "encoder/attention/norm",
            "layers.{}.attn.Wqkv.0": "encoder/attention/query",
            "layers.{}.attn.Wqkv.1": "encoder/attention/key",
            "layers.{}.attn.Wqkv.2": "encoder/attention/value",
            "layers.{}.attn.Wo": "encoder/attention/output",
            "layers.{}.mlp_norm": "encoder/feed_forward/norm",
            "layers.{}.mlp.Wi.0": "encoder/feed_forward/up",
            "layers.{}.mlp.Wi.1": "encoder/feed_forward/gate",
            "layers.{}.mlp.Wo": "encoder/feed_forward/down",
            "final_norm": "final_norm",
            "head.dense": "prediction_head/transform",
            "head.norm": "prediction_head/norm",
            "decoder": "masked_lm",
            "classifier": "classifier",
        },
        decoder="decoder",
        pieces={"Wqkv": 3, "Wi": 2},
        from_second_layer="encoder/attention/norm",
    ),
}
# The leaf of ours that a tensor's last name component can mean; which one depends on the module.
LEAVES = {"weight": ("kernel", "embedding", "scale"), "gamma": ("scale",), "beta": ("bias",), "bias": ("bias",),
          "kernel": ("kernel",), "embedding": ("embedding",), "scale": ("scale",)}  # fmt: skip
LAYER = re.compile(r"(?:(?<=r\.layer\.)|(?<=^layers\.))(0|[1-9][0-9]{0,5})(?=\.)")
PIECE = re.compile(r"\.([0-9])(?=\.(?:weight|bias)$)")


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


def locate_tensor(name: str, model_type: str = "bert") -> Location | None:
    """Returns where the tensor of this name belongs; None for a buffer that is not a parameter.

    Raises:
        KeyError: the family has no such tensor.
    """
    names = NAMES[model_type]
    short = name.removeprefix(names.prefix)
    if short in BUFFERS:
        return None
    repeated = names.repeated(short)
    if repeated is not None:
        path, transposed = repeated
        return Location(path, None, transposed, "masked_lm", repeats=True)
    if names.unused is not None and name.startswith(f"{names.unused}."):
        return Location(name, None, False, names.unused)
    module, _, leaf = short.rpartition(".")
    layer = LAYER.search(module)
    subtree = names.modules.get(LAYER.sub("{}", module))
    # Not names of the family: a literal "{}", and heads below the prefix ("bert.classifier.weight").
    if subtree is None or "{" in name or (name != short and not short.startswith(PREFIXED)):
        raise KeyError(name)
    entry = table_entry(subtree)
    if leaf in ("gamma", "beta") and "scale" not in entry:  # these names are for layer norms only
        raise KeyError(name)
    for candidate in LEAVES.get(leaf, ()):
        if isinstance(entry.get(candidate), Parameter):
            if layer and is_absent(f"{subtree}/{candidate}", int(layer[0]), model_type):
                break
            transposed = leaf == "weight" and candidate == "kernel"
            part = subtree.split("/")[0]
            return Location(f"{subtree}/{candidate}", int(layer[0]) if layer else None, transposed, part)
    raise KeyError(name)


def piece_names(name: str, model_type: str) -> list[str]:
    """Returns the names of a tensor's pieces, from top to bottom; the name itself if it is one leaf.

    >>> piece_names("layers.0.mlp.Wi.weight", "modernbert")
    ['layers.0.mlp.Wi.0.weight', 'layers.0.mlp.Wi.1.weight']
    """
    module, _, leaf = name.rpartition(".")
    count = NAMES[model_type].pieces.get(module.rpartition(".")[2])
    return [f"{module}.{piece}.{leaf}" for piece in range(count)] if count else [name]


def whole_name(name: str, model_type: str) -> str:
    """Returns the name of the tensor in files that a piece belongs to; the name itself if it is none."""
    whole = PIECE.sub("", name)
    return whole if name in piece_names(whole, model_type) else name


def is_absent(path: str, layer: int | None, model_type: str) -> bool:
    """Returns whether files have no tensor for a layer of a leaf, because the layer does not use it."""
    return layer == 0 and path.rpartition("/")[0] == NAMES[model_type].from_second_layer


def hf_name(
    path: str,
    layer: int | None = None,
    *,
    prefix: bool = True,
    model_type: str = "bert",
    parts: Collection[str] = (),
) -> str:
    """Returns the name of a leaf, or of one of its layers, in PyTorch's classes; of a piece, as in `piece_names`.

    Args:
        prefix: whether the encoder's names start with the prefix, as in every class but `BertModel`.
        parts: those of the model; the name of a classifier depends on them.
    """
    subtree, _, leaf = path.rpartition("/")
    names = NAMES[model_type]
    module = names.module_of(subtree, parts).format("*" if layer is None else layer)
    start = names.prefix if prefix and module.startswith(PREFIXED) else ""
    return f"{start}{module}.{'bias' if leaf == 'bias' else 'weight'}"


def leaf_shapes(config: BertConfig, parts: Collection[str]) -> dict[str, tuple[int, ...]]:
    """Returns path and shape of every leaf of these parts of the model; stacked leaves start with L."""
    sizes = axis_sizes(config)
    leaves = [leaf for part in PARAMETERS if part in parts for leaf in flatten(entries_of(part, config), part)]
    return {path: tuple(sizes[axis] for axis in entry.axes) for path, entry in leaves}


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
