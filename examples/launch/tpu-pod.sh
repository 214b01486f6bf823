#!/bin/bash
# Pretrains BERT-large on every host of a TPU pod slice: TPU=my-slice ZONE=us-east5-a examples/launch/tpu-pod.sh
# Requirements: the repository in ~/bert_jax on each host, installed with `pip install -e '.[tpu]'`; /shared mounted everywhere.
# There is no automatic restart: an interrupted run has saved; run this command again when the slice is available.
set -euo pipefail
: "${TPU:?the name of the slice}" "${ZONE:?its zone}"

gcloud compute tpus tpu-vm ssh "$TPU" --zone "$ZONE" --worker=all --command '
    cd ~/bert_jax && .venv/bin/python train.py \
        --distributed --resume --begin \
        --preset large --dtype bfloat16 \
        --corpus "/shared/texts/*.txt" --cache-dir ~/cache --output /shared/runs/large \
        --optimizer lamb --learning-rate 6e-3 --warmup-steps 2000 --steps 7038 --decay-steps 7038 \
        --batch-size 65536 --accumulate 32 --quiet
'
