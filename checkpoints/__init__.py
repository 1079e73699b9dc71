"""Checkpoints: read safely, translated between releases and this suite, compared with golden arrays."""
