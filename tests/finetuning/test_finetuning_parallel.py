"""Fine-tuning on eight devices gives the parameters of one device, for every kind of head and two seeds together.

Rows are packed, and each seed has its own order of the data.
"""

import itertools
from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradient_checks import NEGLIGIBLE_IN_FLOAT32, assert_leaves_agree
from pretraining_batches import CONFIG

from bert_jax import models
from bert_jax.data.finetuning.batches import Features, RowFormat, TrainingBatches
from bert_jax.data.finetuning.sequences import Sequences, offsets_of
from bert_jax.finetuning import make_settings
from bert_jax.finetuning.trainer import ensemble_batch, evaluation_layout
from bert_jax.training import objectives
from bert_jax.training.devices import parallel
from bert_jax.training.devices.compilations import CompilationCounter
from bert_jax.training.optimizers import make_optimizer, make_schedule
from bert_jax.training.seeds import SeedEnsemble
from bert_jax.training.steps import train_step

pytestmark = pytest.mark.slow

SAME_PARAMETERS = 1e-5
SEEDS, STEPS, BATCH, SHARDS = (3, 5), 5, 40, 8
# Hidden size and heads can be divided by 8 devices.
DROPPING = replace(CONFIG, hidden_size=24, num_attention_heads=4, intermediate_size=20, num_labels=3)
STILL = replace(DROPPING, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
OPTIMIZER = make_optimizer("bert_adamw", make_schedule("linear", peak=3e-3, warmup_steps=2, decay_steps=9))
LAYOUTS = {
    "data 8": {},
    "fsdp 8": {"fsdp": 8},
    "data 2 x tensor 4": {"tensor": 4},
    "data 2 x fsdp 2 x tensor 2": {"fsdp": 2, "tensor": 2},
    "pmap 8": {"parallel": "pmap"},
}
OBJECTIVES = {
    "classes": (
        models.BertForSequenceClassification,
        partial(objectives.classification, problem_type="single_label_classification"),
    ),
    "tags": (models.BertForTokenClassification, objectives.tagging),
    "spans": (models.BertForQuestionAnswering, objectives.question_answering),
}
OTHERS = [kind for kind in OBJECTIVES if kind != "classes"]


@cache
def plan(kind, together=SEEDS):
    """Batches of 3 * 40 sequences, several per row, with the targets of the objective."""
    random = np.random.default_rng(11)
    lengths = random.integers(3, 14, 3 * BATCH)
    n, tokens = len(lengths), int(lengths.sum())
    ids = random.integers(4, CONFIG.vocab_size, tokens).astype(np.int32)
    sequences = Sequences(ids, offsets_of(lengths), random.integers(1, lengths + 1).astype(np.int32))
    labels, weights = random.integers(3, size=tokens).astype(np.int32), np.float32(random.uniform(0.5, 2, tokens))
    places = random.integers(0, lengths).astype(np.int32)
    features = {
        "classes": Features(sequences, {"labels": labels[:n], "weights": weights[:n]}),
        "tags": Features(sequences, of_tokens={"labels": labels, "weights": weights}),
        "spans": Features(
            sequences, {"weights": weights[:n]}, positions={"start_positions": places, "end_positions": places}
        ),
    }[kind]
    row_format = RowFormat.choose([features], batch_size=BATCH, packed=True, pad_id=1, shards=SHARDS)
    sources = [TrainingBatches(features, row_format, BATCH, seed) for seed in together]
    return partial(ensemble_batch, SeedEnsemble(together, frozenset()), sources)


@cache
def first_parameters(kind, together):
    """Returns the parameters [K, ...] of these seeds before the first step, as NumPy arrays."""
    model = OBJECTIVES[kind][0](STILL)
    create = jax.vmap(lambda key: model.init(key, jnp.zeros((1, 2), jnp.int32))["params"])
    return jax.device_get(jax.jit(create)(jax.vmap(jax.random.key)(jnp.array(together))))


def trained(layout, kind, config, together=SEEDS):
    """Returns the parameters [K, ...] of these seeds after some steps, as NumPy arrays."""
    head, objective = OBJECTIVES[kind]
    model = head(config)
    params = first_parameters(kind, together)
    ensemble = SeedEnsemble(together, frozenset(params))
    state = ensemble.create(params, OPTIMIZER)
    state = jax.device_put(state, layout.shardings(state))
    step = partial(train_step, objective=objective(model), optimizer=OPTIMIZER)
    counted_step = CompilationCounter(layout.compile_step(ensemble.step(step), state))
    for number in range(STEPS):
        state, metrics = counted_step(state, layout.device_put(plan(kind, together)(number)))
        jax.block_until_ready(metrics)  # several steps in flight on eight virtual devices can deadlock
    assert int(state.step) == STEPS
    assert set(counted_step.shapes.values()) == {1}
    assert len(counted_step.shapes) == 1 or together != SEEDS
    params = jax.tree.map(np.array, state.params)
    if kind == "spans":
        # These shift the logits of all tokens equally and change no softmax: their gradient is a rounding error, of
        # which Adam makes full steps.
        params["span"]["bias"][:] = params["encoder"]["feed_forward"]["norm"]["bias"][:, -1] = 0
    return params


@cache
def trained_on_one_device(kind, config):
    return trained(parallel.make_layout(devices=jax.devices()[:1]), kind, config)


@pytest.mark.parametrize("kind", OBJECTIVES)
def test_the_batches_hold_rows_of_several_sequences_for_every_device(kind):
    batch = plan(kind)(0)
    rows, seeds_together = batch["input_ids"].shape[:2]
    assert (rows % SHARDS, seeds_together) == (0, len(SEEDS))
    assert len(set(batch["attention_mask"].max(axis=2).ravel().tolist())) > 3
    assert (batch["input_ids"][:, 0] != batch["input_ids"][:, 1]).any()


@pytest.mark.parametrize(
    ("layout", "kind"),
    [
        *((layout, "classes") for layout in LAYOUTS),
        *itertools.product(("data 2 x fsdp 2 x tensor 2", "pmap 8"), OTHERS),
    ],
)
def test_eight_devices_lead_to_the_parameters_of_one(layout, kind):
    got, wanted = trained(parallel.make_layout(**LAYOUTS[layout]), kind, STILL), trained_on_one_device(kind, STILL)
    assert_leaves_agree(got, wanted, SAME_PARAMETERS, negligible=NEGLIGIBLE_IN_FLOAT32)


def test_evaluation_is_sharded_like_training():
    settings = make_settings("squad", model="m", fsdp=2, tensor=2)
    assert dict(evaluation_layout(settings).mesh.shape) == {"data": 2, "fsdp": 2, "tensor": 2}


def test_eight_devices_lead_to_the_parameters_of_one_with_dropout():
    """A mask depends on the seed's key, not on the device of its row. Under pmap each device draws its own masks."""
    got, wanted = trained(parallel.make_layout(fsdp=4), "classes", DROPPING), trained_on_one_device("classes", DROPPING)
    assert_leaves_agree(got, wanted, SAME_PARAMETERS, negligible=NEGLIGIBLE_IN_FLOAT32)
    other = dict(wanted) | trained_on_one_device("classes", STILL)
    with pytest.raises(AssertionError, match="relative error"):
        assert_leaves_agree(other, wanted, SAME_PARAMETERS)


@pytest.mark.parametrize(("kind", "config"), [("classes", DROPPING), ("tags", STILL), ("spans", STILL)])
def test_a_seed_in_packed_rows_learns_what_it_learns_alone(kind, config):
    """With dropout too: padding rows after a seed's rows do not change its masks."""
    together = trained_on_one_device(kind, config)
    for place, seed in enumerate(SEEDS):
        alone = trained(parallel.make_layout(devices=jax.devices()[:1]), kind, config, (seed,))
        one = jax.tree.map(lambda leaf, place=place: leaf[place][None], together)
        assert_leaves_agree(alone, one, SAME_PARAMETERS, negligible=NEGLIGIBLE_IN_FLOAT32)
