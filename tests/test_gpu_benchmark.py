"""The GPU benchmark runs where there is nothing but jax, flax, optax, orbax and numpy."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
ABSENT = ("datasets", "grain", "tyro", "tokenizers", "sentencex", "safetensors", "huggingface_hub", "tqdm",
          "tensorboardX", "matplotlib", "sklearn", "scipy.stats", "pyarrow", "torch", "transformers")  # fmt: skip
SCRIPT = f"""
import runpy, sys
for name in {ABSENT}:
    sys.modules[name] = None  # an import of it fails
sys.argv = ["gpu.py", "--smoke", "--steps", "1", "--dtype", "float32"]
runpy.run_path("benchmarks/gpu.py", run_name="__main__")
"""


def test_the_gpu_benchmark_runs_on_a_bare_machine():
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True)
    about, case, limit = map(json.loads, done.stdout.splitlines())
    assert about["platform"] == "cpu"
    assert case["tokens/s"] > 0
    assert case["attention"] == "plain"
    assert "does not tell its memory" in limit["rows"]
