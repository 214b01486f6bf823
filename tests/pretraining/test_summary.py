"""The baseline of a run: what a model without context reaches on the held-out rows."""

import dataclasses

import numpy as np
import pytest
from token_stores import store_of

from bert_jax.data.pretraining.loader import BatchSettings, PretrainingRows, evaluation_batches
from bert_jax.data.pretraining.masking import Vocabulary
from bert_jax.pretraining.summary import TOO_FEW_TOKENS, Baseline
from bert_jax.text.layout import Layout

STORE = store_of([[[5, 6, 7], [8, 9, 10, 11]], [[10, 11]] * 7, [[5] * 9, [7]], [[9, 6]] * 5])
VOCABULARY = Vocabulary(12, 0, 4, Layout.bert(2, 3), special_ids=np.arange(5), continuation=np.zeros(12, bool))
SETTINGS = BatchSettings(max_length=32, seed=3)


@pytest.mark.parametrize("packing", [True, False])
@pytest.mark.parametrize("objective", ["mlm-nsp", "mlm"])
def test_the_baseline_counts_each_sequence_once(objective, packing):
    settings = dataclasses.replace(SETTINGS, objective=objective, packing=packing)
    rows = PretrainingRows(STORE, VOCABULARY, settings)
    sequences, _ = rows.sequences(np.arange(rows.per_pass))
    with evaluation_batches(STORE, VOCABULARY, settings, batch_size=4) as batches:
        baseline = Baseline.of(batches)
    assert baseline.sequences == len(sequences)
    assert baseline.entropy > 0
    if objective == "mlm":
        assert baseline.majority is None
    else:
        random = sequences["label"].mean()
        assert baseline.majority == pytest.approx(max(random, 1 - random))


@pytest.mark.parametrize("tokens", [90, 9_000])
def test_a_baseline_of_too_few_tokens_has_a_bias_that_shows_it(tokens):
    words = np.random.default_rng(3).zipf(1.3, size=(1, tokens)) % 500
    rows = {"attention_mask": np.ones((1, 4)), "masked_labels": words, "masked_weights": np.ones((1, tokens))}
    baseline = Baseline.of([rows])
    assert baseline.masked_tokens == tokens
    assert (baseline.bias > TOO_FEW_TOKENS) == (tokens < 1_000)
