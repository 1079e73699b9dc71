"""Sweeps: many trainings of rows that differ in a config, a value or a seed, and what became of each."""
