"""Training: optimizers, one pure step, devices, checkpoints, the loop and what it reports."""
