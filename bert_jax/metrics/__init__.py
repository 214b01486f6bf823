"""Metrics in NumPy: classification, entities, SQuAD."""
