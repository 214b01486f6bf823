"""Examples as batches for fine-tuning."""
