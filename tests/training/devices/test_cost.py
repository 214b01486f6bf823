"""What --plan says of memory and arithmetic, against formulas and against what a step really takes."""

import json
import math
import os
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pretraining_batches import CONFIG, P, T, random_batch
from token_stores import store_of

import train as script
from bert_jax.data.pretraining.loader import BatchSettings, training_batches
from bert_jax.data.pretraining.masking import Vocabulary
from bert_jax.models import BertForPreTraining
from bert_jax.text.layout import Layout
from bert_jax.training.devices import cost as plan
from bert_jax.training.devices import parallel
from bert_jax.training.devices import plan as lines_of_a_plan
from bert_jax.training.devices.cost import (
    bytes_per_device,
    extrapolated_batch,
    largest_batch,
    matrix_flop,
    memory_limit,
    memory_of,
)
from bert_jax.training.devices.plan import span
from bert_jax.training.objectives import pretraining
from bert_jax.training.optimizers import make_optimizer
from bert_jax.training.state import TrainState
from bert_jax.training.steps import train_step

ROOT = Path(__file__).parents[3]
WITHIN = 0.2  # of the memory that was measured
OPTIMIZER = make_optimizer("bert_adamw", lambda step: 0.1)


def shapes_of(model):
    def create(key):
        return TrainState.create(model.init(key, jnp.zeros((1, 2), jnp.int32))["params"], OPTIMIZER, key=key)

    return jax.eval_shape(create, jax.random.key(0))


def flop(rows, *, remat="none", accumulate=1):
    model = BertForPreTraining(CONFIG, remat=remat)
    step = partial(train_step, objective=pretraining(model), optimizer=OPTIMIZER, accumulate=accumulate)
    return matrix_flop(step, shapes_of(model), random_batch(rows))


def test_counted_operations_are_those_of_the_formulas():
    """2 operations per multiplication, once forward and twice backward; the embeddings need no input gradient."""
    rows, c = 6, CONFIG
    D, F, V = c.hidden_size, c.intermediate_size, c.vocab_size
    layer = rows * T * 2 * (4 * D * D + 2 * D * F) + rows * T * 4 * T * D
    heads = rows * P * 2 * (D * D + D * V) + rows * 2 * (D * D + D * 2)
    assert flop(rows) == 3 * (c.num_hidden_layers * layer + heads)
    assert flop(rows, accumulate=3) == flop(rows)
    assert flop(rows, remat="full") == flop(rows) + c.num_hidden_layers * layer


def test_memory_is_split_into_parameters_optimizer_and_working_memory():
    model, layout = BertForPreTraining(CONFIG), parallel.make_layout("pmap")
    state = shapes_of(model)
    step = layout.compile_step(partial(train_step, objective=pretraining(model), optimizer=OPTIMIZER), state)
    memory = memory_of(step.lower(state, layout.shapes(random_batch(16))).compile(), state, layout)
    parameters = sum(leaf.size * 4 for leaf in jax.tree.leaves(state.params))
    assert memory.parameters == parameters
    assert memory.optimizer == 2 * parameters + 4  # two moments, and the schedule's count
    assert memory.working > parameters  # the gradient alone is as large


def test_with_fsdp_a_device_needs_the_memory_of_its_shard():
    model = BertForPreTraining(CONFIG)
    state = shapes_of(model)
    whole, shared = (bytes_per_device(state.params, parallel.make_layout(fsdp=size)) for size in (1, 4))
    kernels = sum(4 * leaf.size for leaf in jax.tree.leaves(state.params) if leaf.ndim > 1)
    assert whole / 4 < shared < whole / 4 + (whole - kernels) + whole / 8


@pytest.mark.parametrize(
    ("groups", "files", "limit"),
    [
        ("0::/", {"memory.max": "8000"}, 8000),
        ("0::/", {"memory.max": "max"}, None),
        ("0::/", {"memory.max": "9223372036854771712"}, None),
        ("0::/job/step", {"job/memory.max": "8000", "job/step/memory.max": "max"}, 8000),
        ("0::/job/step", {"job/memory.max": "8000", "job/step/memory.max": "4000"}, 4000),
        ("0::/the/hosts/name", {"memory.max": "8000"}, 8000),
        ("5:cpu,memory:/job\n0::/", {"memory/job/memory.limit_in_bytes": "8000"}, 8000),
        ("5:memory:/job", {"memory/memory.limit_in_bytes": "8000"}, 8000),
        ("5:cpu:/job", {"memory/memory.limit_in_bytes": "8000"}, None),
        ("0::/", {}, None),
        (None, {}, None),
    ],
)
def test_cpu_devices_divide_the_memory_limit_of_a_container(tmp_path, monkeypatch, groups, files, limit):
    for name, text in files.items():
        path = tmp_path / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    if groups is not None:
        (tmp_path / "own").write_text(groups + "\n")
    monkeypatch.setattr(plan, "CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(plan, "OWN_CGROUPS", tmp_path / "own")
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert memory_limit() == (limit or machine) // jax.local_device_count()


@pytest.mark.parametrize(
    ("needed", "limit", "rows"),
    [
        (lambda rows: 1000 + 7 * rows, 8000, 1000),
        (lambda rows: 1000 + 7 * rows, 1055, 0),
        (lambda rows: 1000 + 7 * rows, 1056, 8),
        (lambda rows: 1000 + 7 * rows, 1250, 32),
        (lambda rows: 1000 + 7 * rows if rows < 24 else math.inf, 9e9, 16),
    ],
)
def test_the_largest_batch_is_found(needed, limit, rows):
    assert largest_batch(needed, limit, 8) == rows


def test_equal_memory_of_small_batches_is_no_line():
    """Small programs may need the same memory for any of a few batches."""
    assert largest_batch(lambda rows: max(rows, 100), 1_000, 8) >= 900
    assert largest_batch(lambda rows: 100, 1_000, 8) > 8
    assert extrapolated_batch(lambda rows: 100, 1_000, unit=8, rows=64) == 64
    assert extrapolated_batch(lambda rows: 100, 99, unit=8, rows=64) == 0


def test_the_largest_batch_fits_where_memory_is_not_linear():
    def needed(rows):
        return 1000 + 7 * rows + 30 * math.sqrt(rows) + (500 if rows > 300 else 0)

    found = largest_batch(needed, 8000, 8)
    assert needed(found) <= 8000 < needed(found * 1.06)


@pytest.mark.parametrize("objective", ["mlm-nsp", "mlm"])
def test_a_blank_batch_has_the_shapes_of_any_other(objective):
    store = store_of([[[5, 6, 7], [8, 9]], [[10, 11]] * 3, [[5] * 9]])
    vocabulary = Vocabulary(12, 0, 4, Layout.bert(2, 3), special_ids=np.arange(5), continuation=np.zeros(12, bool))
    for packing in (True, False):
        settings = BatchSettings(max_length=32, packing=packing, max_predictions=3, objective=objective)
        with training_batches(store, vocabulary, settings, batch_size=5) as batches:
            real = next(batches)
        blank = settings.blank(5)
        assert {name: (x.shape, x.dtype) for name, x in blank.items()} == {
            name: (x.shape, x.dtype) for name, x in real.items()
        }


def test_a_plan_is_printed_and_no_run_is_started(tmp_path, monkeypatch, capsys):
    # The search compiles many programs; the plan of another test has it.
    monkeypatch.setattr(lines_of_a_plan, "largest_batch", lambda needed, limit, unit: 1_240 * unit)
    flags = ["--preset", "tiny", "--num-hidden-layers", "1", "--hidden-size", "16", "--num-attention-heads", "2"]
    flags += ["--phases", "128:90%", "64:10%:512"]
    script.main([*flags, "--intermediate-size", "32", "--output", str(tmp_path / "run"), "--plan", "--fsdp", "2"])
    output = capsys.readouterr().out
    for part in (
        "compiling",
        "data 4 x fsdp 2 x tensor 1 cpu",
        "optimizer",
        "activations",
        "largest batch     9,920 rows; 256 fits",
        "FLOP per",
        "tokens/s",
    ):
        assert part in output
    rates = [float(rate.replace(",", "")) for rate in re.findall(r"about ([\d,]+) tokens/s", output)]
    times = re.findall(r"(900,000 steps|100,000 steps|all phases) +about ([\d.e+]+) (\w+)", output)
    seconds = [float(number) * {"minutes": 60, "hours": 3_600, "days": 86_400}[unit] for _, number, unit in times]
    phases = [900_000 * 256 * 128 / rates[0], 100_000 * 512 * 64 / rates[1]]
    assert seconds == pytest.approx([*phases, sum(phases)], rel=0.01)
    assert re.search("phase 2 of 2: .*, 512 rows of 64 tokens on", output)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ValueError, match="leave out --distributed"):
        script.main(["--plan", "--distributed"])


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        (["nowhere.txt"], "no such file: nowhere.txt"),
        (["here.txt", "*.tsv"], "no file matches"),
        (["."], ". is a folder; name its files"),
    ],
)
def test_a_plan_for_a_corpus_that_does_not_exist_is_an_error(corpus, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.txt").touch()
    with pytest.raises(OSError, match=message):
        script.main(["--plan", "--corpus", *corpus])
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("seconds", "duration"),
    [
        (3, "3 seconds"),
        (119, "119 seconds"),
        (150, "2.5 minutes"),
        (7_200, "2 hours"),
        (1e6, "11.6 days"),
        (1e9, "31.7 years"),
    ],
)
def test_a_duration_is_printed_in_a_suitable_unit(seconds, duration):
    assert span(seconds) == duration


@pytest.mark.slow
def test_predicted_memory_is_within_a_fifth_of_the_measured():
    """The benchmark predicts the memory of a step, then runs it in a separate process and measures resident memory."""
    as_usual = {"XLA_FLAGS": "", "JAX_DISABLE_MOST_OPTIMIZATIONS": "0"}
    environment = os.environ | as_usual | {"PYTHONPATH": str(ROOT)}
    case = {"task": "train step", "case": "bert_jax, remat none", "preset": "mini", "rows": 16, "length": 128}
    command = [sys.executable, str(ROOT / "benchmarks" / "memory.py"), "--worker", json.dumps(case)]
    done = subprocess.run(command, check=True, env=environment, stdout=subprocess.PIPE, text=True)
    metrics = json.loads(done.stdout)
    np.testing.assert_allclose(metrics["planned"], metrics["peak"], rtol=WITHIN)


@pytest.mark.parametrize(
    ("limit", "compiles_to", "expected"),
    [
        (20, math.inf, 144),  # 2 GB and 0.125 GB per row
        (10, math.inf, 64),
        (2.5, math.inf, 0),
        (20, 40, 144),  # the batch itself cannot be compiled: the line goes through 16 and 32 rows
        (20, 3, 0),
    ],
)
def test_the_largest_batch_on_a_line_through_two_programs(limit, compiles_to, expected):
    calls = []

    def needed(rows):
        calls.append(rows)
        return 2 + 0.125 * rows if rows <= compiles_to else math.inf

    assert extrapolated_batch(needed, limit, unit=8, rows=64) == expected
    assert set(calls) <= {8, 16, 32, 64}


def test_the_line_goes_through_more_rows_if_the_batch_is_one_unit():
    assert extrapolated_batch(lambda rows: 3 + rows, 103, unit=8, rows=8) == 96
