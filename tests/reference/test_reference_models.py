"""Whole models of the reference against finite differences and against JAX, in float64.

Three routes to one gradient must agree on every leaf of the tree: derived by hand, measured by moving parameters, and
`jax.grad` of the Flax model.
"""

import functools
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import numpy as np
import pytest
import small_bert
from gradient_checks import assert_gradient_is_the_slope, assert_leaves_agree, every_element, random_directions
from small_bert import (
    ATTENTION_MASK,
    CLS_POSITIONS,
    EXAMPLE_WEIGHTS,
    MASKED_POSITIONS,
    PACKED,
    PADDED,
    ROWS,
    SHAPES,
    SINUSOIDAL,
    B,
    C,
    D,
    P,
    S,
    T,
    V,
    dense_shapes,
    draw,
    inputs,
    integers,
)

from bert_jax import models
from bert_jax.functional import losses as jax_losses
from bert_jax.interop.heads import parts_of
from bert_jax.interop.names import leaf_shapes, unflatten
from bert_jax.reference import model

GRADIENT_TOLERANCE = 1e-9
FORWARD_TOLERANCE = 1e-12


@dataclass
class Case:
    """A model, a batch for it, and the config."""

    model: str
    objectives: tuple[str, ...]
    batch: dict[str, Any]
    heads: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def config(self):
        return small_bert.config(
            dtype="float64",
            **{"problem_type": "single_label_classification", "num_labels": C} | self.options,
        )

    @property
    def params(self):
        if self.config.model_type != "bert":
            parts = parts_of(getattr(models, self.model), self.config)
            return draw(unflatten(leaf_shapes(self.config, parts)))
        shapes = {name: SHAPES[name] for name in ("embeddings", "encoder", *self.heads)}
        if self.config.position_embedding_type == "sinusoidal":
            shapes["embeddings"] = SINUSOIDAL
        if "classifier" in shapes:
            shapes["classifier"] = dense_shapes(D, self.config.num_labels)
        return draw(shapes)

    def loss(self, params):
        return model.loss(params, self.batch, self.config, objectives=self.objectives)[0]


def classification(labels, **options):
    batch = PADDED | {"labels": labels, "example_weights": EXAMPLE_WEIGHTS}
    return Case("BertForSequenceClassification", ("sequence_classification",), batch, ("pooler", "classifier"), options)


MASKED = {"masked_labels": integers(V, B, P), "masked_weights": np.array([[1, 1, 1, 1, 0], [1, 0.5, 0, 0, 0]])}
PAIRS = {
    "next_sentence_labels": integers(2, B, S),
    "next_sentence_weights": np.array([[1, 1, 0.5], [1, 0, 0]]),
}
CASES = {
    "pretraining": Case(
        "BertForPreTraining",
        ("masked_lm", "next_sentence"),
        PACKED | MASKED | PAIRS | {"masked_positions": MASKED_POSITIONS, "cls_positions": CLS_POSITIONS},
        ("pooler", "masked_lm", "next_sentence"),
    ),
    "masked_lm": Case(
        "BertForMaskedLM",
        ("masked_lm",),
        PADDED | {"masked_labels": integers(V, B, T), "masked_weights": (ATTENTION_MASK > 0) * 1.0},
        ("masked_lm",),
        {"hidden_act": "gelu_new", "position_embedding_type": "sinusoidal"},
    ),
    "next_sentence": Case(
        "BertForNextSentencePrediction",
        ("next_sentence",),
        {
            "input_ids": ROWS["input_ids"],
            "next_sentence_labels": np.array([1, 0]),
            "next_sentence_weights": EXAMPLE_WEIGHTS,
        },
        ("pooler", "next_sentence"),
    ),
    "single_label": classification(np.array([4, 1])),
    "multi_label": classification(integers(2, B, C) * 1.0, problem_type="multi_label_classification"),
    "regression": classification(np.array([0.7, -1.3]), problem_type="regression", num_labels=1),
    "token_classification": Case(
        "BertForTokenClassification",
        ("token_classification",),
        PACKED | {"labels": np.where(ATTENTION_MASK > 0, 3, -100), "example_weights": EXAMPLE_WEIGHTS},
        ("classifier",),
    ),
    "question_answering": Case(
        "BertForQuestionAnswering",
        ("question_answering",),
        PADDED
        | {
            "start_positions": np.array([2, 0]),
            "end_positions": np.array([5, 3]),
            "example_weights": EXAMPLE_WEIGHTS,
        },
        ("span",),
    ),
    "multiple_choice": Case(
        "BertForMultipleChoice",
        ("multiple_choice",),
        inputs(B, C, T)
        | {
            "attention_mask": (np.arange(T) < 3 + integers(5, B, C, 1)) * 1,
            "labels": np.array([3, 0]),
            "example_weights": EXAMPLE_WEIGHTS,
        },
        ("pooler", "classifier"),
        {"num_labels": 1},
    ),
}
CASES["relu"] = replace(CASES["token_classification"], options={"hidden_act": "relu"})
MODERN = {"global_attn_every_n_layers": 2, "local_attention": 4, "local_rope_theta": 7.0}
BIASES = dict.fromkeys(("norm_bias", "attention_bias", "mlp_bias", "classifier_bias"), True)
FAMILIES = {
    "roberta": ("single_label", {"pad_token_id": 1, "type_vocab_size": 1, "hidden_act": "silu"}),
    "camembert": ("multiple_choice", {"pad_token_id": 1}),
    "xlm-roberta": ("masked_lm", {"pad_token_id": 1, "hidden_act": "relu"}),  # the head's activation is gelu
    "distilbert": ("masked_lm", {"hidden_act": "tanh"}),
    "electra": ("single_label", {"embedding_size": 8}),
    "modernbert": ("masked_lm", MODERN),
}
OTHER_HEADS = {
    "distilbert": ("multi_label", {"hidden_act": "relu"}),  # as is the activation of the head
    "electra": ("multiple_choice", {"embedding_size": 8}),
    "electra generator": ("masked_lm", {"embedding_size": 8}),
    "modernbert mean": ("single_label", {**MODERN, **BIASES, "classifier_pooling": "mean"}),
    "modernbert packed": ("token_classification", {**MODERN, "classifier_activation": "silu"}),
    "modernbert answers": ("question_answering", {**MODERN, "num_labels": 2}),
    "modernbert choices": ("multiple_choice", {**MODERN, "hidden_act": "tanh"}),
}
for families in (FAMILIES, OTHER_HEADS):
    for family, (name, options) in families.items():
        same = CASES[name].options | {"position_embedding_type": "absolute", "model_type": family.split()[0]}
        CASES[f"{family}_{name}"] = replace(CASES[name], options=same | options)
SMOOTH = [name for name, case in CASES.items() if case.config.hidden_act != "relu"]


def test_every_element_of_the_pretraining_gradient_matches_finite_differences():
    case, params = CASES["pretraining"], CASES["pretraining"].params
    _, _, gradient = model.loss_and_gradient(params, case.batch, case.config)
    assert_gradient_is_the_slope(case.loss, params, gradient, every_element(params))


@pytest.mark.parametrize("name", SMOOTH)
def test_gradient_of_every_model_matches_finite_differences(name):
    case, params = CASES[name], CASES[name].params
    _, _, gradient = model.loss_and_gradient(params, case.batch, case.config, objectives=case.objectives)
    assert_gradient_is_the_slope(case.loss, params, gradient, random_directions(params))


INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids", "masked_positions", "cls_positions")
JAX_LOSSES = {
    "masked_lm": lambda outputs, batch, config: jax_losses.cross_entropy(
        outputs["prediction_logits"], batch["masked_labels"], batch["masked_weights"]
    ),
    "next_sentence": lambda outputs, batch, config: jax_losses.cross_entropy(
        outputs["seq_relationship_logits"], batch["next_sentence_labels"], batch["next_sentence_weights"]
    ),
    "sequence_classification": lambda outputs, batch, config: jax_losses.classification_loss(
        outputs["logits"], batch["labels"], batch["example_weights"], problem_type=config.problem_type
    ),
    "multiple_choice": lambda outputs, batch, config: jax_losses.classification_loss(
        outputs["logits"], batch["labels"], batch["example_weights"], problem_type=config.problem_type
    ),
    "token_classification": lambda outputs, batch, config: jax_losses.cross_entropy(
        outputs["logits"], batch["labels"], (batch["labels"] != -100) * batch["example_weights"][:, None]
    ),
    "question_answering": lambda outputs, batch, config: jax_losses.span_loss(
        outputs["start_logits"],
        outputs["end_logits"],
        batch["start_positions"],
        batch["end_positions"],
        batch["example_weights"],
    ),
}


@functools.cache
def computed_by_jax(name):
    """Returns loss, outputs and gradient of a case from the Flax model, compiled once for all tests."""
    case = CASES[name]
    module = getattr(models, case.model)(case.config)

    def loss(params, batch):
        outputs = module.apply({"params": params}, **{key: batch[key] for key in INPUTS if key in batch})
        pairs = [JAX_LOSSES[objective](outputs, batch, case.config) for objective in case.objectives]
        return sum(total / weight for total, weight in pairs), dict(outputs)

    with jax.enable_x64(True):
        (value, outputs), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(case.params, case.batch)
        return jax.tree.map(np.asarray, (value, outputs, gradient))


@pytest.mark.parametrize("name", CASES)
def test_forward_agrees_with_jax(name):
    case = CASES[name]
    value, outputs, _ = model.loss(case.params, case.batch, case.config, objectives=case.objectives)
    jax_value, jax_outputs, _ = computed_by_jax(name)
    assert_leaves_agree(outputs | {"loss": value}, jax_outputs | {"loss": jax_value}, FORWARD_TOLERANCE)


@pytest.mark.parametrize("name", CASES)
def test_gradient_agrees_with_automatic_differentiation(name):
    case = CASES[name]
    _, _, gradient = model.loss_and_gradient(case.params, case.batch, case.config, objectives=case.objectives)
    assert_leaves_agree(gradient, computed_by_jax(name)[2], GRADIENT_TOLERANCE)


def test_packed_sequences_do_not_attend_to_each_other():
    case = CASES["pretraining"]
    packed, _ = model.bert(case.params, PACKED, case.config)
    for number in (1, 2, 3):
        here = ATTENTION_MASK[0] == number
        alone = {name: PACKED[name][:1, here] for name in ("input_ids", "token_type_ids", "position_ids")}
        x, _ = model.bert(case.params, alone, case.config)
        np.testing.assert_allclose(packed[0, here], x[0], rtol=FORWARD_TOLERANCE, atol=FORWARD_TOLERANCE)
