"""The architecture of a model: one frozen dataclass with the keys of Hugging Face's `config.json`.

A `config.json` written by transformers is read without translation, and transformers reads the ones written here.

>>> config = BertConfig.preset("tiny", vocab_size=8000)
>>> config.hidden_size, config.num_attention_heads
(128, 2)

References: Devlin et al., BERT, 2018, section 3 (base, large). Turc et al., Well-Read Students Learn Better, 2019 (the
smaller sizes): head size 64, intermediate_size 4 x hidden_size, all other values those of BERT-base. The families of
models are in `bert_jax.families`.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from bert_jax.families import FAMILIES, Family, family_of
from bert_jax.modern_config import ModernFields, read_modern_keys

ACTIVATIONS = ("gelu", "gelu_new", "relu", "silu", "tanh")
POSITIONS = ("absolute", "sinusoidal")
DTYPES = ("float32", "bfloat16", "float64", "auto")
SAME_ACTIVATION = {  # transformers' other names
    "gelu_python": "gelu",
    "gelu_python_tanh": "gelu_new",
    "gelu_accurate": "gelu_new",
    "gelu_fast": "gelu_new",
    "gelu_pytorch_tanh": "gelu_new",
    "swish": "silu",
}
# Names that say how weights are stored, not what to compute in.
STORED_DTYPES = ("float16", "auto")
TORCH_MODULES = {"Identity": "linear.Identity", "Sigmoid": "activation.Sigmoid"}
ACTIVATION_FNS = tuple(TORCH_MODULES)
DROPOUTS = (
    "hidden_dropout_prob", "attention_probs_dropout_prob", "classifier_dropout", "span_dropout", "mlp_dropout",
)  # fmt: skip
PROBLEM_TYPES = ("single_label_classification", "multi_label_classification", "regression")


@dataclass(frozen=True)
class BertConfig(ModernFields):
    """The architecture, under Hugging Face's names; values are checked on construction.

    The fields that only ModernBERT has are in `modern_config`. Fields that transformers' `BertConfig` does not have, or
    has in another form:

    Attributes:
        dtype: the compute dtype. Parameters, softmax, layer-norm statistics and losses stay in float32. `float64` is
            for checking gradients and needs `jax_enable_x64`. `auto` is for settings of a program, which replaces it
            when it knows the devices, see `for_platform`.
        label_names: the class names; `id2label` and `label2id` in `config.json`.
        null_threshold: for question answering with unanswerable questions: "no answer" is predicted if its score
            exceeds the best span's by more than this.
        activation_fn: for one label, the function that makes a score of the logit: `Sigmoid`, or `Identity`;
            sentence-transformers' cross-encoders name it. None: sigmoid, or none for regression.
        data_columns: the columns of the table that the model was fine-tuned on, as pairs of a role (text, pair, label,
            words, ...) and a name; an object in `config.json`.
        lora_rank: rank of the LoRA adapters on the encoder's kernels, see `functional.lora`; 0 = no adapters.
        lora_alpha: the adapters' scale is lora_alpha / lora_rank.
        embedding_size: of ELECTRA's embeddings, which a projection takes to `hidden_size`; None = `hidden_size`.
        span_dropout: dropout rate before DistilBERT's question-answering head, its `qa_dropout`.
        model_type: the family, one of `families.FAMILIES`.

    Raises:
        ValueError: a value that is not possible, such as
            `hidden_size 100 is not divisible by num_attention_heads 12`.
    """

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    hidden_dropout_prob: float = 0.1
    attention_probs_dropout_prob: float = 0.1
    max_position_embeddings: int = 512
    type_vocab_size: int = 2
    initializer_range: float = 0.02
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0
    position_embedding_type: str = "absolute"
    classifier_dropout: float | None = None
    num_labels: int = 2
    label_names: tuple[str, ...] | None = None
    problem_type: str | None = None
    null_threshold: float | None = None
    activation_fn: str | None = None
    data_columns: tuple[tuple[str, str], ...] | None = None
    lora_rank: int = 0
    lora_alpha: float = 16.0
    dtype: str = "float32"
    embedding_size: int | None = None
    span_dropout: float = 0.0
    model_type: str = "bert"

    def __post_init__(self) -> None:
        self._check_sizes()
        for name in (*DROPOUTS, "initializer_range", "layer_norm_eps", "null_threshold", "lora_alpha"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
                raise ValueError(f"{name} must be a number, got {value!r:.60}")
        for name in DROPOUTS:
            value = getattr(self, name)
            if value is not None and not 0.0 <= value < 1.0:
                raise ValueError(f"{name} must lie in [0, 1), got {value!r}")
        for name in ("initializer_range", "layer_norm_eps"):
            if not getattr(self, name) > 0:  # refuses NaN too
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)!r}")
        for name, choices in (("hidden_act", ACTIVATIONS), ("classifier_activation", ACTIVATIONS),
                              ("position_embedding_type", POSITIONS), ("dtype", DTYPES),
                              ("problem_type", (None, *PROBLEM_TYPES)),
                              ("activation_fn", (None, *ACTIVATION_FNS))):  # fmt: skip
            if getattr(self, name) not in choices:
                raise ValueError(f"{name} must be one of {', '.join(map(str, choices))}; got {getattr(self, name)!r}")
        if self.null_threshold is not None and not -math.inf < self.null_threshold < math.inf:
            raise ValueError(f"null_threshold must be a finite number, got {self.null_threshold!r}")
        if not isinstance(self.lora_rank, int) or self.lora_rank < 0 or not self.lora_alpha > 0:
            raise ValueError(
                "lora_rank must be an integer of at least 0 and lora_alpha above 0, "
                f"got {self.lora_rank!r} and {self.lora_alpha!r}"
            )
        if self.label_names is not None and len(self.label_names) != self.num_labels:
            raise ValueError(f"num_labels is {self.num_labels}, but there are {len(self.label_names)} label_names")
        for name in self.label_names or ():
            if not isinstance(name, str):
                raise ValueError(f"label_names must be strings, got {name!r:.60}")
        ids: dict[str, int] = {}
        for index, name in enumerate(self.label_names or ()):
            if ids.setdefault(name, index) != index:
                raise ValueError(f"two labels are called {name!r:.60}: {ids[name]} and {index}")

    def for_platform(self, platform: str) -> "BertConfig":
        """Returns the config with the dtype `auto` replaced: float32 on `cpu`, bfloat16 on `gpu` and `tpu`."""
        return replace(self, dtype=resolve_dtype(self.dtype, platform))

    def _check_sizes(self) -> None:
        """Checks the integers, and that the family has the fields that are not its defaults."""
        family = family_of(self.model_type)
        for name in ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size",
                     "max_position_embeddings", "type_vocab_size", "num_labels"):  # fmt: skip
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} must be a positive integer, got {value!r}")
        size = self.embedding_size
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
            raise ValueError(f"embedding_size must be a positive integer, got {size!r}")
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"hidden_size {self.hidden_size} is not divisible by num_attention_heads {self.num_attention_heads}"
            )
        if not isinstance(self.pad_token_id, int) or isinstance(self.pad_token_id, bool):
            raise ValueError(f"pad_token_id must be an integer, got {self.pad_token_id!r:.60}")
        if not 0 <= self.pad_token_id < self.vocab_size:
            raise ValueError(f"pad_token_id {self.pad_token_id} is outside the vocabulary of {self.vocab_size}")
        if self.max_length < 1:
            rows = self.max_position_embeddings
            raise ValueError(f"max_position_embeddings {rows} has no row after the first {self.position_offset}")
        if family.is_modern:
            self.check_modern(self.hidden_size // self.num_attention_heads)
        for name in family.unused_fields:
            default = type(self).__dataclass_fields__[name].default
            if getattr(self, name) != default:
                raise ValueError(f"{name} must be {default} for {family.title}, got {getattr(self, name)!r}")

    @property
    def family(self) -> Family:
        """How the model differs from BERT."""
        return FAMILIES[self.model_type]

    @property
    def position_offset(self) -> int:
        """The row of the position table for the first token of a sequence."""
        return self.pad_token_id + 1 if self.family.offset_positions else 0

    @property
    def max_length(self) -> int:
        """The longest sequence, in tokens: 512 for RoBERTa's table of 514 rows, of which 2 are not used."""
        return self.max_position_embeddings - self.position_offset

    @property
    def uses_token_types(self) -> bool:
        """Whether token types make a difference; otherwise `token_type_ids` are ignored."""
        return self.family.has_segments or (self.family.has_token_types and self.type_vocab_size > 1)

    @property
    def sequence_dropout(self) -> float:
        """The dropout rate before the classifier of sequences; as in transformers, None means hidden_dropout_prob."""
        return self.hidden_dropout_prob if self.classifier_dropout is None else self.classifier_dropout

    @property
    def masked_lm_act(self) -> str:
        """The activation of the masked-LM head."""
        if self.family.is_modern:
            return self.classifier_activation
        return self.family.masked_lm_act or self.hidden_act

    @classmethod
    def preset(cls, name: str, **changes: Any) -> "BertConfig":
        """Returns one of the published sizes, `tiny` to `large`, with the fields in `changes` replaced."""
        if name not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}; got {name!r}")
        num_layers, hidden_size = PRESETS[name]
        sizes = {
            "num_hidden_layers": num_layers,
            "hidden_size": hidden_size,
            "num_attention_heads": hidden_size // 64,
            "intermediate_size": 4 * hidden_size,
        }
        return cls(**{**sizes, **changes})

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "BertConfig":
        """Returns the config for the contents of a `config.json`; unknown keys are ignored.

        Raises:
            ValueError: another kind of model (`model_type`), a decoder, or an option that is not supported.
        """
        family = family_of(values.get("model_type", "bert"))
        for key in ("is_decoder", "add_cross_attention"):
            if values.get(key):
                raise ValueError(f"{key} must be false: only encoders are supported, got {values[key]!r}")
        for key, value in family.fixed.items():
            if values.get(key, value) != value:
                raise ValueError(f"{key} must be {value!r} for {family.title}, got {values[key]!r:.60}")
        renamed = {name: values[key] for name, key in family.keys.items() if key in values}
        values = {**values, **renamed}
        known = {field.name for field in fields(cls)} - set(family.unused_fields)
        given = {key: value for key, value in values.items() if key in known and value is not None}
        chosen = {**family.defaults, **given}
        if "pad_token_id" in values and "pad_token_id" not in given and not family.offset_positions:
            chosen.pop("pad_token_id", None)  # null: no token is padding, and no position depends on it
        if family.is_modern:
            chosen |= read_modern_keys(values, chosen["num_hidden_layers"])
        if "dtype" not in chosen and values.get("torch_dtype"):
            chosen["dtype"] = values["torch_dtype"]  # its name before transformers 5
        if isinstance(chosen.get("dtype"), str):
            named = chosen["dtype"].removeprefix("torch.")
            chosen["dtype"] = "float32" if named in STORED_DTYPES else named
        for name in ("hidden_act", "classifier_activation"):
            if isinstance(chosen.get(name), str):
                chosen[name] = SAME_ACTIVATION.get(chosen[name], chosen[name])
        if function := _activation_fn(values):
            chosen["activation_fn"] = function
        if values.get("id2label"):
            by_id = _by_id(values["id2label"])
            if sorted(by_id) != list(range(len(by_id))):
                raise ValueError(f"id2label has {len(by_id)} labels, but not the ids 0 to {len(by_id) - 1}")
            names = (by_id[index] for index in sorted(by_id))  # sorted as numbers: a, b
            chosen["label_names"] = tuple(str(name) if isinstance(name, int | float) else name for name in names)
            chosen["num_labels"] = len(by_id)
        if "data_columns" in chosen:
            columns = chosen["data_columns"].items()
            chosen["data_columns"] = tuple((str(role), str(name)) for role, name in columns)
        try:
            return cls(**chosen)
        except ValueError as error:
            raise ValueError(_with_keys(str(error), family)) from None

    def to_dict(self) -> dict[str, Any]:
        """Returns the contents of a `config.json` that transformers reads."""
        values = {"model_type": self.model_type, **asdict(self)}
        for name in self.family.unused_fields:
            del values[name]
        names = values.pop("label_names") or [f"LABEL_{index}" for index in range(self.num_labels)]
        del values["num_labels"]  # transformers counts `id2label`
        if self.null_threshold is None:
            del values["null_threshold"]
        columns = values.pop("data_columns")
        if columns is not None:
            values["data_columns"] = dict(columns)
        if not self.lora_rank:
            del values["lora_rank"], values["lora_alpha"]
        if (function := values.pop("activation_fn")) is not None:
            values["sentence_transformers"] = {"activation_fn": f"torch.nn.modules.{TORCH_MODULES[function]}"}
        if "embedding_size" in values:
            values["embedding_size"] = self.embedding_size or self.hidden_size
        if self.family.keys:
            values["classifier_dropout"] = self.sequence_dropout  # a number for each of these keys
            values = {self.family.keys.get(name, name): value for name, value in values.items()}
        if self.family.is_modern:
            values |= self.modern_keys(self.num_hidden_layers)
        values["id2label"] = {str(index): name for index, name in enumerate(names)}
        values["label2id"] = {name: index for index, name in enumerate(names)}
        return values

    @classmethod
    def load(cls, path: str | Path) -> "BertConfig":
        """Reads a `config.json`.

        Raises:
            ValueError: not JSON, or not the config of a BERT; the message starts with the path.
            FileNotFoundError: the file does not exist.
        """
        try:
            return cls.from_dict(json.loads(Path(path).read_text(encoding="utf-8")))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}: {error}") from None


def _with_keys(message: str, family: Family) -> str:
    """Returns an error about fields with the family's names of them: `dim` for DistilBERT's hidden_size."""
    return re.sub(r"\w+", lambda word: family.keys.get(word[0], word[0]), message)


def _by_id(id2label: Any) -> dict[int, Any]:
    """Returns the names by their ids, which are strings in JSON: {"10": "b", "2": "a"}."""
    try:
        return {int(index): name for index, name in id2label.items()}
    except (AttributeError, TypeError, ValueError):
        raise ValueError(f"id2label must be an object from ids to names, got {id2label!r:.60}") from None


def _activation_fn(values: Mapping[str, Any]) -> str | None:
    """Returns the name of the activation function that sentence-transformers wrote to a `config.json`, or None.

    Cross-encoders have one label; the function of other models is not read.
    """
    if values.get("num_labels", len(values.get("id2label") or ())) != 1:
        return None
    new = values.get("sentence_transformers")
    path = new.get("activation_fn") if isinstance(new, dict) else None
    path = path or values.get("sbert_ce_default_activation_function")  # before version 4
    return str(path).rpartition(".")[2] if path else None


PRESETS = {  # num_hidden_layers, hidden_size
    "tiny": (2, 128),
    "mini": (4, 256),
    "small": (4, 512),
    "medium": (8, 512),
    "base": (12, 768),
    "large": (24, 1024),
}


def resolve_dtype(dtype: str, platform: str) -> str:
    """Returns the compute dtype, with `auto` replaced by the faster one that is precise enough on the platform.

    Matrix units multiply bfloat16. CPUs convert it to float32 and gain nothing.
    """
    automatic = "float32" if platform == "cpu" else "bfloat16"
    return automatic if dtype == "auto" else dtype
