"""Any number of answers and targets is served by a few compiled programs."""

import pytest
import small_pipelines as small

from bert_jax.pipelines import FillMask

MASKED = "the [MASK] hooted at night ."


def same(got, want):
    """Returns whether answers are the same tokens with the same scores, up to rounding."""
    tokens = [[one["token"] for one in answers] for answers in (got, want)]
    return tokens[0] == tokens[1] and [one["score"] for one in got] == pytest.approx([one["score"] for one in want])


def test_any_number_of_answers_and_targets_needs_few_programs():
    fill = FillMask(small.bert("BertForMaskedLM"))
    words = small.tokenizer().tokens[5:60]
    everything = fill(MASKED, top=small.tokenizer().vocab_size)
    for top in range(1, 9):
        assert same(fill(MASKED, top=top), everything[:top])
        for size in (1, 2, 5, 8, 9, 23, 55):
            found = fill(MASKED, top=top, targets=words[:size])
            known = {fill.tokenizer.backend.token_to_id(word) for word in words[:size]}
            assert same(found, [one for one in everything if one["token"] in known][:top])
    assert fill.batcher.compilations.total() <= 4
