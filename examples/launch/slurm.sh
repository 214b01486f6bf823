#!/bin/bash
# Pretrains BERT-large on 4 nodes of 8 GPUs: sbatch examples/launch/slurm.sh
#SBATCH --job-name=bert
#SBATCH --nodes=4
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@180
#SBATCH --requeue
#SBATCH --output=%x-%j.out
#SBATCH --open-mode=append

set -euo pipefail
cd "${SLURM_SUBMIT_DIR:-.}"

# The processes connect to each other by host name; a proxy would intercept that.
unset http_proxy https_proxy HTTP_PROXY HTTPS_PROXY

status=0
srun --kill-on-bad-exit=1 .venv/bin/python train.py \
    --distributed --resume --begin \
    --preset large --dtype bfloat16 \
    --corpus "$HOME/texts/*.txt" --cache-dir "$HOME/cache" --output "$HOME/runs/large" \
    --optimizer lamb --learning-rate 6e-3 --warmup-steps 2000 --steps 7038 --decay-steps 7038 \
    --batch-size 65536 --accumulate 32 --quiet || status=$?

# 143: the run got SIGTERM three minutes before the time limit, saved and exited.
if [ "$status" -eq 143 ]; then
    scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
