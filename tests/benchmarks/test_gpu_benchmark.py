"""The GPU benchmark needs only jax, flax, optax, orbax and numpy, and counts FLOP and memory correctly."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import gpu
import numpy as np
import pytest
from common.gpu_cases import SMOKE_CASES, Case, random_batch
from common.pretraining_step import real_token_flop

from bert_jax.config import BertConfig

ROOT = Path(__file__).parents[2]
ABSENT = ("datasets", "grain", "tyro", "tokenizers", "sentencex", "safetensors", "huggingface_hub", "tqdm",
          "tensorboardX", "matplotlib", "sklearn", "scipy.stats", "pyarrow", "torch", "transformers")  # fmt: skip
SCRIPT = f"""
import runpy, sys
for name in {ABSENT}:
    sys.modules[name] = None  # an import of it fails
sys.path.insert(0, "benchmarks")  # as when the script itself is run
sys.argv = ["gpu.py", "--smoke", "--steps", "1", "--dtype", "float32"]
runpy.run_path("benchmarks/gpu.py", run_name="__main__")
"""


def test_the_gpu_benchmark_runs_without_optional_packages():
    environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # compilation dominates
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    machine, cudnn, pallas, packed, answers, inference, limit = map(json.loads, done.stdout.splitlines())
    assert machine["platform"] == "cpu"
    assert machine["matmul TFLOP/s"] > 0
    assert "needs a GPU" in cudnn["reason"]
    assert not cudnn["correct"]
    assert pallas["correct"], pallas
    for case, task, attention in ((packed, "pretraining", "pallas"), (answers, "answers", "plain")):
        assert (case["task"], case["attention"]) == (task, attention)
        assert case["tokens/s"] > 0
        assert case["program GiB"] > 0
        assert np.isfinite(case["losses"]).all()
        assert case["repeats to the bit"]
    assert inference["tokens/s"] > 0
    assert limit["largest batch"] == 0
    assert not limit["out of time"]


@pytest.fixture
def compilations(monkeypatch):
    """Collects the rows of the compiled programs; a program needs 1 MiB per row."""
    counts = []

    def lower(case, *_):
        counts.append(case.rows)
        return lambda: SimpleNamespace(compiled=case.rows)

    monkeypatch.setattr(gpu, "lower", lower)
    monkeypatch.setattr(gpu.cost, "program_bytes", lambda rows: rows << 20)
    return counts


@pytest.mark.parametrize(("limit", "most"), [(7, 0), (8, 8), (1000, 1000)])
def test_the_largest_batch_fits_the_limit(compilations, limit, most):
    found = gpu.largest_batch(SMOKE_CASES[1], "float32", limit=limit << 20, out_of_time=lambda: False)
    assert found["largest batch"] == most
    assert not found["out of time"]


def test_the_search_for_the_largest_batch_stops_when_out_of_time(compilations):
    found = gpu.largest_batch(SMOKE_CASES[1], "float32", limit=1 << 40, out_of_time=lambda: len(compilations) == 2)
    assert compilations == [8, 32]
    assert found["largest batch"] == 32
    assert found["out of time"]


def test_flop_count_attention_within_sequences_only():
    config = BertConfig.preset("tiny")
    packed, fixed = (random_batch(Case("tiny", 512, packed, 5), config.vocab_size) for packed in (True, False))
    lengths = [np.bincount(row)[1:] for row in packed["attention_mask"]]
    excluded = 5 * 512**2 - sum(int(np.square(some).sum()) for some in lengths)
    assert excluded > 5 * 512**2 / 2
    difference = real_token_flop(config, fixed) - real_token_flop(config, packed)
    assert difference == pytest.approx(12 * config.num_hidden_layers * config.hidden_size * excluded)
