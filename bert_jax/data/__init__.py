"""From files and datasets to batches of NumPy arrays."""
