"""Readers: files and datasets of the hub as examples."""
