"""A step gives the same parameters on one device and on any layout of several.

The rows of the batches are packed, with one to three sequences each.
"""

import re
from dataclasses import replace
from functools import cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gradient_checks import NEGLIGIBLE_IN_FLOAT32, assert_leaves_agree
from pretraining_batches import CONFIG, packed_batch

from bert_jax.models import BertForPreTraining
from bert_jax.training.devices import parallel
from bert_jax.training.devices.compilations import CompilationCounter
from bert_jax.training.devices.hlo import Program
from bert_jax.training.objectives import pretraining
from bert_jax.training.optimizers import make_optimizer, make_schedule
from bert_jax.training.runs.metrics import evaluate
from bert_jax.training.state import TrainState, run_key
from bert_jax.training.steps import evaluation_step, ranking_step, train_step

pytestmark = pytest.mark.slow

SAME_PARAMETERS = 1e-5
STEPS = 5
COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")
ROWS = 24  # divisible by 8 devices x 3 micro-batches
# Every axis that a layout splits is divisible by its devices: hidden by 8, heads, inner and vocabulary by 4.
DROPPING = BertForPreTraining(
    replace(CONFIG, hidden_size=24, num_attention_heads=4, intermediate_size=20, vocab_size=36)
)
STILL = BertForPreTraining(replace(DROPPING.config, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0))
LAYOUTS = {
    "data 8": {},
    "fsdp 8": {"fsdp": 8},
    "data 2 x tensor 4": {"tensor": 4},
    "data 2 x fsdp 2 x tensor 2": {"fsdp": 2, "tensor": 2},
}
OPTIMIZER = make_optimizer("bert_adamw", make_schedule("linear", peak=3e-3, warmup_steps=2, decay_steps=9))


def one_device():
    return parallel.make_layout(devices=jax.devices()[:1])


def create(key, optimizer=OPTIMIZER):
    params = DROPPING.init(key, jnp.zeros((1, 2), jnp.int32))["params"]
    return TrainState.create(params, optimizer, key=jax.random.key(7))


@cache
def first_parameters():
    return jax.device_get(jax.jit(create)(jax.random.key(3)).params)


def first_state(layout):
    """Returns the state before the first step, with the shardings of `layout.create`, which is slow to compile."""
    state = TrainState.create(first_parameters(), OPTIMIZER, key=run_key(jax.random.key(7)))
    return jax.device_put(state, layout.shardings(state))


def trained(layout, model, accumulate):
    """Returns the parameters after some steps, as NumPy arrays."""
    state = first_state(layout)
    step = layout.compile_step(
        partial(train_step, objective=pretraining(model), optimizer=OPTIMIZER, accumulate=accumulate), state
    )
    counted_step = CompilationCounter(step)
    for number in range(STEPS):
        state, metrics = counted_step(state, layout.device_put(packed_batch(ROWS, seed=number)))
        jax.block_until_ready(metrics)  # several steps under way on eight virtual devices may wait for one another
    assert int(state.step) == STEPS
    assert counted_step.shapes.total() == 1
    return jax.device_get(state.params)


@cache
def trained_on_one_device(model, accumulate):
    return trained(one_device(), model, accumulate)


def same_parameters(got, wanted):
    assert_leaves_agree(got, wanted, SAME_PARAMETERS, negligible=NEGLIGIBLE_IN_FLOAT32)


def test_the_batches_hold_packed_rows_and_single_ones():
    batch = packed_batch(ROWS)
    sequences = batch["attention_mask"].max(axis=1)
    assert set(sequences.tolist()) == {1, 2, 3}
    assert (batch["attention_mask"] == 0).any()
    np.testing.assert_array_equal(batch["position_ids"][np.arange(ROWS)[:, None], batch["cls_positions"]], 0)


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("sizes", LAYOUTS.values(), ids=LAYOUTS)
def test_a_mesh_gives_the_parameters_of_one_device(sizes, accumulate):
    """With dropout: its masks depend on the key, not on the devices."""
    layout = parallel.make_layout("mesh", **sizes)
    same_parameters(trained(layout, DROPPING, accumulate), trained_on_one_device(DROPPING, accumulate))


@pytest.mark.parametrize("generator", ["hashed", "threefry2x32"])
def test_each_device_generates_its_own_shard_of_a_dropout_mask(generator):
    """An element's random bits depend only on the key and its position. For threefry this needs
    jax_threefry_partitionable, which is on by default; without it a sharded mask needs communication.
    """
    rows = parallel.make_layout(fsdp=2).batch_sharding
    draw = jax.jit(lambda key: jax.random.bits(key, (64, 96), jnp.uint16), out_shardings=rows)
    key = run_key(jax.random.key(0), generator)

    def communicates():
        return bool(set(COLLECTIVES) & set(re.findall(r"[a-z-]+", draw.lower(key).compile().as_text())))

    assert not communicates()
    np.testing.assert_array_equal(draw(key), jax.random.bits(key, (64, 96), jnp.uint16))
    with jax.threefry_partitionable(False):
        assert communicates() == (generator == "threefry2x32")


@pytest.mark.parametrize("accumulate", [1, 3])
def test_pmap_gives_the_parameters_of_one_device(accumulate):
    """With dropout: the masks of hashed random bits depend on a row's place in the global batch."""
    layout = parallel.make_layout("pmap")
    same_parameters(trained(layout, DROPPING, accumulate), trained_on_one_device(DROPPING, accumulate))


def lowered(layout, accumulate, model=DROPPING):
    state = first_state(layout)
    step = partial(train_step, objective=pretraining(model), optimizer=OPTIMIZER, accumulate=accumulate)
    return layout.compile_step(step, state).lower(state, layout.shapes(packed_batch(ROWS)))


def test_gradients_are_summed_over_devices_once_per_step():
    """However many micro-batches there are, and the table of the tied decoder once too."""
    layout = parallel.make_layout()
    sums = [Program.parse(lowered(layout, accumulate).compile().as_text()).collectives for accumulate in (1, 3)]
    parameters = sum(x.nbytes for x in jax.tree.leaves(first_parameters()))
    for collectives in sums:
        assert {(one.kind, one.times, len(one.group)) for one in collectives} == {("all-reduce", 1, 8)}
        assert parameters <= sum(one.size for one in collectives) < parameters + 100  # and a few scalars
    assert len(sums[0]) == len(sums[1])


def test_gradients_of_a_bfloat16_model_are_summed_in_float32():
    model = BertForPreTraining(replace(DROPPING.config, dtype="bfloat16"))
    program = lowered(parallel.make_layout(), 3, model).as_text()
    summed = re.findall(r"stablehlo.all_reduce.*?\}\) : \(tensor<([^>]*)>", program, re.DOTALL)
    assert len(summed) >= len(jax.tree.leaves(first_parameters()))
    assert {shape.split("x")[-1] for shape in summed} == {"f32", "i32"}


def test_under_pmap_each_device_has_a_different_dropout_mask():
    """All rows and all parameters are equal, so only dropout can make the devices' losses differ."""
    layout = parallel.make_layout("pmap")
    first = packed_batch(1)
    batch = layout.device_put({name: np.repeat(x, 8, axis=0) for name, x in first.items()})

    def losses(params, batch, axis, model):
        key = jax.random.fold_in(jax.random.key(5), jax.lax.axis_index(axis))
        loss, _ = pretraining(model).loss_and_metrics(params, batch, key)["masked_lm_loss"]
        return jax.lax.all_gather(loss, axis)

    params = first_parameters()

    def distinct(model):
        losses_of = layout.compile_evaluation(partial(losses, model=model), params)
        return len(set(np.asarray(losses_of(params, batch)).tolist()))

    assert (distinct(DROPPING), distinct(STILL)) == (8, 1)


@pytest.mark.parametrize("name", ["pmap", *LAYOUTS])
def test_evaluation_gives_the_metrics_of_one_device(name):
    layout = parallel.make_layout("pmap") if name == "pmap" else parallel.make_layout(**LAYOUTS[name])
    got, wanted = evaluation_row(layout), evaluation_row_of_one_device()
    assert got.keys() == wanted.keys()
    for figure, value in wanted.items():
        np.testing.assert_allclose(got[figure], value, rtol=SAME_PARAMETERS, err_msg=figure)


def test_an_evaluation_in_micro_batches_has_the_metrics_of_whole_batches():
    got, wanted = evaluation_row(parallel.make_layout(), parts=3), evaluation_row_of_one_device()
    for metric, value in wanted.items():
        np.testing.assert_allclose(got[metric], value, rtol=SAME_PARAMETERS, err_msg=metric)


@pytest.mark.parametrize("name", ["pmap", "data 2 x fsdp 2 x tensor 2"])
def test_next_sentence_scores_use_all_devices_and_are_those_of_one(name):
    layout = parallel.make_layout("pmap") if name == "pmap" else parallel.make_layout(**LAYOUTS[name])
    batch = packed_batch(ROWS)
    got, wanted = (next_sentence_scores(one, batch) for one in (layout, one_device()))
    assert got["scores"].size == wanted["scores"].size
    for pairs in (got, wanted):
        real = pairs["weights"] > 0
        pairs["pairs"] = np.array(sorted(zip(pairs["labels"][real], pairs["scores"][real], strict=True)))
    np.testing.assert_allclose(got["pairs"], wanted["pairs"], atol=SAME_PARAMETERS)


def next_sentence_scores(layout, batch):
    """Returns the flat scores, labels and weights; no device holds more than its share of the rows.

    The parameters are drawn on the layout: they do not depend on it either.
    """
    params = layout.create(create, jax.random.key(3)).params
    step = layout.compile_evaluation(partial(ranking_step, objective=pretraining(STILL)), params)
    arrays = layout.device_put(batch)
    held = {shard.data.size for shard in arrays["input_ids"].addressable_shards}
    assert held == {batch["input_ids"].size // layout.shards}
    return {name: np.asarray(values).reshape(-1) for name, values in step(params, arrays).items()}


def test_micro_batches_hold_each_row_once():
    rows = np.arange(12).reshape(6, 2)
    parts = [part["rows"] for part in parallel.micro_batches({"rows": rows}, 3)]
    assert [part.tolist() for part in parts] == [[[0, 1], [6, 7]], [[2, 3], [8, 9]], [[4, 5], [10, 11]]]
    assert [len(part["rows"]) for part in parallel.micro_batches({"rows": rows}, 1)] == [6]


def evaluation_row(layout, parts=1):
    """The second batch is filled up with rows that count for nothing."""
    params = first_state(layout).params
    step = layout.compile_evaluation(partial(evaluation_step, objective=pretraining(DROPPING)), params)
    short = {name: np.concatenate([x[:3], np.zeros_like(x[3:])]) for name, x in packed_batch(ROWS, seed=1).items()}
    batches = [part for batch in (packed_batch(ROWS), short) for part in parallel.micro_batches(batch, parts)]
    return evaluate(step, params, map(layout.device_put, batches))


@cache
def evaluation_row_of_one_device():
    return evaluation_row(one_device())


def test_with_fsdp_each_device_holds_a_shard_of_the_state():
    """Except biases on axes that fsdp does not divide, and counters: here 3 % of the state."""
    optimizer = make_optimizer("lamb", lambda step: 0.1)
    make = partial(create, optimizer=optimizer)
    state = parallel.make_layout(fsdp=8).create(make, jax.random.key(0))
    arrays = jax.tree.leaves((state.params, state.optimizer_state))
    whole = sum(array.nbytes for array in arrays)
    for device in jax.devices():
        held = sum(s.data.nbytes for array in arrays for s in array.addressable_shards if s.device == device)
        assert whole / 8 <= held < whole / 8 * 1.3
    kernels = [
        leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path((state.params, state.optimizer_state))
        if "['up']['kernel']" in jax.tree_util.keystr(path)
    ]
    assert len(kernels) == 3  # the parameter and its two moments
    for kernel in kernels:
        assert kernel.addressable_shards[0].data.nbytes == kernel.nbytes // 8


def test_parameters_are_created_sharded():
    """No device ever holds a whole parameter: the outputs of each device are its shards."""
    layout = parallel.make_layout(fsdp=8)
    shapes = jax.eval_shape(create, jax.random.key(0))
    shardings = parallel.tree_shardings(shapes, layout.mesh)
    memory = jax.jit(create, out_shardings=shardings).lower(jax.random.key(0)).compile().memory_analysis()
    whole = sum(leaf.size * 4 for leaf in jax.tree.leaves((shapes.params, shapes.optimizer_state)))
    assert memory.output_size_in_bytes < whole / 8 * 1.3


def test_with_fsdp_each_device_computes_only_its_own_rows():
    """Without constraints, XLA splits the activations as the parameters, and computes each row on each device."""
    memory = {}
    for layout in (one_device(), parallel.make_layout(fsdp=8)):
        params = jax.eval_shape(create, jax.random.key(0)).params
        step = layout.compile_evaluation(partial(evaluation_step, objective=pretraining(STILL)), params)
        program = step.lower(params, layout.shapes(packed_batch(8 * 128))).compile()
        memory[layout.shards] = program.memory_analysis().temp_size_in_bytes
    assert memory[8] < memory[1] / 8 * 1.3


def test_a_layout_that_does_not_fit_the_devices_is_an_error():
    with pytest.raises(
        ValueError, match="batch of 12 rows cannot be divided over 8 groups of devices x 1 micro-batches"
    ):
        parallel.check_batch(12, parallel.make_layout())
    with pytest.raises(
        ValueError, match="batch of 8 rows cannot be divided over 8 groups of devices x 3 micro-batches"
    ):
        parallel.check_batch(8, parallel.make_layout("pmap"), 3)
    with pytest.raises(ValueError, match="8 devices cannot be divided into `fsdp=3` x `tensor=1`"):
        parallel.make_layout(fsdp=3)
    with pytest.raises(ValueError, match="`parallel=pmap` splits only rows: `fsdp=2` x `tensor=1`"):
        parallel.make_layout("pmap", fsdp=2)
    with pytest.raises(ValueError, match="`parallel` must be one of mesh, pmap; got 'ddp'"):
        parallel.make_layout("ddp")


def test_a_single_process_reads_the_whole_batch():
    for layout in (parallel.make_layout("pmap"), parallel.make_layout(tensor=8), one_device()):
        assert parallel.slice_to_read(layout) == (0, 1)
