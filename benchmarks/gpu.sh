#!/usr/bin/env bash
# Check the attention kernels on a GPU and measure throughput, fraction of the peak, memory and the largest batch, in
# under eight minutes; prints one JSON object per line. Needs jax with CUDA, flax, optax, orbax and numpy; installs nothing.
set -euo pipefail
cd "$(dirname "$0")/.."
export PYTHONPATH="$PWD${PYTHONPATH:+:$PYTHONPATH}"
export XLA_PYTHON_CLIENT_MEM_FRACTION="${XLA_PYTHON_CLIENT_MEM_FRACTION:-0.92}"
exec "${PYTHON:-python3}" benchmarks/gpu.py "$@"
