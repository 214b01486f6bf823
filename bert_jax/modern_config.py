"""The fields of ModernBERT's config that the other families do not have, and their keys in config.json.

Transformers 5 writes the type of every layer (`layer_types`) and the rotary positions of each type (`rope_parameters`);
before, there were `global_attn_every_n_layers` and one theta for each type. Both are read, and both are written.

References: Warner et al., Smarter, Better, Faster, Longer: A Modern Bidirectional Encoder, 2024 (ModernBERT).
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

POOLINGS = ("cls", "mean")
THETAS = {"full_attention": "global_rope_theta", "sliding_attention": "local_rope_theta"}  # by type of layer


@dataclass(frozen=True, kw_only=True)
class ModernFields:
    """The fields; other families keep the defaults, which are those of ModernBERT-base.

    Attributes:
        global_attn_every_n_layers: layers 0, n, 2n, ... attend to the whole sequence, the others locally.
        local_attention: the window of local attention; a token attends to local_attention // 2 tokens on each side.
        global_rope_theta: base of the wavelengths of rotary positions, in layers with global attention.
        local_rope_theta: the same in layers with local attention.
        norm_bias: whether layer norms have a bias.
        attention_bias: whether the dense layers of attention have one.
        mlp_bias: whether the dense layers of the feed-forward block have one.
        classifier_bias: whether the dense layer of the prediction head has one.
        decoder_bias: whether the masked-LM decoder has one.
        classifier_activation: the activation of the prediction head.
        classifier_pooling: the vector of a sequence: that of its first token (`cls`), or the mean over its tokens.
        mlp_dropout: dropout rate inside the feed-forward block.
    """

    global_attn_every_n_layers: int = 3
    local_attention: int = 128
    global_rope_theta: float = 160_000.0
    local_rope_theta: float = 10_000.0
    norm_bias: bool = False
    attention_bias: bool = False
    mlp_bias: bool = False
    classifier_bias: bool = False
    decoder_bias: bool = True
    classifier_activation: str = "gelu"
    classifier_pooling: str = "cls"
    mlp_dropout: float = 0.0

    def check_modern(self, head_size: int) -> None:
        """Raises ValueError for a value that is not possible."""
        if head_size % 2:
            raise ValueError(f"rotary positions need heads of an even size, hidden_size / heads is {head_size}")
        for name in ("global_attn_every_n_layers", "local_attention"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r:.60}")
        for name in THETAS.values():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
                raise ValueError(f"{name} must be a number above 0, got {value!r:.60}")
        for name in ("norm_bias", "attention_bias", "mlp_bias", "classifier_bias", "decoder_bias"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} must be true or false, got {getattr(self, name)!r:.60}")
        if self.classifier_pooling not in POOLINGS:
            raise ValueError(
                f"classifier_pooling must be one of {', '.join(POOLINGS)}; got {self.classifier_pooling!r:.60}"
            )

    def layer_types(self, count: int) -> list[str]:
        """Returns the type of each layer, in the words of transformers."""
        every = self.global_attn_every_n_layers
        return ["sliding_attention" if layer % every else "full_attention" for layer in range(count)]

    def modern_keys(self, num_layers: int) -> dict[str, Any]:
        """Returns the keys of config.json that transformers 5 has for these fields under other names."""
        rope = {kind: {"rope_type": "default", "rope_theta": getattr(self, name)} for kind, name in THETAS.items()}
        return {"layer_types": self.layer_types(num_layers), "rope_parameters": rope}


MODERN_FIELDS = tuple(field.name for field in fields(ModernFields))


def read_modern_keys(values: Mapping[str, Any], num_layers: Any) -> dict[str, Any]:
    """Returns the fields that `layer_types` and `rope_parameters` in a config.json stand for.

    Raises:
        ValueError: global layers at irregular distances, another number of layers, or rotary positions that are scaled.
    """
    found: dict[str, Any] = {}
    kinds = values.get("layer_types")
    if kinds is not None:
        found["global_attn_every_n_layers"] = _distance(kinds)
        if len(kinds) != num_layers:
            raise ValueError(f"num_hidden_layers is {num_layers!r:.60}, but layer_types has {len(kinds)} layers")
    if values.get("rope_scaling") is not None:
        raise ValueError(f"rope_scaling is not supported, got {values['rope_scaling']!r:.60}")
    ropes = values.get("rope_parameters") or {}
    if not isinstance(ropes, Mapping) or not all(
        kind in THETAS and isinstance(rope, Mapping | None) for kind, rope in ropes.items()
    ):
        raise ValueError(f"rope_parameters must have an object for each of {', '.join(THETAS)}; got {ropes!r:.80}")
    for kind, name in THETAS.items():
        rope = ropes.get(kind) or {}
        scaling = rope.get("rope_type", rope.get("type", "default"))  # `type` is the older name
        if scaling != "default":
            raise ValueError(f"rope_type must be 'default' for ModernBERT, got {scaling!r:.60}")
        if rope.get("rope_theta") is not None:
            found[name] = rope["rope_theta"]
    return found


def _distance(kinds: Any) -> int:
    """Returns the distance of the layers with global attention.

    Raises:
        ValueError: it is not the same everywhere, or the first layer is local.
    """
    if isinstance(kinds, list) and kinds:
        others = [layer for layer, kind in enumerate(kinds) if layer and kind == "full_attention"]
        every = others[0] if others else len(kinds)
        if kinds == ModernFields(global_attn_every_n_layers=every).layer_types(len(kinds)):
            return every
    raise ValueError(
        f"layer_types must be full_attention at layers 0, n, 2n, ... and sliding_attention elsewhere, got {kinds!r:.80}"
    )
