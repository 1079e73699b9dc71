"""Ego-status MLP: see README.md."""
