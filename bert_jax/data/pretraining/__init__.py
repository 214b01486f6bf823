"""Corpora as batches for pretraining: sentence pairs or runs of sentences, packed and masked."""
