#!/bin/bash
# Pretrains BERT-large on a running Ray cluster with 4 machines of 8 GPUs: ADDRESS=http://HEAD:8265 examples/launch/ray/submit.sh
# Requirements: bert_jax with the extra `ray`, and ray[default] for jobs, installed on each machine; /shared mounted everywhere.
# The job runs on the cluster, not in this shell; if it ends before the run does, submit it again: it resumes the run.
set -euo pipefail
: "${ADDRESS:?the address of the cluster, such as http://HEAD:8265}"

ray job submit --address "$ADDRESS" --no-wait --working-dir examples/launch/ray -- \
    python train_on_ray.py --workers 4 --gpus 8 --cpus 64 \
        pretrain --preset large --dtype bfloat16 \
        --corpus "/shared/texts/*.txt" --cache-dir /shared/cache --output /shared/runs/large \
        --optimizer lamb --learning-rate 6e-3 --warmup-steps 2000 --steps 7038 --decay-steps 7038 \
        --batch-size 65536 --accumulate 32 --quiet
