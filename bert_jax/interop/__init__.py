"""Checkpoints of Hugging Face, of Flax and of runs: in, out, and made larger."""
