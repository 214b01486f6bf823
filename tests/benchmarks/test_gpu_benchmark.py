"""The GPU benchmark runs where there is nothing but jax, flax, optax, orbax and numpy."""

import json
import os
import subprocess
import sys
from pathlib import Path

import gpu
import numpy as np
import pytest
from common.pretraining_step import real_flop

from bert_jax.config import BertConfig

ROOT = Path(__file__).parents[2]
ABSENT = ("datasets", "grain", "tyro", "tokenizers", "sentencex", "safetensors", "huggingface_hub", "tqdm",
          "tensorboardX", "matplotlib", "sklearn", "scipy.stats", "pyarrow", "torch", "transformers")  # fmt: skip
SCRIPT = f"""
import runpy, sys
for name in {ABSENT}:
    sys.modules[name] = None  # an import of it fails
sys.path.insert(0, "benchmarks")  # as where the script itself is run
sys.argv = ["gpu.py", "--smoke", "--steps", "1", "--dtype", "float32"]
runpy.run_path("benchmarks/gpu.py", run_name="__main__")
"""


def test_the_gpu_benchmark_runs_on_a_bare_machine():
    environment = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # much to compile, little to compute
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    about, cudnn, pallas, packed, answers, limit = map(json.loads, done.stdout.splitlines())
    assert about["platform"] == "cpu"
    assert about["matrix products alone, TFLOP/s"] > 0
    assert "is for GPUs" in cudnn["why"]
    assert not cudnn["right"]
    assert pallas["right"], pallas
    for case, task, attention in ((packed, "pretraining", "pallas"), (answers, "answers", "plain")):
        assert (case["task"], case["attention"]) == (task, attention)
        assert case["tokens/s"] > 0
        assert case["GiB of the program"] > 0
        assert np.isfinite(case["loss"])
    assert limit["most rows"] == 0
    assert not limit["time was up"]


@pytest.fixture
def compilations(monkeypatch):
    """Lists the rows of the programs that are compiled; each needs a MiB a row."""
    counts = []
    monkeypatch.setattr(gpu, "compiled_step", lambda case, *_: [counts.append(case.rows) or case.rows])
    monkeypatch.setattr(gpu.plan, "program_bytes", lambda rows: rows << 20)
    return counts


@pytest.mark.parametrize(("limit", "most"), [(7, 0), (8, 8), (1000, 1000)])
def test_the_largest_batch_may_be_small(compilations, limit, most):
    found = gpu.largest_batch(gpu.TRIALS[1], "float32", limit=limit << 20, late=lambda: False)
    assert found["most rows"] == most
    assert not found["time was up"]


def test_a_batch_is_searched_no_longer_than_there_is_time(compilations):
    """What is known to fit is told."""
    found = gpu.largest_batch(gpu.TRIALS[1], "float32", limit=1 << 40, late=lambda: len(compilations) == 2)
    assert compilations == [8, 32]
    assert found["most rows"] == 32
    assert found["time was up"]


def test_attention_counts_within_sequences_alone():
    config = BertConfig.preset("tiny")
    packed, fixed = (gpu.batch_of(gpu.Case("tiny", 512, packed, 5), config.vocab_size) for packed in (True, False))
    lengths = [np.bincount(row)[1:] for row in packed["attention_mask"]]
    spared = 5 * 512**2 - sum(int(np.square(some).sum()) for some in lengths)
    assert spared > 5 * 512**2 / 2
    less = real_flop(config, fixed) - real_flop(config, packed)
    assert less == pytest.approx(12 * config.num_hidden_layers * config.hidden_size * spared)
