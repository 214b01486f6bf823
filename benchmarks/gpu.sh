#!/usr/bin/env bash
# Correctness, throughput, share of the peak, memory and the largest batch on a GPU, a JSON object a line, in under ten
# minutes. The machine needs jax with CUDA, flax, optax, orbax and numpy; nothing is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}"
exec "${PYTHON:-python3}" benchmarks/gpu.py "$@"
