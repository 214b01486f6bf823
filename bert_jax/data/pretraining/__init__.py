"""Corpora as batches for pretraining: sentence pairs, packed and masked."""
