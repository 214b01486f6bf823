"""Engines: what calls the stages for all parts."""
