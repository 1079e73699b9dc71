"""Constant velocity: see README.md."""
