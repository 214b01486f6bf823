"""Weight files: bytes to named tensors."""
