"""Where a family has dropout in its heads: as in transformers, which has it in other places than BERT."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import small_bert as small

from bert_jax import models
from bert_jax.interop.heads import parts_of
from bert_jax.interop.names import leaf_shapes, unflatten

IDS = small.ROWS["input_ids"]


@pytest.mark.parametrize(
    ("family", "head", "changed"),
    [
        ("roberta", "SequenceClassification", {"pooler_output", "logits"}),
        ("electra", "SequenceClassification", {"pooler_output", "logits"}),
        ("distilbert", "SequenceClassification", {"logits"}),
        ("modernbert", "SequenceClassification", {"logits"}),
        ("modernbert", "TokenClassification", {"logits"}),
        ("modernbert", "QuestionAnswering", {"start_logits", "end_logits"}),
        ("distilbert", "TokenClassification", set()),
        ("distilbert", "QuestionAnswering", {"start_logits", "end_logits"}),
    ],
)
def test_dropout_of_a_head_changes_what_it_does_in_transformers(family, head, changed):
    rates = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "classifier_dropout": 0.5}
    if family == "distilbert":
        rates["span_dropout"] = 0.5
    config = small.config(model_type=family, num_hidden_layers=1, **rates)
    model = getattr(models, f"BertFor{head}")(config)
    params = small.draw(unflatten(leaf_shapes(config, parts_of(type(model), config))))
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), params)

    @jax.jit
    def run(key):
        return model.apply({"params": params}, IDS), model.apply({"params": params}, IDS, rngs={"dropout": key})

    still, dropped = run(jax.random.key(1))
    assert {name for name in still if not np.array_equal(still[name], dropped[name])} == changed
