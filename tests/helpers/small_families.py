"""Small random models of every family and head, written by transformers, and rows for them.

A parameter is drawn from a seed that its name in the file gives, so `model` makes the same model without transformers.
What transformers' model returns is stored for some cases; `expectations/make.py` does it.
"""

import json
import zlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import load_file

from bert_jax.config import BertConfig
from bert_jax.families import FAMILIES
from bert_jax.interop.assembly import index_tensors, to_state_dict
from bert_jax.interop.formats.tensors import Tensor
from bert_jax.interop.heads import model_class, parts_of
from bert_jax.interop.loading import LoadedBert
from bert_jax.interop.names import leaf_shapes, unflatten
from bert_jax.models import Bert

B, T, C, V, L = 3, 7, 5, 31, 2
CHOICES = 2
PAD = 1  # for RoBERTa; rows have it as padding in every family
POSITIONS = 13
EXPECTATIONS = Path(__file__).parents[1] / "expectations" / "families.json"
OUTPUTS = ("last_hidden_state", "prediction_logits", "logits", "start_logits", "end_logits")
THEIR_NAMES = {"prediction_logits": "logits"}
SAMPLE = 12  # stored numbers of an output
HEADS = ("Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering",
         "ForMultipleChoice")  # fmt: skip
SIZES = {"hidden_size": 16, "num_hidden_layers": L, "num_attention_heads": 2, "intermediate_size": 20}
OF_FAMILY = {
    "distilbert": {"dim": 16, "n_layers": L, "n_heads": 2, "hidden_dim": 20},
    "electra": SIZES | {"embedding_size": 10},
    "xlm-roberta": SIZES | {"type_vocab_size": 1},
    "modernbert": SIZES | {"num_hidden_layers": 5, "local_attention": 4},  # layers 0 and 3 are global
    "modernbert with biases": SIZES
    | dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), True)
    | {"decoder_bias": False, "classifier_pooling": "mean", "local_attention": 4},
}


class Case(NamedTuple):
    """A family and the end of a class's name; `options` is a key of `OF_FAMILY`, if not the family."""

    family: str
    head: str
    options: str | None = None

    def __str__(self) -> str:
        return f"{self.options or self.family}-{self.head}"

    @property
    def architecture(self) -> str:
        """The name of the class of transformers."""
        return f"{FAMILIES[self.family].class_prefix}{self.head}"

    @property
    def values(self) -> dict[str, Any]:
        """The values in its config.json that are not the family's defaults."""
        sizes: dict[str, Any] = OF_FAMILY.get(self.options or self.family, SIZES)
        labels = {"ForMultipleChoice": 1, "ForQuestionAnswering": 2}.get(self.head, C)
        return {
            "vocab_size": V,
            "max_position_embeddings": POSITIONS,
            "pad_token_id": PAD,
            "num_labels": labels,
        } | sizes


FAMILY_NAMES = tuple(name for name in FAMILIES if name != "bert")
# CamemBERT has the code of RoBERTa and XLM-RoBERTa, here as in transformers: two heads are enough.
CASES = [Case(family, head) for family in FAMILY_NAMES for head in HEADS if family != "camembert" or head in HEADS[1:3]]
CASES += [Case("modernbert", head, "modernbert with biases") for head in HEADS[1:3]]


STORED_CASES = [
    *(case for case in CASES if case.head in HEADS[1:3]),
    Case("electra", "ForMultipleChoice"),
    Case("distilbert", "ForQuestionAnswering"),
    Case("modernbert", "ForQuestionAnswering"),
]


def write(case: Case, folder) -> Any:
    """Writes the model and returns the PyTorch module."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    config = getattr(transformers, f"{FAMILIES[case.family].class_prefix}Config")(**case.values)
    model = getattr(transformers, case.architecture)(config).eval()
    model.save_pretrained(folder)
    leaves = model.state_dict()  # tied ones under several names, of which the file has one
    with torch.no_grad():
        for name, array in load_file(folder / "model.safetensors").items():
            leaves[name].copy_(torch.from_numpy(parameter(name, array.shape)))
    model.save_pretrained(folder)
    return model


def model(case: Case) -> LoadedBert:
    """The model, made without transformers."""
    kind = model_class(f"Bert{case.head}")
    config = BertConfig.from_dict({"model_type": case.family} | case.values)
    shapes = leaf_shapes(config, parts_of(kind, config))
    empty = unflatten({path: np.zeros(shape, np.float32) for path, shape in shapes.items()})
    file = {
        name: array.shape
        for name, array in to_state_dict(empty, prefix=kind is not Bert, model_type=case.family).items()
    }
    tensors = {
        name: Tensor(shape, "float32", lambda name=name, shape=shape: parameter(name, shape))
        for name, shape in file.items()
    }
    return LoadedBert(kind(config), index_tensors(tensors, case.family).assemble(shapes, "float32"))


def parameter(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The parameter of this name in a file; every one matters: no bias is 0, no scale is 1."""
    is_scale = len(shape) == 1 and name.endswith("weight")
    random = np.random.default_rng(zlib.crc32(name.encode()))
    return (is_scale + 0.3 * random.normal(size=shape)).astype(np.float32)


@cache
def stored() -> dict[str, dict[str, list[float]]]:
    """Case -> output -> numbers, from transformers."""
    return json.loads(EXPECTATIONS.read_text())


def sample(case: Case, outputs: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """A few numbers of each output of a head."""
    flat = {name: real(case, np.asarray(outputs[name])).ravel() for name in OUTPUTS[1:] if name in outputs}
    return {name: array[:: -(-array.size // SAMPLE)] for name, array in flat.items()}


def real(case: Case, array: np.ndarray) -> np.ndarray:
    """The output without padding, whose values are arbitrary."""
    mask = rows(case)["attention_mask"]
    each_token = array.shape[:2] == mask.shape and case.head != "ForMultipleChoice"
    return array * mask.reshape(*mask.shape, *[1] * (array.ndim - 2)) if each_token else array


def rows(case: Case) -> dict[str, np.ndarray]:
    """Rows of unequal lengths, padded; two segments where the family has them.

    Positions of RoBERTa do not count padding, also on the left. Its other heads would read the first token there.
    """
    random = np.random.default_rng(5)
    shape = (B, CHOICES, T) if case.head == "ForMultipleChoice" else (B, T)
    mask = np.ones(shape, np.int64)
    mask[-1, ..., 4:] = 0
    if FAMILIES[case.family].offset_positions and case.head == "ForMaskedLM":
        mask[0, :2] = 0
    ids = np.where(mask == 1, random.integers(PAD + 1, V, shape), PAD)
    batch = {"input_ids": ids, "attention_mask": mask}
    if FAMILIES[case.family].has_segments:
        batch["token_type_ids"] = random.integers(0, 2, shape) * mask
    return batch
